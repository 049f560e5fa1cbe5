"""Units in which plans are printed: memory in 2^30 bytes, disks and hosts in 10^9, time in days."""

from __future__ import annotations

from stackwise.report import bytes_text

DAY = 86_400.0  # seconds


def gib(count: float) -> str:
    """Bytes of memory."""
    return bytes_text(count)


def gb(count: float) -> str:
    """Bytes of a disk or a host."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB" if count else "0"


def days_text(days: float) -> str:
    """Days, or hours and minutes where they are few, or years where they are many."""
    if days < 1 / 24:
        return f"{days * 1440:.1f} min"
    if days < 2:
        return f"{days * 24:.1f} h"
    return f"{days:.1f} days" if days < 730 else f"{days / 365.25:,.0f} years"


def percent(part: float) -> str:
    """A part of one."""
    return f"{100 * part:.1f} %"
