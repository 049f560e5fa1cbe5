"""What finished runs do not need any more, and removing it.

A run is finished, whole and nobody's at the moment, or it is left alone, with the reason. Of one
that is pruned weights, best weights, numbers and records stay, with `weights` these numbers and
records alone. Files go that StackWise itself has written, by their names and places; a link is
neither followed nor removed. pruned.json is written first, then a manifest without what goes, then
files go; so a run that was pruned half opens, and is pruned on when that is asked again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackwise.atomic import PART, write_text
from stackwise.drafts import BESIDE_RUNS, left_in, remove_left
from stackwise.errors import ExperimentError
from stackwise.jsontext import dumps, read_mapping
from stackwise.mirrors.copying import DRAFT as MIRROR
from stackwise.runs import Run, RunBusy, lock, runs_in
from stackwise.runs.asked import asked_of
from stackwise.runs.disk_use import BLOCK_BYTES
from stackwise.runs.metrics import read_compacted, read_table
from stackwise.runs.parting import SHARE
from stackwise.runs.pruned import pruned_of, write_pruned
from stackwise.runs.records import MANIFEST
from stackwise.seals import sealed
from stackwise.training.manifest import read_manifest, verify_part
from stackwise.training.ownership import BEST, RACK, own_manifest
from stackwise.training.part_names import FILE

KEEP = "keep"
CHECKPOINT = re.compile(rf"{FILE.pattern}|{re.escape(MANIFEST)}|\..*{re.escape(PART)}")
CACHE = re.compile(r"cache\.json|rows-\d{6,}\.bin|\..*" + re.escape(PART))
DRAFTS = re.compile(rf"\..*{re.escape(PART)}|drift\.safetensors")
NUMBER = re.compile(r"[0-9]{1,16}|\.[0-9]{1,16}\S*" + re.escape(PART))
HELD = re.compile(r"\.(mirror|share)-\w+")
PARTS, CACHES = re.compile(r"\..*" + re.escape(PART)), re.compile(r"[A-Za-z0-9_-]+")
SEGMENT = re.compile(r"[0-9]{4,8}\.arrows")
BESIDE_WEIGHTS = re.compile(r".*\.(optimizer|average|before)")
# RuntimeError: a damaged checkpoint, a circle of links; ValueError: a damaged run or experiment
DAMAGE = (RuntimeError, OSError, ValueError, LookupError, TypeError, ArithmeticError)


@dataclass(frozen=True)
class Pruned:
    """What of a run goes, or has gone.

    Attributes:
        id: The run's.
        path: Its folder.
        what: The kinds of files, as `runs/pruned.py` lists them.
        files: Their names in the folder.
        bytes: That are free then; a file that has another name elsewhere frees none.
        left: Why the run is left alone; None if it is not.
    """

    id: str
    path: Path
    what: tuple[str, ...] = ()
    files: tuple[str, ...] = field(default=(), repr=False)
    bytes: int = 0
    left: str | None = None


def prune(
    runs_dir: str | Path = "runs",
    *,
    weights: bool = False,
    keep_last: int = 1,
    keep_best: int = 1,
    keep_stages: bool = False,
    yes: bool = False,
) -> list[Pruned]:
    """Remove what finished runs do not need, or say what that would be.

    Args:
        runs_dir: Folder of the runs, a study's too.
        weights: The weights of runs, too, but for the newest and the best.
        keep_last: How many of the newest keep theirs.
        keep_best: How many of the best by held-out bits per byte keep theirs.
        keep_stages: Keep the ends of stages, so that runs can be forked there.
        yes: Remove it; else nothing is changed.

    Returns:
        One for each run, the newest first, and for what killed processes left beside them.

    Raises:
        ExperimentError: If a number is negative.
    """
    for key, count in (("keep_last", keep_last), ("keep_best", keep_best)):
        if count < 0:
            raise ExperimentError(f"{key}: {count} < 0; give 0 or more")
    runs = runs_in(runs_dir)
    whole = kept_whole(runs, keep_last, keep_best) | started_from(runs)
    shared = in_open_studies(Path(runs_dir))
    found = []
    for run in runs:
        ends = keep_stages or run.path.resolve() in shared
        goes = weights and run.path.resolve() not in whole
        found.append(pruned(run, weights=goes, keep_stages=ends, yes=yes))
    return found + [left_over(path, yes) for path in left_in(Path(runs_dir), *BESIDE_RUNS)]


def left_over(path: Path, yes: bool) -> Pruned:
    """Remove what a killed process left beside runs, or say what that would be."""
    files = [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()]
    freed = freed_bytes(path, files)
    if yes:
        remove_left(path)
    return Pruned(path.name, path, ("left-overs",), tuple(files), freed)


def pruned(run: Run, *, weights: bool, keep_stages: bool, yes: bool) -> Pruned:
    """Prune one run, or say what that would be."""
    try:
        if (why := why_left(run)) is not None:
            return Pruned(run.id, run.path, left=why)
        with lock.take(run.path) if yes else nullcontext():  # nobody begins to train it meanwhile
            check_whole(run, weights)
            files = dict(found_in(run.path, weights=weights, keep_stages=keep_stages))
            what = tuple(dict.fromkeys(files.values()))
            freed = freed_bytes(run.path, files)
            if yes and files:
                remove(run.path, files)
    except RunBusy as error:
        return Pruned(run.id, run.path, left=str(error))
    except PermissionError as error:
        return Pruned(run.id, run.path, left=f"it may not be written: {error}")
    except DAMAGE as error:
        return Pruned(run.id, run.path, left=f"damaged: {error}")
    return Pruned(run.id, run.path, what, tuple(files), freed)


def why_left(run: Run) -> str | None:
    """Why a run is left alone, as far as its records say it; None if it is not."""
    if run.path.is_symlink():
        return "it is a link"
    names = (lock.LOCK, lock.SUPERVISOR, lock.NEXT)
    if run.is_live or any(lock.is_held(run.path, name) for name in names):
        return f"it is {run.state}, or a process of it is there"
    if run.state != "finished":
        return f"it is {run.state}"
    labels = run.labels
    if KEEP in {word.casefold() for word in (*labels.tags, labels.name)}:
        return f"it is labelled {KEEP!r}"
    said = run.error()
    return None if said is None else f"damaged: {said}"


def check_whole(run: Run, weights: bool) -> None:
    """Compare what stays of a run with its hashes, while there is something else to mend it from.

    Raises:
        CheckpointError, RunError, ValueError: If it is damaged.
    """
    if "weights" in pruned_of(run.path):
        return
    run.stages(), run.experiment, run.provenance(), run.plan(), run.tokenizer()
    for name in (RACK, BEST):
        if name == RACK or (run.path / name / MANIFEST).exists():
            manifest = own_manifest(run, name)
            for part in manifest["parts"]:
                if not weights and not BESIDE_WEIGHTS.fullmatch(part):
                    verify_part(run.path / name, manifest, part)


def kept_whole(runs: Sequence[Run], last: int, best: int) -> set[Path]:
    """The folders of the newest runs and of the best ones."""
    done = [run for run in runs if run.state == "finished"]
    scored = []
    for run in done:
        with suppress(*DAMAGE):
            bits = run.result().get("bits_per_byte")
            if isinstance(bits, float) and bits == bits:
                scored.append((bits, run))
    scored.sort(key=lambda pair: pair[0])
    return {run.path.resolve() for run in (*done[:last], *(run for _, run in scored[:best]))}


def started_from(runs: Sequence[Run]) -> set[Path]:
    """The folders of runs that others begin with, which are not finished."""
    found = set()
    for run in runs:
        if run.state == "finished":
            continue
        with suppress(*DAMAGE):
            start = asked_of(run).get("start")
            if isinstance(start, str):
                from stackwise.placement import Placement

                data_dir = Placement.load(run.path / "placement.yaml").data_dir
                found.add((run.path / data_dir / start).resolve())
    return found


def in_open_studies(runs_dir: Path) -> set[Path]:
    """The folders of runs that a study here may still branch from: it has no results yet."""
    found = set()
    for record in runs_dir.glob("*/runs.json"):
        listed = read_mapping(record).get("runs")
        if (record.parent / "results.csv").exists():
            continue
        for row in listed if isinstance(listed, list) else ():
            with suppress(*DAMAGE):
                found.add((record.parent / row["run"]).resolve())
    return found


def found_in(run: Path, *, weights: bool, keep_stages: bool) -> Iterator[tuple[str, str]]:
    """The files of a run that go, by their names in its folder, each with its kind.

    Manifests come first in their folders: what is listed by none is no checkpoint.
    """
    if not weights:
        masters = {f"{part}-" for part in masters_in(run)}
        for name in files_in(run, "state", FILE):
            if not any(name.startswith(f"state/{master}") for master in masters):
                yield name, "state"
    gone = {"earlier": "earlier"} | ({} if keep_stages else {"stages": "stages"})
    gone |= {"bests": "weights"} if weights else {}
    for folder, kind in gone.items():
        for number in folders_in(run, folder, NUMBER):
            for inner in (RACK, "state", BEST):
                yield from ((n, kind) for n in files_in(run, f"{number}/{inner}", CHECKPOINT))
    if weights:
        for folder in (RACK, BEST, "state"):
            yield from ((name, "weights") for name in files_in(run, folder, CHECKPOINT))
    for folder in folders_in(run, "cache", CACHES):
        yield from ((name, "caches") for name in files_in(run, folder, CACHE))
    if (segments := files_in(run, "metrics", SEGMENT)) and are_held(run):
        yield from ((name, "segments") for name in segments)
    yield from ((name, "left-overs") for name in files_in(run, "", DRAFTS))
    for folder in (RACK, "state", BEST, "control", "metrics"):
        yield from ((name, "left-overs") for name in files_in(run, folder, PARTS))
    left = {path.name for path in left_in(run, MIRROR, SHARE)}  # by killed processes
    for folder in left.intersection(folders_in(run, "", HELD)):
        yield from ((name, "left-overs") for name in files_in(run, folder, FILE))


def masters_in(run: Path) -> list[str]:
    """The masters that the last checkpoint lists, which a finished run is exported from."""
    parts = read_manifest(run / RACK)["parts"] if (run / RACK / MANIFEST).exists() else {}
    return [part for part in parts if part.endswith(".master")]


def are_held(run: Path) -> bool:
    """Whether metrics.parquet has all that the segments have, number by number."""
    held = read_compacted(run)
    if held is None:
        return False
    table = read_table(run)
    return set(table.column_names) == set(held.column_names) and all(
        same(table[name].combine_chunks(), held[name].combine_chunks())
        for name in table.column_names
    )


def same(one: Any, other: Any) -> bool:
    """Whether two columns hold the same numbers; NaN is one."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_list(one.type) and pa.types.is_list(other.type):
        lengths = [column.value_lengths().to_pylist() for column in (one, other)]
        return lengths[0] == lengths[1] and same(one.flatten(), other.flatten())
    left, right = (column.to_numpy(zero_copy_only=False) for column in (one, other))
    return bool(one.type == other.type and np.array_equal(left, right, equal_nan=True))


