"""What is measured while a step is carried out, without changing a bit of it.

Shapes: B samples, T tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self, cast

import torch
from torch import Tensor, nn

from stackwise.memory.meter import Kept
from stackwise.model.rack import Rack
from stackwise.stepping.phase import KeptTensor
from stackwise.training.norms import block_of


class KeptTensors:
    """Lists what autograd keeps between forward and backward, while it is entered.

    It counts as `memory/meter.py` does: each storage once, parameters and tables not at all. It may
    be entered again and again; what is let go in backward is noticed whenever that runs.

    Args:
        rack: Its parameters and attention's tables are left out.
    """

    def __init__(self, rack: Rack) -> None:
        self.kept = Kept(rack, noted=self._note)
        self.new: list[tuple[tuple[int, ...], str, int]] = []

    @property
    def bytes(self) -> int:
        """Of all that is kept now."""
        return self.kept.bytes

    def __enter__(self) -> Self:
        self.kept.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.kept.__exit__(*error)

    def take(self) -> tuple[KeptTensor, ...]:
        """What has been kept since the last call, the largest first."""
        found: dict[tuple[tuple[int, ...], str], list[int]] = {}
        for shape, dtype, size in self.new:
            found.setdefault((shape, dtype), []).append(size)
        self.new = []
        made = [KeptTensor(*key, len(sizes), sum(sizes)) for key, sizes in found.items()]
        return tuple(sorted(made, key=lambda each: -each.bytes))

    def _note(self, tensor: Tensor) -> None:
        dtype, size = str(tensor.dtype).removeprefix("torch."), tensor.untyped_storage().nbytes()
        self.new.append((tuple(tensor.shape), dtype, size))


class Squares:
    """Sums of squares by name, over the micro-batches of a step."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Take the numbers of a tensor into account."""
        square = float(tensor.detach().double().square().sum())
        self.sums[name] = self.sums.get(name, 0.0) + square
        self.counts[name] = self.counts.get(name, 0) + tensor.numel()

    def norms(self) -> dict[str, float]:
        """The root of each sum."""
        return {name: math.sqrt(square) for name, square in self.sums.items()}

    def means(self) -> dict[str, float]:
        """The root of each mean."""
        return {name: math.sqrt(s / self.counts[name]) for name, s in self.sums.items()}


def blocks_of(rack: Rack, stacks: Sequence[str]) -> dict[str, nn.Module]:
    """The blocks of some stacks by name, `s0.0`, in the order they run."""
    return {
        f"{stack}.{i}": block for stack in stacks for i, block in enumerate(rack.blocks([stack]))
    }


@contextmanager
def outputs_noted(
    modules: dict[str, nn.Module], note: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Inside, what each of some modules puts out is noted under its name."""

    def noting(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, given, output: note(name, output)

    hooks = [
        module.register_forward_hook(cast(Callable[..., None], noting(name)))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


Weights = dict[str, list[Tensor]]


def weights_of(rack: Rack) -> Weights:
    """A copy of all weights, trained and frozen, by block, embedding and head."""
    found: Weights = {}
    for part, module in rack.parts().items():
        for name, tensor in module.state_dict().items():
            found.setdefault(block_of(part, name), []).append(tensor.detach().clone())
    return found


def moved(rack: Rack, before: Weights) -> tuple[dict[str, float], dict[str, float]]:
    """How far the weights of each block are from a copy of them, and that over their norm.

    What is the same bit for bit has moved by exactly 0.
    """
    now, changes, relative = weights_of(rack), dict[str, float](), dict[str, float]()
    for name, old in before.items():
        pairs = list(zip(old, now[name], strict=True))
        if all(torch.equal(one, other) for one, other in pairs):
            changes[name] = relative[name] = 0.0
            continue
        squares = [float((b.double() - a.double()).square().sum()) for a, b in pairs]
        size = math.sqrt(sum(float(a.double().square().sum()) for a, _ in pairs))
        changes[name] = math.sqrt(sum(squares))
        relative[name] = changes[name] / size if size else math.inf
    return changes, relative
