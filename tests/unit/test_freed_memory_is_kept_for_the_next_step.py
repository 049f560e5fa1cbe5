"""glibc's thresholds, as a run sets them: what is freed is not cleared by the system again."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

CODE = """
import ctypes, json, resource, sys
from stackwise.memory.heap import settle
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
if sys.argv[1] == "settled":
    settle()
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
found = []
for mib in (1, 40, 80):
    for _ in range(3):
        before = pages()
        piece = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(mib << 20)))
        ctypes.memset(piece, 1, mib << 20)
        libc.free(piece)
    found.append((pages() - before) / (mib * 256))
print(json.dumps(found))
"""


def cleared(how: str) -> list[float]:
    """Of pieces of 1, 40 and 80 MiB that are taken for the third time: the share of new pages."""
    done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library is not glibc")
def test_pieces_are_kept_up_to_72_mib() -> None:
    small, large, larger = cleared("settled")
    assert small < 0.1 and large < 0.1, "taken from what was freed"
    assert larger > 0.9, "given back to the system"
    assert cleared("not")[1] > 0.9, "what glibc does by itself"


def test_what_is_asked_of_malloc(monkeypatch) -> None:
    """Of an older glibc the most that it takes, of another C library nothing."""
    from stackwise.memory import heap

    for name in heap.OWN:
        monkeypatch.delenv(name, raising=False)
    asked = []

    class Older:
        def mallopt(self, what: int, size: int) -> int:
            asked.append((what, size))
            return int(what == heap.M_TRIM_THRESHOLD or size <= heap.GIVEN_BACK)

    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: Older())
    heap.settle()
    assert asked == [(-3, 72 << 20), (-3, 32 << 20), (-1, 1 << 29)]
    asked.clear()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    heap.settle()
    assert not asked, "a user's own choice"
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    heap.settle()
