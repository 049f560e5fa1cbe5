"""The peak of a whole process's memory, for the children that the tests of this folder start.

It is the kernel's high-water mark of resident memory, less what is mapped from files. A run sets
that mark back at borders and after looking at held-out text, so it is noted before each of these.
"""

from __future__ import annotations

import gc
import json
import mmap
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

import stackwise as sw
from stackwise.memory import meter
from stackwise.memory.heap import Taken
from stackwise.memory.meter import CLEAR_REFS, Meter, release_free_memory, status_bytes

STATM = Path("/proc/self/statm")


class Peak:
    """The most anonymous bytes since `begin`, above what there were then."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.most = self.base = 0
        restart = Meter.restart

        def noted(other: Meter) -> None:
            self.note()
            restart(other)

        Meter.restart = noted  # type: ignore[method-assign]
        self.begin()

    def begin(self) -> None:
        """Measure from here on."""
        gc.collect()  # what an earlier run left must not be freed while this is measured
        release_free_memory()
        CLEAR_REFS.write_text("5")
        self.most, self.base = 0, status_bytes()["RssAnon"]

    def note(self) -> None:
        """Look at the mark."""
        now = status_bytes()
        self.most = max(self.most, now["VmHWM"] - now["RssFile"] - now["RssShmem"])

    def bytes(self) -> int:
        """The peak."""
        self.note()
        return self.most - self.base

    def of(self, action: Callable[[], Any]) -> int:
        """The peak while something is done; what it gives is kept until it has been measured."""
        self.begin()
        kept = action()
        found = self.bytes()
        del kept
        return found

    def sampled(self, action: Callable[[], Any]) -> int:
        """The same, looked at every half a millisecond, where files are mapped and let go again.

        Their pages are in the mark, and no account says how many there were then.
        """
        self.begin()
        over, most = threading.Event(), [0]

        def look() -> None:
            while not over.wait(5e-4):
                _, resident, shared = STATM.read_text().split()[:3]
                most[0] = max(most[0], int(resident) - int(shared))

        before = sys.getswitchinterval()
        sys.setswitchinterval(5e-4)
        looking = threading.Thread(target=look)
        looking.start()
        kept = action()
        over.set()
        looking.join()
        sys.setswitchinterval(before)
        del kept
        return most[0] * mmap.PAGESIZE - self.base


def unrecorded() -> None:
    """Let runs measure no step: the record takes some hundred bytes for each piece of memory."""
    meter.taken = lambda: nullcontext(Taken())  # type: ignore[assignment]


def experiment(stacks: int, **changes: Any) -> sw.Experiment:
    """Stacks of four blocks, more than slots, and far larger than ends and activations.

    Every position counts, so that all batches have one shape: for bfloat16 products oneDNN keeps
    code and buffers of each shape that it has met.
    """
    keys = changes.pop("optim", {})
    plain = {
        "rack": {"stacks": stacks, "blocks_per_stack": 4, "d_model": 320, "heads": 5},
        "curriculum": {"name": "left_to_right", "split": "tokens"},
        "objective": "clm",
        "data": {"corpus": {"kind": "markov", "size_bytes": 10_000}, "seq_len": 16},
        "optim": {"batch": 1, **keys},
        "eval": {"points": 1, "windows": 1, "draws": 1, "final": 1},
    }
    exp = sw.Experiment(**{**plain, **changes, "budget": {"tokens": 10**6}})
    return exp.replace(budget={"tokens": 16 * exp.optim.batch * len(sw.stages(exp))})


def warm(exp: sw.Experiment, place: sw.Placement) -> None:
    """Do all of it once with a block at a time, so that what is kept from first use is there.

    oneDNN keeps code and buffers of each width: 9 MB here, whatever the number of stacks.
    """
    small = exp.replace(rack={"stacks": 2, "blocks_per_stack": 1}, title="small")
    sw.train(small.replace(budget={"tokens": 16 * exp.optim.batch * len(sw.stages(small))}), place)


def told() -> tuple[dict[str, Any], Path]:
    """What the test asks of this process: facts, and a folder of its own."""
    facts = json.loads(sys.argv[1])
    return facts, Path(facts["folder"])
