"""What lies outside a module's blocks: which of it is embedding, and which is head.

Embedding is what the first block's input depends on; the rest is head. A forward pass on one batch
up to the first block tells, by autograd for parameters and by who was called for modules, so that
a frozen trunk costs no backward pass once the embedding no longer trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Ends:
    """The two ends of a module.

    Attributes:
        embedding: Holds the parameters that the first block's input depends on.
        head: Holds the others outside the blocks.
        before: The modules that are called before the first block.
    """

    embedding: nn.Module
    head: nn.Module
    before: set[nn.Module]


def find_ends(
    forward: Callable[[], object], model: nn.Module, blocks: Sequence[nn.Module], name: str
) -> Ends:
    """Go forward up to the first block, in eval mode, and see what its input depends on.

    Args:
        forward: A forward pass of the model.
        model: The model; it is left in eval mode.
        blocks: Its blocks in order.
        name: What the list of blocks is called, for the message.

    Raises:
        ValueError: If the forward pass does not call the first block.
    """
    outside = outside_of(model, blocks)
    inside = {p for block in blocks for p in block.parameters()}
    named = {k: p for k, p in model.named_parameters() if p not in inside}
    model.eval()
    with torch.enable_grad(), up_to(blocks[0], outside) as (reached, before), suppress(_Reached):
        forward()
    if not reached:
        raise ValueError(
            f"blocks: the first block of {name} is not called by the loss; name the list that the "
            "forward pass goes through"
        )
    trainable = {k: p for k, p in named.items() if p.requires_grad}
    inputs = [tensor for tensor in tensors_in(reached) if tensor.requires_grad]
    grads: Sequence[Tensor | None] = [None] * len(trainable)
    if inputs and trainable:
        ones = [torch.ones_like(tensor) for tensor in inputs]
        grads = torch.autograd.grad(inputs, list(trainable.values()), ones, allow_unused=True)
    first = {k for k, grad in zip(trainable, grads, strict=True) if grad is not None}
    return Ends(
        embedding=holder({k: p for k, p in named.items() if k in first}),
        head=holder({k: p for k, p in named.items() if k not in first}),
        before=before,
    )


class _Reached(BaseException):
    """The first block is reached. No Exception, so that a model's own handlers let it pass."""


@contextmanager
def up_to(
    block: nn.Module, outside: Sequence[nn.Module]
) -> Iterator[tuple[list[Any], set[nn.Module]]]:
    """Inside, calling `block` raises; its input, and which of `outside` were called, are noted."""
    reached: list[Any] = []
    before: set[nn.Module] = set()

    def stop(module: nn.Module, args: Any, kwargs: Any) -> None:
        reached.append((args, kwargs))
        raise _Reached

    def note(module: nn.Module, args: Any) -> None:
        before.add(module)

    hooks = [block.register_forward_pre_hook(stop, with_kwargs=True)]
    hooks += [module.register_forward_pre_hook(note) for module in outside]
    try:
        yield reached, before
    finally:
        for hook in hooks:
            hook.remove()


def outside_of(model: nn.Module, blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """The modules that lie in no block, the model itself among them."""
    inside = {module for block in blocks for module in block.modules()}
    return [module for module in model.modules() if module not in inside]


def holder(named: Mapping[str, nn.Parameter]) -> nn.Module:
    """A module that holds parameters of others, so that they can be a part."""
    module = nn.Module()
    for name, parameter in named.items():
        module.register_parameter(name.replace(".", "/"), parameter)
    return module


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
