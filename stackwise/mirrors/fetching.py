"""A run's folder from its mirror: every byte is compared with its hash before the run is there.

The mirror may be a stranger's. Nothing of it is written but under names that this version knows
(`index.py`), nothing longer than its index says, and what it says to train is only trained when
that is asked for.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackwise.atomic import flush, sha256_of, write_text
from stackwise.drafts import FETCH, drafted, sweep
from stackwise.jsontext import dumps
from stackwise.mirrors import index
from stackwise.mirrors.errors import MirrorError, of_address, redacted
from stackwise.mirrors.store import Store
from stackwise.report import bytes_text
from stackwise.runs import Run, RunError
from stackwise.runs.records import MANIFEST
from stackwise.training.kept_stages import same_file
from stackwise.training.manifest import CheckpointError, read_manifest
from stackwise.training.part_names import home_of


def fetch(url: str, runs_dir: str | Path = "runs") -> Run:
    """Make a run's folder from its mirror; `resume` goes on with it to the same bits.

    Args:
        url: The address that the run was mirrored to, or the folder of the run there.
        runs_dir: Folder of the runs; made if it is not there.

    Raises:
        RunError: If there is no mirror, or several, or the run is there already.
        MirrorError: If the mirror is damaged.
        OSError: If it cannot be written, or the disk has too little room.
    """
    with of_address(redacted(url)):
        return fetched(store_of(Store(url)), runs_dir)


def fetched(store: Store, runs_dir: str | Path) -> Run:
    """The same from the folder of one run.

    Raises:
        As `fetch`.
    """
    found = index.newest_index(store)
    assert found is not None
    said = found[1]
    target = Path(runs_dir, said["run"])
    sweep(Path(runs_dir), FETCH)
    if target.exists() or target.is_symlink():
        raise RunError(f"{target}: is there already; move it away, or name another --runs-dir")
    Path(runs_dir).mkdir(parents=True, exist_ok=True)
    with drafted(Path(runs_dir), FETCH) as drafts:
        run = drafts / said["run"]
        run.mkdir()
        write_manifests(run, said["checkpoints"], store.shown)
        check_room(run, index.bytes_of(said))
        fetch_parts(store, run, drafts / "files", said["checkpoints"])
        for name, pieces in said["records"].items():
            fetch_record(store, run / name, pieces)
        for folder in {file.parent for file in run.rglob("*")}:
            flush(folder)
        run.rename(target)
        flush(target.parent)
    return Run(target)


def store_of(store: Store) -> Store:
    """The folder of the one run at an address.

    Raises:
        RunError: If there is none, or several.
    """
    if index.numbers_in(store):
        return store
    folders = sorted(name for name, size in store.names().items() if size is None)
    found = [name for name in folders if index.numbers_in(store.under(name))]
    if len(found) == 1:
        return store.under(found[0])
    if found:
        raise RunError(
            f"{store.shown}: mirrors {len(found)} runs; name one: "
            f"{', '.join(f'{store.shown}/{name}' for name in found)}"
        )
    raise RunError(f"{store.shown}: is no mirror of a run; it has no index")


def write_manifests(run: Path, checkpoints: Mapping[str, Any], where: str) -> None:
    """Write the manifests of a run's checkpoints, and refuse those that cannot be ours."""
    for name, manifest in checkpoints.items():
        (run / name).mkdir(parents=True)
        write_text(run / name / MANIFEST, dumps(manifest, indent=1))
        try:
            read_manifest(run / name)
        except CheckpointError as error:
            raise MirrorError(f"{where}: {error}") from None


def check_room(folder: Path, need: int) -> None:
    """Raise if a disk has too little room for so many bytes.

    Raises:
        OSError: If so.
    """
    free = shutil.disk_usage(folder).free
    if need > free:
        raise OSError(
            f"the run takes {bytes_text(need)}, and {bytes_text(free)} are free; make room, or "
            "name another --runs-dir"
        )


def fetch_parts(store: Store, run: Path, spare: Path, checkpoints: Mapping[str, Any]) -> None:
    """Fetch each file once, compare it with its hash, and give it its names."""
    spare.mkdir()
    for checkpoint, manifest in checkpoints.items():
        for name, entry in manifest["parts"].items():
            source, rack = spare / entry["file"], run / checkpoint
            if not source.exists():
                store.copy_out(f"{index.FILES}/{entry['file']}", source, entry["bytes"])
                if sha256_of(source) != entry["sha256"]:
                    raise damaged(store, entry["file"])
                flush(source)
            home = home_of(rack, name)
            home.mkdir(exist_ok=True)
            same_file(source, home / entry["file"])


def fetch_record(store: Store, target: Path, pieces: list[dict[str, Any]]) -> None:
    """Fetch a record piece by piece."""
    target.parent.mkdir(exist_ok=True)
    with target.open("xb") as out:
        for piece in pieces:
            name = f"piece-{piece['sha256']}"
            data = store.read(f"{index.FILES}/{name}", piece["bytes"])
            if hashlib.sha256(data).hexdigest() != piece["sha256"]:
                raise damaged(store, name)
            out.write(data)
    flush(target)


def damaged(store: Store, name: str) -> MirrorError:
    """A file whose hash is another one."""
    return MirrorError(f"{store.shown}: {name} is not what was written; nothing was taken")
