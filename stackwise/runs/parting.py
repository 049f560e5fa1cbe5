"""A run leaves its place: it is deleted, or packed to be shown elsewhere."""

from __future__ import annotations

import errno
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stackwise.atomic import PART, flush
from stackwise.bounded import OddFile, check_depth, check_no_links
from stackwise.drafts import DELETED, claimed, drafted, sweep
from stackwise.printing import printable
from stackwise.runs.disk_use import BLOCK_BYTES
from stackwise.runs.lock import LOCK, NEXT, SUPERVISOR, RunBusy, take

if TYPE_CHECKING:
    from stackwise.runs.folder import Run

CHECKPOINTS = ("rack", "state", "best")
ENDS = ("status.json", "exit.json")
ROTATED = ("earlier", "bests")  # while a run trains, some of it goes with each checkpoint
WEIGHTS = (*CHECKPOINTS, "stages", *ROTATED, "start")
LEFT_OUT = ("cache", "control", LOCK, SUPERVISOR, NEXT)  # of this machine, or made again
TRIES, SHARE = 20, ".share-"
LONG_BYTES, MOST_HOLES = 1 << 28, 100  # a file so long, and so many times what it takes on disk


def delete_run(run: Run) -> list[Path]:
    """Remove a run's folder; of a link to one, the link alone.

    What lies elsewhere is left, whatever the folder says of it: placement.yaml may come from a
    stranger, and a copy of a run names the same caches as the run that it was copied from.

    Returns:
        What is left elsewhere: the folder of its caches, what a link led to.

    Raises:
        RunBusy: If it is live, or another process takes it up at this moment.
        OSError: If it cannot be removed, or is nested too deep for that.
    """
    if run.path.is_symlink():
        target = run.path.resolve()
        run.path.unlink()
        return [target]
    if run.is_live:
        raise RunBusy(f"run {run.id}: is {run.state}; stop it first, then delete it")
    path = run.path.resolve()  # `.` has no name to give another one
    check_depth(path)
    left = caches_elsewhere(run)
    gone = path.with_name(f"{DELETED}{os.getpid()}-{time.monotonic_ns()}")
    sweep(path.parent, DELETED)
    with held(path), claimed(path):
        os.rename(path, gone)  # from here on it is no run, whatever happens
        shutil.rmtree(gone)
    return left


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Inside, nobody else begins to train a run.

    Raises:
        RunBusy: If another process does.
    """
    try:
        lock = take(path)
    except OSError:  # a folder that may not be written to: what is inside says so
        yield
        return
    with lock:
        yield


def caches_elsewhere(run: Run) -> list[Path]:
    """The folder that a run says its caches lie in, if that is there and not its own."""
    from stackwise.placement import Placement

    try:
        base = Placement.load(run.path / "placement.yaml").cache_dir
        found = None if base is None else (run.path / base / run.id).resolve()
        if found is None or found.is_relative_to(run.path.resolve()) or not found.is_dir():
            return []
    except (OSError, ValueError, RuntimeError):  # damaged, or a circle of links
        return []
    return [found]


def zip_run(run: Run, path: Path, *, weights: bool = True) -> None:
    """Pack a run into a zip file, under its id; unpacked it is a run again.

    Args:
        run: The run. One that trains is packed as it stands: its last checkpoint, whole, with the
            numbers and events at least up to there, and none of those before.
        path: The file; an older one is replaced.
        weights: Whether its weights go along; without them its numbers can be looked at.

    Raises:
        CheckpointReplaced: If each time a newer checkpoint was written while it was copied.
        OSError: If it cannot be written, or a link in its folder leads out of it.
    """
    check_no_links(run.path)
    with drafted(path.parent, f".{path.name}{SHARE}") as drafts:
        with zipfile.ZipFile(
            drafts / path.name, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False
        ) as packed:
            pack_all(packed, run, drafts, weights)
        flush(drafts / path.name)
        os.replace(drafts / path.name, path)
        flush(path.parent)


def pack_all(packed: zipfile.ZipFile, run: Run, spare: Path, weights: bool) -> None:
    """Add what of a run is shared."""
    if not weights:
        pack(packed, run.path, run.id, {*LEFT_OUT, *WEIGHTS})
        return
    out = {*LEFT_OUT, *(ROTATED if run.is_live else ())}
    with checkpoint_held(run, spare) as held:  # first, so that no number is older
        if held is None:
            pack(packed, run.path, run.id, out)
        else:
            pack(packed, held, run.id, set())
            pack(packed, run.path, run.id, {*out, *CHECKPOINTS, *ENDS})


def pack(packed: zipfile.ZipFile, folder: Path, run_id: str, out: set[str]) -> None:
    """Add the files of a folder but for those in `out`, and those that are being written."""
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        draft = any(name.startswith(".") or name.endswith(PART) for name in inside.parts)
        if inside.parts[0] in out or draft or not file.is_file():
            continue
        with suppress(FileNotFoundError):  # as exit.json, when another attempt begins
            check_packable(folder, inside, run_id)
            packed.write(file, Path(run_id, *inside.parts))


def check_packable(folder: Path, inside: Path, run_id: str) -> None:
    """Refuse a name that no zip holds, and a long file that is but a hole: hours of packing.

    Raises:
        OddFile: If it is one.
    """
    told = (folder / inside).stat()
    if told.st_size > max(LONG_BYTES, MOST_HOLES * BLOCK_BYTES * told.st_blocks):
        why = f"{inside}: is {told.st_size} bytes long, nearly all of them holes; remove it"
        raise OddFile(errno.EFBIG, why, folder.name)
    if (name := f"{run_id}/{inside}").encode(errors="replace") != name.encode(
        errors="surrogatepass"
    ):
        why = f"{printable(name)}: is a name that is no UTF-8, which no zip holds; rename it"
        raise OddFile(errno.EILSEQ, why, printable(folder.name))


@contextmanager
def checkpoint_held(run: Run, spare: Path) -> Iterator[Path | None]:
    """A folder in which a run's checkpoint stays while the run goes on, under second names.

    Args:
        run: The run.
        spare: Where the folder is made if the run's own may not be written to.

    Yields:
        The folder, with `rack`, `state` and `best`, and how the run stood before; None for a
        damaged checkpoint, which can only be taken as it is.

    Raises:
        CheckpointReplaced: If each time a newer one was written meanwhile.
        OSError: If the folder cannot be written.
    """
    from stackwise.training.manifest import CheckpointError, CheckpointReplaced

    home = run.path if os.access(run.path, os.W_OK) else spare
    with drafted(home, SHARE) as draft:
        for attempt in range(TRIES):
            try:
                hold(run, draft / str(attempt))
                found: Path | None = draft / str(attempt)
                break
            except CheckpointReplaced:
                if attempt == TRIES - 1:
                    raise
            except CheckpointError:
                found = None
                break
        yield found


def hold(run: Run, target: Path) -> None:
    """Give the files of a run's checkpoint second names; nothing of a run that has none.

    How it stands is copied first: a run that says it is finished has its last checkpoint.
    """
    from stackwise.runs.records import MANIFEST
    from stackwise.training.kept_stages import copy_checkpoint

    target.mkdir()
    for name in ENDS:
        with suppress(FileNotFoundError):
            shutil.copyfile(run.path / name, target / name)
    for name in ("rack", "best"):
        if (run.path / name / MANIFEST).exists():
            copy_checkpoint(run.path / name, target)
