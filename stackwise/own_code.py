"""Files of a user's own that bring kinds: read, imported, known by their hashes.

    sw.load_code("mine.py")                     # from here on attention=mean is known
    sw.launch(exp, code=["mine.py"])            # the run carries the file, so that others know it

A file is imported from the very bytes that were hashed, under a private name, by itself: it sees
StackWise and packages, and no other such file. Only a user names one here. What of code stands in a
run's folder, and who may import that, is in `runs/carried.py`.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from stackwise.errors import ExperimentError, Problem, short

if TYPE_CHECKING:
    from stackwise.config import Experiment

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,59}\.py")
MOST_BYTES, MOST_FILES = 1 << 20, 32
PRIVATE = "stackwise_own_code_"
Paths = str | Path | Iterable[str | Path]
Registries = dict[str, MutableMapping[str, Any]]


@dataclass(frozen=True)
class CodeFile:
    """A file of code.

    Attributes:
        name: Its last name, as `mine.py`.
        content: Its bytes.
        source: What tracebacks and messages call it.
    """

    name: str
    content: bytes
    source: str

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        return hashlib.sha256(self.content).hexdigest()


_loaded: dict[str, dict[tuple[str, str], Any]] = {}  # by hash: what a file put into registries


def read_code(paths: Paths) -> tuple[CodeFile, ...]:
    """The files of code at some paths; nothing is imported.

    Raises:
        ExperimentError: If one is missing, too long or has a name that a run's folder cannot hold,
            or two have one name.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files = tuple(_read(Path(path)) for path in given)
    names = [file.name for file in files]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ExperimentError(f"code: two files are called {twice[0]}; rename one")
    if len(files) > MOST_FILES:
        raise ExperimentError(f"code: {len(files)} files are over {MOST_FILES}; join some")
    return files


