"""Where a number that is none began: found after the fact, in one more pass over the same batch.

Nothing here runs while all is well. A loss that is none is looked for from the front: walk the
batch through embedding, trunk, blocks and head without a gradient until an output is not finite. A
gradient is looked for from the back, in the order in which backward works: the first part whose
gradient is not finite, which is the last one of the path. What then happens is in `refusing.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from stackwise.adapters import SUFFIX
from stackwise.objective import Corrupted
from stackwise.training.borders import setting_for
from stackwise.training.in_backward import PartlyTaken
from stackwise.training.norms import all_finite, block_of
from stackwise.training.picking import path_at
from stackwise.training.step import Setting, Trainee, micro_loss
from stackwise.training.work import Work

Facts = dict[str, Any]


def found_in(work: Work, trainee: Trainee, noisy: Corrupted, error: FloatingPointError) -> Facts:
    """Where what ended a step began.

    Args:
        work: The run, with the weights that the step began with.
        trainee: What trains.
        noisy: The batch of the step.
        error: What ended it.

    Returns:
        `where` in words, and what it is made of: `part` (`s1`), `block` (0, in a stack), `tensor`
        (of a gradient); `direction` forward or backward; how many numbers are none. Of what could
        not be found, `unknown` says why.
    """
    try:
        if isinstance(error, PartlyTaken):
            return in_backward(error.part, error.tensor)
        return in_forward(work, trainee, noisy) or bad_gradients(trainee) or overflowed(trainee)
    except (RuntimeError, MemoryError) as failure:  # looking must not hide what was found
        return {"unknown": f"{type(failure).__name__}: {failure}"}


def bad_gradients(trainee: Trainee) -> Facts:
    """The first tensor in the order of backward whose gradient holds a number that is none."""
    bad = {
        key: not_finite(parameter.grad)
        for key, parameter in trainee.named.items()
        if parameter.grad is not None and not_finite(parameter.grad)
    }
    if not bad:
        return {}
    order = {part: place for place, part in enumerate(("embedding", *trainee.stage.path, "head"))}

    def place(key: tuple[str, str]) -> tuple[int, int]:
        part, name = key
        block = name.split(".")[1] if name.startswith("blocks.") else "-1"
        return order[part.removesuffix(SUFFIX)], int(block)

    part, tensor = max(reversed(bad), key=place)
    return in_backward(part, tensor) | {"numbers": bad[part, tensor], "tensors": len(bad)}


def in_backward(part: str, tensor: str) -> Facts:
    """Where a gradient began to be none."""
    block = block_of(part, tensor)
    where = f"the gradient of {named(block)} ({part}.{tensor})"
    return {"where": where, "direction": "backward", **parts_of(block), "tensor": tensor}


def overflowed(trainee: Trainee) -> Facts:
    """Of gradients that are finite, and whose squares add up to more than float32 holds."""
    grads = {key: p.grad for key, p in trainee.named.items() if p.grad is not None}
    if not grads:
        return {}
    (part, tensor), largest = max(
        ((key, float(grad.abs().max())) for key, grad in grads.items()), key=lambda pair: pair[1]
    )
    found = in_backward(part, tensor) | {"largest": largest}
    return found | {"where": f"{found['where']}, whose largest number is {largest:.3g}"}


@torch.no_grad()
def in_forward(work: Work, trainee: Trainee, noisy: Corrupted) -> Facts:
    """The first output of a batch's way through the rack that holds a number that is none."""
    setting = eager(work, trainee)
    bad: list[Facts] = []
    with ExitStack() as hooks:
        for block, module in modules(work, trainee):
            hooks.callback(module.register_forward_hook(watching(block, module, bad)).remove)
        for number, part in enumerate(noisy.split(setting.micro_batch or len(noisy.input_BT))):
            if part.trunk_BTD is not None and not_finite(part.trunk_BTD):
                return {"where": "the cached outputs of the trunk", "direction": "forward"}
            loss = micro_loss(work.rack, part, setting, noisy.positions)
            if not bad:
                bad += of_the_end(work, setting, loss)
            if bad:
                return {**bad[0], "direction": "forward", "micro_batch": number}
    return {}


def eager(work: Work, trainee: Trainee) -> Setting:
    """The setting of the step in hand, with blocks that are called one by one."""
    plain = work.placement.replace(compile=False, checkpointing=False)
    setting = setting_for(work, replace(trainee, in_backward=None), plain)
    return setting.on(path_at(trainee.stage, work.exp.seed, work.at.total_steps))


def modules(work: Work, trainee: Trainee) -> Iterator[tuple[str, nn.Module]]:
    """Embedding, blocks and head of a stage's path by name, in the order in which they run."""
    yield "embedding", work.rack.embedding
    for stack in trainee.stage.path:
        for number, block in enumerate(work.rack.blocks([stack])):
            yield f"{stack}.{number}", block
    yield "head", work.rack.head


def watching(block: str, module: nn.Module, bad: list[Facts]) -> Callable[..., None]:
    """A hook that notes the output of a module if it is the first with a number that is none."""

    def look(_: nn.Module, inputs: Any, out: Tensor) -> None:
        if not bad and (count := not_finite(out)):
            weights = {name: n for name, p in module.named_parameters() if (n := not_finite(p))}
            bad.append(forward_facts(block, count, out.numel(), weights))

    return look


def forward_facts(block: str, count: int, of: int, weights: Mapping[str, int]) -> Facts:
    """What is said of a part whose output holds numbers that are none."""
    why = f", whose weights hold such numbers themselves ({next(iter(weights))})" if weights else ""
    where = f"{named(block)}, of whose output {count} of {of} numbers are none{why}"
    return {"where": where, **parts_of(block), "numbers": count, "weights": list(weights)}


def of_the_end(work: Work, setting: Setting, loss: Tensor) -> list[Facts]:
    """What is said where all outputs are finite and the loss is not."""
    if bool(torch.isfinite(loss)):
        return []
    head = {name: bad for name, p in work.rack.head.named_parameters() if (bad := not_finite(p))}
    if head:
        return [
            {
                "where": f"the head, whose weights hold such numbers ({next(iter(head))})",
                "part": "head",
                "weights": list(head),
            }
        ]
    more = ", or in what the stage is held to" if setting.holding is not None else ""
    return [{"where": f"the logits or the loss of them{more}", "part": "loss"}]


def not_finite(tensor: Tensor) -> int:
    """How many of its numbers are none; the common case takes no memory."""
    if all_finite(tensor):
        return 0
    return int(tensor.numel() - torch.isfinite(tensor).sum())


def named(block: str) -> str:
    """`s1.0` in words."""
    stack, _, number = block.partition(".")
    return f"block {number} of {stack}" if number else f"the {stack}"


def parts_of(block: str) -> Facts:
    """`s1.0` as fields of an event."""
    part, _, number = block.partition(".")
    return {"part": part, **({"block": int(number)} if number else {})}
