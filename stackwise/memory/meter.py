"""What memory is really used, of the card or of this process, above what was before the rack.

The peak is what the allocator had handed out: torch's on a card; on a CPU malloc's, in the few
steps that may be the highest (`heap.py`). Where that cannot be known (not glibc) it is None and
`Meter.blind` says why.

`resident` is what the allocator held for that: torch's reserved bytes on a card; on a CPU the
kernel's high-water mark, set back through `/proc/self/clear_refs`, less what is mapped from files.
It is None where the system keeps no such mark, or does not let it be read or set back (not Linux,
some containers).
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from stackwise.memory.heap import in_use, settle, taken, why_unknown
from stackwise.model.attention.mha import Mha
from stackwise.model.attention.rope import Rotary
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
NEEDED = ("VmHWM", "RssAnon", "RssFile", "RssShmem")
NAMES = 1 << 17  # more than fill a table of interned strings that is half full
NAMES_AT_ONCE, GROWTH_BYTES = 64, 1 << 19


def status_bytes() -> dict[str, int]:
    """Those of NEEDED that /proc/self/status has, in bytes; none where it cannot be read."""
    try:
        lines = STATUS.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        key, _, rest = line.partition(":")
        number = rest.split()[0] if rest.strip() else ""
        if key in NEEDED and number.isdecimal():
            found[key] = int(number) * 1024
    return found


class Meter:
    """Peak bytes above a baseline, on the CPU or a CUDA card.

    Attributes:
        blind: Why the peak cannot be known; None where it can.
        peak: The most that was handed out since `begin`, on a CPU in the steps that were measured;
            None if not known.
        resident: The most that the allocator held for that, at any time; None if not known.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.marked = True  # whether the kernel's mark is of the time since `restart`
        self.used = self.held = 0
        warm_up(device)
        gc.collect()  # what an earlier rack left must not count as there before
        self.blind = None if self.cuda else why_unknown()
        self.begin()
        if self.cuda:
            self.used, self.held = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        else:
            self.used = in_use() if self.blind is None else 0
            self.held = status_bytes().get("RssAnon", 0)

    def begin(self) -> None:
        """Begin a new account."""
        self.peak: int | None = None
        self.resident: int | None = None
        self.steps, self.largest = 0, -1
        self.restart()

    def restart(self) -> None:
        """Leave out what has been since the last `note`."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            return
        release_free_memory()
        try:
            CLEAR_REFS.write_text("5")
        except OSError:
            self.marked = False  # for good: a mark that was not set back once is of another stage

    def note(self) -> None:
        """Take what has been since the last `restart` into account."""
        if self.cuda:
            self.peak = max(torch.cuda.max_memory_allocated() - self.used, self.peak or 0)
            self.resident = max(torch.cuda.max_memory_reserved() - self.held, self.resident or 0)
            return
        now = status_bytes()
        if self.marked and all(name in now for name in NEEDED):
            most = now["VmHWM"] - now["RssFile"] - now["RssShmem"] - self.held
            self.resident = max(most, self.resident or 0)
        else:
            self.resident = None

    @contextmanager
    def step(self, counted: int, *, last: bool) -> Iterator[None]:
        """Around a training step; on a CPU measures it if it may be the highest of its stage.

        These are the first two, since state and buffers are made in the first, the last, and each
        with a larger head than those before it.

        Args:
            counted: The most counted positions of one of its micro-batches.
            last: Whether the stage ends with it.
        """
        measured = self.steps < 2 or last or counted > self.largest
        self.steps, self.largest = self.steps + 1, max(self.largest, counted)
        if self.cuda or self.blind is not None or not measured:
            yield
            return
        before = in_use() - self.used
        with taken() as found:
            yield
        if found.most is not None:
            self.peak = max(before + found.most, self.peak or 0)


def warm_up(device: torch.device) -> None:
    """Settle the heap, take a small step, write a row: what loads at first use is not the rack's.

    Arrow brings pandas with its first row: 27 MiB, which a run would meet in its second step. The
    step is taken by the function of torch's optimizer, since its class imports the compiler: a
    second, for what most runs never use. What has loaded stays: it is done once for a device and a
    number of threads.
    """
    settle()
    if device.type == "cpu":  # a card's allocator knows nothing of them
        room_for_names()
    _used_once(device, torch.get_num_threads())


@cache
def _used_once(device: torch.device, threads: int) -> None:
    import pyarrow

    pyarrow.RecordBatch.from_pylist([{"step": 0}])
    rack = Rack(RackShape(stacks=1, blocks_per_stack=1, d_model=64, heads=2), Mha(), 64).to(device)
    weights = [weight.detach() for weight in rack.parameters()]
    first, second = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    steps = [torch.zeros((), device=device) for _ in weights]
    for _ in range(2):
        ids_BT = torch.zeros(8, 128, dtype=torch.int64, device=device)
        counted_BT = ids_BT == 0
        logits_NV = rack.logits(rack.hidden(ids_BT)[counted_BT])
        torch.nn.functional.cross_entropy(logits_NV, ids_BT[counted_BT]).backward()
        grads = [weight.grad for weight in rack.parameters() if weight.grad is not None]
        adamw(weights, grads, first, second, [], steps, fused=True, amsgrad=False, beta1=0.9,
              beta2=0.999, lr=1e-3, weight_decay=0.01, eps=1e-8, maximize=False)  # fmt: skip


@cache
def room_for_names() -> None:
    """Have Python's table of interned strings grow now, and not at some step of a run.

    It holds some hundred thousand names and doubles when it is full, which after these imports is
    near: 1.9 MB at once in CPython 3.11, found as two processes disagreed on the peak of one run.
    """
    if why_unknown() is not None:
        return
    names = [""] * NAMES  # dropped again below; the table does not shrink
    before = in_use()
    for number in range(NAMES):
        names[number] = sys.intern(f"stackwise.{number}")
        if not number % NAMES_AT_ONCE and in_use() - before > GROWTH_BYTES:
            return


def release_free_memory() -> None:
    """Hand freed heap back to the system, so that an earlier peak does not hide a later one."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


class Kept:
    """Counts the bytes that autograd keeps between forward and backward, while it is entered.

    Each storage counts once, parameters and tables not at all. Blind to what gradient
    checkpointing keeps, which never passes through autograd's own hooks.

    Args:
        rack: Its parameters and attention's tables are left out.
        given: What it is handed, left out too: it may be a whole file, mapped.
        noted: Is called with each tensor whose storage is kept from then on.
    """

    def __init__(
        self,
        rack: Rack,
        given: Tensor | None = None,
        noted: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.noted = noted
        self.skipped = {p.untyped_storage().data_ptr() for p in rack.parameters()}
        for module in rack.modules():
            if isinstance(module, Rotary):
                self.skipped.add(module.table_TF2.untyped_storage().data_ptr())
        if given is not None:
            self.skipped.add(given.untyped_storage().data_ptr())
        self.users: dict[int, int] = {}
        self.bytes = self.peak_bytes = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def __enter__(self) -> Self:
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key not in self.skipped:
            self.users[key] = self.users.get(key, 0) + 1
            if self.users[key] == 1:
                self.bytes += storage.nbytes()
                self.peak_bytes = max(self.peak_bytes, self.bytes)
                if self.noted is not None:
                    self.noted(tensor)
        return tensor

    def _unpack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if self.users.get(key):
            self.users[key] -= 1
            if not self.users[key]:
                self.bytes -= storage.nbytes()
        return tensor