def _read(path: Path) -> CodeFile:
    if not NAME.fullmatch(path.name):
        raise ExperimentError(
            f"code: {short(path.name)} is no name for it; take letters, digits, '_' and '-', 60 at "
            "most, and the ending .py"
        )
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ExperimentError(f"code: {path} cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise ExperimentError(f"code: {path} is over {MOST_BYTES} bytes long; name the file itself")
    return CodeFile(path.name, content, str(path))


def load_code(*paths: str | Path) -> tuple[CodeFile, ...]:
    """Import files of one's own, so that the kinds they register are known in this process.

    A file whose bytes were imported before is not run again; its kinds are the ones that are meant
    from here on.

    Raises:
        ExperimentError: If one cannot be read or imported, or replaces a kind that StackWise ships.
    """
    files = read_code(paths)
    import_files(files)
    return files


def import_files(files: Sequence[CodeFile]) -> None:
    """Import files that were read already, in their order.

    Raises:
        ExperimentError: As `load_code`; then all registries are as before that file.
    """
    for file in files:
        if file.sha256 not in _loaded:
            _loaded[file.sha256] = _imported(file)
        known = registries()
        for (what, name), entry in _loaded[file.sha256].items():
            known[what][name] = entry


def carried_by(exp: Experiment, paths: Paths) -> tuple[CodeFile, ...]:
    """The files that a run of an experiment carries, if they bring what it needs."""
    return carried_by_all([exp], paths)


def carried_by_all(exps: Iterable[Experiment], paths: Paths) -> tuple[CodeFile, ...]:
    """The files that runs of experiments carry, if they bring what these need.

    Raises:
        ExperimentError: As `load_code` and `known_beside`, or if a kind that StackWise does not
            ship is brought by none of them.
    """
    files = read_code(paths)
    known_beside(files)
    own, names = {each.sha256 for each in files}, ", ".join(each.name for each in files)
    problems = [
        Problem(key, f"{name!r} is brought by none of {names}; name the file that registers it")
        for exp in exps
        for key, name in foreign_kinds(exp)
        if files and not brought_by(key, name) & own
    ]
    if problems:
        raise ExperimentError(problems)
    return files


def known_beside(files: Sequence[CodeFile]) -> None:
    """Import files for what they register and is not known yet; what is known stays as it is.

    For experiments that exist already: their kinds came from a cell, or an `import`.

    Raises:
        ExperimentError: As `load_code`, or if a kind came from another version of a file.
    """
    for file in files:
        if file.sha256 in _loaded:
            continue
        known, before = registries(), _snapshot()
        made = _imported(file)
        for what, name in made:
            if name not in before[what]:
                continue
            if any(before[what][name] is old.get((what, name)) for old in _loaded.values()):
                _restore(before)
                raise ExperimentError(
                    f"code: {file.name} has changed since {what} {name!r} was loaded; call "
                    "sw.load_code again and make the experiment anew"
                )
            known[what][name] = before[what][name]
        _loaded[file.sha256] = {key: known[key[0]][key[1]] for key in made}


def loaded() -> set[str]:
    """The hashes of the files whose kinds this process has."""
    return set(_loaded)


def brought_by(what: str, name: str) -> set[str]:
    """The hashes of the loaded files that the present entry of a registry came from."""
    entry = registries()[what].get(name)
    made = ((sha, kinds.get((what, name))) for sha, kinds in _loaded.items())
    return {sha for sha, kind in made if kind is not None and kind is entry}


def registries() -> Registries:
    """Every registry that code may add to, by the key of an experiment that names its entries."""
    from stackwise.curriculum import CURRICULA
    from stackwise.data.corpora import CORPORA
    from stackwise.data.tokenizer import TOKENIZERS
    from stackwise.model.attention import ATTENTION
    from stackwise.model.formats import FORMATS
    from stackwise.objective import OBJECTIVES
    from stackwise.sampling import SAMPLERS
    from stackwise.schedules import SCHEDULES
    from stackwise.training.updates import OPTIMIZERS

    return {
        "attention": ATTENTION,
        "objective": OBJECTIVES,
        "masking.schedule": SCHEDULES,
        "curriculum": CURRICULA,
        "data.corpus": CORPORA,
        "data.tokenizer": TOKENIZERS,
        "sampler": SAMPLERS,
        "optim.name": OPTIMIZERS,
        "precision.frozen": FORMATS,
    }


def kinds_of(exp: Experiment) -> list[tuple[str, str]]:
    """The keys of an experiment that name kinds of registries, with the names."""
    members = getattr(exp.data.corpus, "corpora", ())
    named = [
        ("attention", exp.attention),
        ("objective", exp.objective),
        ("masking.schedule", exp.masking.schedule),
        ("curriculum", exp.curriculum),
        *(("data.corpus", each) for each in (exp.data.corpus, *members)),
        ("data.tokenizer", exp.data.tokenizer),
    ]
    return [(key, params.choice) for key, params in named if params is not None]


def foreign_kinds(exp: Experiment) -> list[tuple[str, str]]:
    """The kinds that an experiment names and StackWise does not ship.

    A curriculum is none of them: a run executes its list of stages.
    """
    known = registries()
    named = [(key, name) for key, name in kinds_of(exp) if key != "curriculum"]
    return [(key, name) for key, name in named if not is_shipped(known[key].get(name))]


def is_shipped(entry: Any) -> bool:
    """Whether what a registry holds is one of StackWise's own."""
    build = getattr(entry, "build", None) or getattr(entry, "state", None) or entry
    made_of = [build, *filter(None, [getattr(entry, "params", None)])]
    return all(str(getattr(each, "__module__", "")).startswith("stackwise.") for each in made_of)


def _imported(file: CodeFile) -> dict[tuple[str, str], Any]:
    """Run a file as a module of its own; what it put into the registries."""
    name, before = f"{PRIVATE}{file.sha256[:16]}", _snapshot()
    module = ModuleType(name)
    module.__file__ = file.source
    sys.modules[name] = module
    try:
        exec(compile(file.content, file.source, "exec", dont_inherit=True), module.__dict__)
        made = _changes(before)
        for what, key in made:
            if key not in before[what]:
                continue
            if what in ("optim.name", "precision.frozen") or is_shipped(before[what][key]):
                raise ExperimentError(f"replaces {what} {key!r}, which StackWise ships; rename it")
    except BaseException as error:
        _restore(before)
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt | MemoryError):
            raise
        said = str(error) if isinstance(error, ExperimentError) else ""
        why = said or f"cannot be imported: {type(error).__name__}: {error}"
        raise ExperimentError(f"code: {file.name}: {why}") from error
    return made


def _snapshot() -> dict[str, dict[str, Any]]:
    return {what: dict(registry) for what, registry in registries().items()}


def _restore(before: dict[str, dict[str, Any]]) -> None:
    for what, registry in registries().items():
        registry.clear()
        registry.update(before[what])


def _changes(before: dict[str, dict[str, Any]]) -> dict[tuple[str, str], Any]:
    """What was added to the registries or changed in them.

    Raises:
        ExperimentError: If something was taken away.
    """
    found = {}
    for what, registry in registries().items():
        if gone := before[what].keys() - registry.keys():
            raise ExperimentError(f"takes {what} {sorted(gone)[0]!r} away; leave it there")
        for key, entry in registry.items():
            if before[what].get(key) is not entry:
                found[what, key] = entry
    return found
