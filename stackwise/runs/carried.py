"""The code that a run carries: `code/` in its folder, with hashes in provenance.json.

    provenance.json   "carries": [{"file": "mine.py", "sha256": "..."}]
    code/mine.py      its text

Reading a run never imports it. To compute with a run whose kinds are not known, it is imported,
once somebody has said that it is trusted, or because this very process was given the same file by
its user (`own_code.py`). What is imported are the bytes that were compared with the hash.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise.atomic import replacing
from stackwise.bounded import read_bytes
from stackwise.errors import ExperimentError, TrustError
from stackwise.own_code import (
    MOST_BYTES,
    MOST_FILES,
    NAME,
    CodeFile,
    brought_by,
    import_files,
    kinds_of,
    loaded,
    registries,
)

if TYPE_CHECKING:
    from stackwise.runs.folder import Run
    from stackwise.runs.records import Records

FOLDER, KEY = "code", "carries"
HEX = frozenset("0123456789abcdef")


def facts_of(files: Sequence[CodeFile]) -> dict[str, Any]:
    """What provenance.json says of files of code; nothing where there are none."""
    return {KEY: [{"file": each.name, "sha256": each.sha256} for each in files]} if files else {}


def write_code(folder: Path, files: Sequence[CodeFile]) -> None:
    """Put files of code into a new folder, before it counts as a run.

    Raises:
        OSError: If they cannot be written.
    """
    for each in files:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        with replacing(folder / FOLDER / each.name) as part:
            part.write_bytes(each.content)


def listed(facts: Mapping[str, Any]) -> dict[str, str]:
    """Names to hashes of the code that a provenance.json says is carried; nothing is imported.

    Raises:
        ValueError: If it cannot be ours.
    """
    entries = facts.get(KEY, [])
    if not isinstance(entries, list) or len(entries) > MOST_FILES:
        raise ValueError(f"{KEY}: is no list of files")
    found: dict[str, str] = {}
    for each in entries:
        name, digest = map(each.get, ("file", "sha256")) if isinstance(each, dict) else ("", "")
        if not isinstance(name, str) or not isinstance(digest, str):
            raise ValueError(f"{KEY}: names a file that is no text")
        if not NAME.fullmatch(name) or name in found or len(digest) != 64 or set(digest) - HEX:
            raise ValueError(f"{KEY}: names a file that cannot be ours")
        found[name] = digest
    return found


def read_carried(folder: Path, wanted: Mapping[str, str]) -> tuple[CodeFile, ...]:
    """The files of code in a folder, compared with their hashes.

    Raises:
        ValueError: If one is missing, no file, too long, or not what its hash says.
    """
    files = []
    for name, digest in wanted.items():
        where = f"{FOLDER}/{name}"
        if (folder / FOLDER).is_symlink():
            raise ValueError(f"{where}: lies behind a link")
        try:
            found = CodeFile(name, read_bytes(folder / FOLDER / name, MOST_BYTES), where)
        except OSError as error:
            raise ValueError(f"{where}: cannot be read ({error.strerror})") from None
        if found.sha256 != digest:
            raise ValueError(f"{where}: is not what the run began with (its hash differs)")
        files.append(found)
    return tuple(files)


def own_files(run: Run) -> tuple[CodeFile, ...]:
    """The code of a run, read and compared with provenance.json; not imported.

    Raises:
        RunError: If it is damaged.
    """
    from stackwise.runs.damage import RESTORE, RunError

    try:
        return read_carried(run.path, run.carries())
    except ValueError as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"run {run.id}: {error}; {RESTORE}") from None


def import_carried(run: Run, only: Collection[str] | None = None) -> None:
    """Import the code that a run carries, which somebody has said is trusted.

    Args:
        run: The run.
        only: The hashes that are trusted; None for all.

    Raises:
        RunError: If a file is not what provenance.json says.
        TrustError: If it is none of `only`.
        ExperimentError: If one cannot be imported.
    """
    files = own_files(run)
    if only is not None and any(each.sha256 not in only for each in files):
        raise untrusted(run)
    import_files(files)


def check_trusted(run: Run, trust: bool) -> None:
    """See to it that what a run names is known, before it is computed with.

    Args:
        run: The run.
        trust: Whether its user trusts the code that it carries, which is then imported.

    Raises:
        TrustError: If it needs code that this process does not have and that is not trusted.
        RunError, ExperimentError: As `import_carried`.
    """
    carried = run.carries()
    if carried and (trust or set(carried.values()) <= loaded()):
        import_carried(run)
        run.forget_experiment()
    elif carried and not is_known(run):
        raise untrusted(run)


def is_known(run: Run) -> bool:
    """Whether this process knows every kind that a run names, and not from another code."""
    try:
        exp = run.experiment
    except ExperimentError:
        return False
    known, own = registries(), set(run.carries().values())
    for key, name in kinds_of(exp):
        if name in known[key] and (brought := brought_by(key, name)) and not brought & own:
            return False
    return True


def lacks_code(run: Records) -> bool:
    """Whether a run carries code that is not imported here."""
    try:
        return not set(run.carries().values()) <= loaded()
    except ValueError:  # its provenance is damaged
        return False


def untrusted(run: Records) -> TrustError:
    """That a run carries code which is not trusted: which, and the way out."""
    return not_trusted(f"run {run.id}", run.carries())


def not_trusted(what: str, files: Mapping[str, str]) -> TrustError:
    """The same of anything that carries code.

    Args:
        what: Carries it.
        files: Names to hashes.
    """
    said = ", ".join(f"{FOLDER}/{name} (sha256 {digest})" for name, digest in files.items())
    return TrustError(
        f"{what}: carries code of its own, which is not imported unless you trust it: {said}. "
        "Read it; then say --trust on the command line, or trust=True"
    )
