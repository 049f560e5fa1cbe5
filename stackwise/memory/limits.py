"""What the host lets this process have: memory, processors and disk, by its container, too.

Where the system does not say, it is None.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
OWN_GROUP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Bytes that a program could have now: what the machine has free, and its container."""
    found = [free for free in (_free_of_machine(), *_free_of_groups()) if free is not None]
    return min(found, default=None)


def memory_limit() -> int | None:
    """The lowest limit that a container or a group above this process sets; None for none."""
    limits = [_number(group / name) for group in _groups() for name in LIMITS]
    return min((limit for limit in limits if limit is not None and limit < NO_LIMIT), default=None)


def cpu_limit() -> float | None:
    """Processors' worth of time that a container may have; None where it is not limited."""
    found = []
    for group in _groups():
        quota, period = [*_words(group / "cpu.max"), "", ""][:2]
        if quota.isdecimal() and period.isdecimal() and int(period):
            found.append(int(quota) / int(period))
    return min(found, default=None)


def processors() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_disk(folder: Path) -> int:
    """Bytes free where a folder lies, or will."""
    from stackwise.training.placing import there

    return shutil.disk_usage(there(folder)).free


LIMITS = ("memory.max", "memory.limit_in_bytes")
USES = ("memory.current", "memory.usage_in_bytes")
NO_LIMIT = 1 << 60  # what the first version of control groups writes for none is beyond it


def _groups() -> Iterator[Path]:
    """The folders of the control groups that this process is in, up to the top."""
    for line in _lines(OWN_GROUP):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers in ("", "memory"):
            top = GROUPS / controllers
            own = top / path.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))


def _free_of_groups() -> Iterator[int | None]:
    for group in _groups():
        limit = next((n for name in LIMITS if (n := _number(group / name)) is not None), None)
        used = next((n for name in USES if (n := _number(group / name)) is not None), None)
        if limit is not None and limit < NO_LIMIT and used is not None:
            yield max(0, limit - used + _file_pages(group))


def _file_pages(group: Path) -> int:
    """Of what a group uses, pages of files that would give way."""
    for line in _lines(group / "memory.stat"):
        if line.startswith(("inactive_file ", "total_inactive_file ")):
            return int(line.split()[1])
    return 0


def _free_of_machine() -> int | None:
    for line in _lines(MEMINFO):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _number(path: Path) -> int | None:
    words = _words(path)
    return int(words[0]) if words and words[0].isdecimal() else None


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", errors="replace").splitlines()
    except OSError:  # not this system, or a container that hides it
        return []
