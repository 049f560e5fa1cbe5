"""The disk of the runs: how fast it writes until it is safe, and reads what no memory holds.

Frozen stacks are read from there block by block, so its rate bounds a step with a streamed trunk.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xxhash import xxh3_64

from stackwise.atomic import append
from stackwise.memory.limits import free_disk
from stackwise.planner.doctor.checks import Finding, Visit
from stackwise.report import program

PIECE = 8 << 20  # of a write or read
MOST, LEAST = 1 << 30, 64 << 20  # bytes of the file
SECONDS = 8.0  # for writing it, after which no more is written
PRESET, FORMAT = "llama-2-70b", "nf4"
SLOW_SECONDS = 60.0


def disk(visit: Visit) -> Finding:
    """What the disk of the runs does, and what that means for a trunk that is streamed from it."""
    most = max(LEAST, min(MOST, free_disk(visit.folder) // 4))
    return judged(visit.call(rates, folder=str(visit.folder), most=most), trunk_bytes())


def judged(found: Mapping[str, Any], trunk: int) -> Finding:
    """What `rates` found, judged."""
    other = f"use another disk for runs: {program()} run ... placement.runs_dir=DIR"
    if "problem" in found:
        text = f"{found['problem']} after {found['bytes'] >> 20} MiB"
        return Finding("failed", text, "runs cannot be written there", other, found)
    if not found["intact"]:
        text = f"{found['bytes'] >> 20} MiB came back with other bytes than were written"
        return Finding(
            "failed", text, "this disk, its driver or the memory is defective", other, found
        )
    seconds = trunk / found["read_bytes_per_second"]
    measured = (
        f"writes {_rate(found['write_bytes_per_second'])} with fsync, reads "
        f"{_rate(found['read_bytes_per_second'])}, of {found['bytes'] >> 20} MiB"
    )
    if not found["past_the_cache"]:
        measured += "; this system does not let it be read past its cache, so reading may be slower"
    means = (
        f"a 70B trunk in {FORMAT}, {trunk / 1e9:.1f} GB, streamed from it takes {seconds:.0f} s "
        "for each forward pass"
    )
    if seconds > SLOW_SECONDS:
        means += "; for that use stream_from=host, trunk=cached or a faster disk"
    return Finding("ok", measured, means, figures={**found, "pass_seconds": seconds})


def _rate(bytes_per_second: float) -> str:
    return f"{bytes_per_second / 1e9:.2f} GB/s"


def trunk_bytes() -> int:
    """Of a 70B rack's blocks in 4 bit, all of which a forward pass reads: 38.5 GB."""
    from stackwise.config import Experiment
    from stackwise.memory.stored import lent_bytes

    exp = Experiment.preset(PRESET)
    return exp.rack.stacks * exp.rack.blocks_per_stack * lent_bytes(exp, FORMAT)


def rates(folder: str, most: int) -> dict[str, Any]:
    """Write a file and read it; in a process of its own. The file is gone afterwards.

    Returns:
        `bytes`; `write_bytes_per_second`, fsync included; `read_bytes_per_second`;
        `past_the_cache`, whether reading asked the disk; `intact`, whether it gave what was
        written. Or `problem`: why it cannot be written or read.
    """
    path, done, wrote, took = Path(folder, "rates"), 0, 0.0, 0.0
    written, read = xxh3_64(), xxh3_64()
    try:
        with path.open("wb", buffering=0) as file:
            for piece in pieces():
                began = time.perf_counter()
                append(file, piece)
                wrote, done = wrote + time.perf_counter() - began, done + PIECE
                written.update(piece)
                if done >= most or (done >= LEAST and wrote > SECONDS):
                    break
            began = time.perf_counter()
            os.fsync(file.fileno())
            wrote += time.perf_counter() - began
        with past_the_cache(path) as (handle, direct):
            buffer, got = mmap.mmap(-1, PIECE), PIECE
            while got == PIECE:
                began = time.perf_counter()
                got = os.readv(handle, [buffer])
                took += time.perf_counter() - began
                read.update(memoryview(buffer)[:got])
    except OSError as error:
        return {"problem": error.strerror or str(error), "bytes": done}
    finally:
        with suppress(OSError):  # what could not be made is not there, and scratch goes as a whole
            path.unlink(missing_ok=True)
    return {
        "bytes": done,
        "write_bytes_per_second": done / wrote,
        "read_bytes_per_second": done / took,
        "past_the_cache": direct,
        "intact": read.digest() == written.digest(),
    }


def pieces() -> Iterator[bytes]:
    """Pieces of a file, all different, which no disk can compress."""
    noise = os.urandom(PIECE)
    for number in range(1 << 30):
        yield number.to_bytes(8, "little") + noise[8:]


@contextmanager
def past_the_cache(path: Path) -> Iterator[tuple[int, bool]]:
    """A file opened for reading from the disk itself, and whether the system lets it be."""
    handle = _direct(path)
    direct = sys.platform == "linux"
    if handle is None:
        handle = os.open(path, os.O_RDONLY)
        if sys.platform == "linux":
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        yield handle, direct
    finally:
        os.close(handle)


def _direct(path: Path) -> int | None:
    """The file without the system's cache; None where its file system knows no such thing."""
    if sys.platform != "linux":
        return None
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return None
