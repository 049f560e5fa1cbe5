"""Python's table of interned strings grows before a run's peak is measured, and not in a step."""

import sys

import pytest

from stackwise.memory.heap import in_use, why_unknown
from stackwise.memory.meter import room_for_names

NEW, MOST_BYTES = 20_000, 1 << 19


@pytest.mark.skipif(why_unknown() is not None, reason=f"{why_unknown()}")
def test_after_it_thousands_of_names_take_no_large_piece() -> None:
    room_for_names.cache_clear()  # a process that runs tests may have filled it again
    room_for_names()
    names, before, jump = [""] * NEW, in_use(), 0
    for number in range(NEW):
        names[number] = sys.intern(f"a name of a test {number}")
        before, jump = in_use(), max(jump, in_use() - before)
    assert jump < MOST_BYTES