def files_in(run: Path, folder: str, pattern: re.Pattern[str]) -> list[str]:
    """Plain files in a folder of a run whose names are ours, manifests first; links are not."""
    with opened(run, folder) as handle:
        if handle is None:
            return []
        with os.scandir(handle) as entries:
            names = [
                entry.name
                for entry in entries
                if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            ]
    names.sort(key=lambda name: (name != MANIFEST, name))
    return [f"{folder}/{name}" if folder else name for name in names]


def folders_in(run: Path, folder: str, pattern: re.Pattern[str]) -> list[str]:
    """Folders in a folder of a run whose names are ours; links are not."""
    with opened(run, folder) as handle:
        if handle is None:
            return []
        with os.scandir(handle) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if pattern.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            )
    return [f"{folder}/{name}" if folder else name for name in names]


@contextmanager
def opened(run: Path, folder: str) -> Iterator[int | None]:
    """A handle of a folder of a run, reached through no link; None if there is no such folder."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    with ExitStack() as stack:
        try:
            handle = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, handle)
            for name in filter(None, folder.split("/")):
                handle = os.open(name, flags, dir_fd=handle)
                stack.callback(os.close, handle)
        except OSError:
            yield None
            return
        yield handle


def freed_bytes(run: Path, files: Collection[str]) -> int:
    """What the disk has more when files are gone: all names of each have to be among them."""
    names: dict[tuple[int, int], int] = {}
    whole: dict[tuple[int, int], Any] = {}
    for name in files:
        with suppress(FileNotFoundError):
            stat = (run / name).lstat()
            key = (stat.st_dev, stat.st_ino)
            names[key], whole[key] = names.get(key, 0) + 1, stat
    return sum(
        stat.st_blocks * BLOCK_BYTES for key, stat in whole.items() if names[key] == stat.st_nlink
    )


def remove(run: Path, files: dict[str, str]) -> None:
    """Remove files of a run, so that it opens at every moment.

    Raises:
        OSError: If one cannot be removed.
    """
    write_pruned(run, set(files.values()))
    if (run / RACK / MANIFEST).exists() and f"{RACK}/{MANIFEST}" not in files:
        manifest = read_manifest(run / RACK)
        kept = {k: v for k, v in manifest["parts"].items() if not BESIDE_WEIGHTS.fullmatch(k)}
        if kept != manifest["parts"]:
            write_text(run / RACK / MANIFEST, dumps(sealed({**manifest, "parts": kept}), indent=1))
    for name in sorted(files, key=lambda name: not name.endswith(MANIFEST)):
        folder, _, file = name.rpartition("/")
        with opened(run, folder) as handle:
            if handle is not None:
                with suppress(FileNotFoundError):
                    os.unlink(file, dir_fd=handle)
    for folder in sorted({name.rpartition("/")[0] for name in files}, key=len, reverse=True):
        parents = folder.split("/")
        for depth in range(len(parents), 0, -1):
            with suppress(OSError):  # something else lies in it
                os.rmdir(run / "/".join(parents[:depth]))
