"""Adapters of a run's stacks between and in its stages: off while stacks move, on while they run.

Stacks are packed, lent, loaded and written as if there were no adapters; so `arrange` takes them
off first and puts them on last. A stack that is about to train takes its adapter in. The layers
themselves are in `model/adapters.py`, which stage asks for what in `stackwise/adapters.py`.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from stackwise.adapters import SUFFIX, carried_after
from stackwise.model.adapters import adapter_state, deltas_of, put_on, take_off
from stackwise.model.init import generator_for
from stackwise.training.work import Work


def lay_off(work: Work) -> None:
    """Take all adapters off, and keep their A and B."""
    for stack in work.rack.held():
        found = take_off(work.rack.stacks[stack])
        if found:
            work.adapters[stack] = found


def lay_on(work: Work, number: int) -> None:
    """Put the adapters on that stacks carry in a stage; one that is new starts at its seed."""
    for stack, adapter in carried_after(work.stages[: number + 1]).items():
        module = work.rack.stacks[stack]
        if adapter_state(module):
            continue
        generator = generator_for(work.exp.seed, f"{adapter.part}/{number}")
        kept = work.adapters.pop(stack, None)
        if kept is None:
            work.on_disk.discard(adapter.part)
        put_on(module, adapter, tensors=kept, generator=generator)


@torch.no_grad()
def merge_into(work: Work, number: int, stacks: Collection[str]) -> None:
    """Add the adapters of stacks that are about to train to their weights, in float32, for good.

    A stack that was packed is there from its master by now, so that the sum is of what trains.
    """
    before = carried_after(work.stages[:number])
    work.merged = {}
    for stack in sorted(set(stacks) & work.adapters.keys()):
        adapter, tensors = before[stack], work.adapters.pop(stack)
        weights = dict(work.rack.stacks[stack].named_parameters())
        for name, delta in deltas_of(tensors, adapter):
            weight, delta = weights[name], delta.to(weights[name].device)
            weight.copy_((weight.float() + delta).to(weight.dtype))
            work.merged.setdefault(stack, {})[name] = delta
        work.on_disk -= {stack, stack + SUFFIX}
        work.writer.event("merged", stage=number, stack=stack, rank=adapter.rank)
