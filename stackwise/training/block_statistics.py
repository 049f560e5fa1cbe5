"""Statistics of blocks at a look: activations on held-out text, gradients and updates of its step.

Activations are read while the look's own forward pass goes by, at `POSITIONS` of its tokens, evenly
spread, so that no product is made for them: of the residual stream after each block, and of what
attention and feed-forward add to it, with gain and gate. They are those of the averaged weights, as
the look is; gradients and updates are the training step's. What each number is stands in
`docs/probes.md`; `stackwise/runs/statistics.py` makes a frame of them.

Shapes: B samples, T tokens, P positions, D width, F hidden units of the feed-forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stackwise.model.block import Block
from stackwise.model.rack import Rack
from stackwise.training.norms import block_of, sliced
from stackwise.training.optim import Optimizer
from stackwise.training.trained import Named

POSITIONS = 1024  # of a look, at most, or one of each forward pass
SAMPLED = 4096  # numbers of a tensor that its update is measured on, at most

Numbers = dict[str, float]


class Site:
    """Sums over positions of what passes one place, (P, D) at a time."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | float = 0.0
        self.square_D: Tensor | float = 0.0
        self.most: Tensor | None = None

    def add(self, x_PD: Tensor) -> None:
        """Take some positions into account."""
        x_PD = x_PD.detach().double()
        most = x_PD.abs().amax()
        self.count += len(x_PD)
        self.total = self.total + x_PD.sum()
        self.square_D = self.square_D + x_PD.square().sum(0)
        self.most = most if self.most is None else torch.maximum(self.most, most)

    def numbers(self) -> Numbers:
        """`rms`, `mean`, `max_abs` over all numbers, and `kurtosis` over features.

        The kurtosis is that over neuron norms of He et al. (arXiv 2405.19279): with s_j the mean
        square of feature j, mean(s^2) / mean(s)^2; from 1, where all features are as large, to D,
        where one has everything.
        """
        assert isinstance(self.square_D, Tensor) and self.most is not None
        s_D = self.square_D / self.count
        mean = float(s_D.mean())
        return {
            "rms": math.sqrt(mean),
            "mean": float(self.total) / (self.count * len(s_D)),
            "max_abs": float(self.most),
            "kurtosis": float(s_D.square().mean()) / mean**2 if mean else math.nan,
        }


class Watched:
    """What one block gives while it is looked at."""

    def __init__(self) -> None:
        self.residual, self.attention, self.ffn = Site(), Site(), Site()
        self.fired_F: Tensor | None = None
        self.x_PD: Tensor | None = None  # the stream, as far as it has come

    def fire(self, gate_PF: Tensor) -> None:
        """Note which hidden units are positive anywhere."""
        fired_F = (gate_PF > 0).any(0)
        self.fired_F = fired_F if self.fired_F is None else self.fired_F | fired_F

    def numbers(self) -> dict[str, Any]:
        """Of each site, and the part of the hidden units that never fired."""
        found: dict[str, Any] = {
            name: site.numbers()
            for name in ("residual", "attention", "ffn")
            if (site := getattr(self, name)).count
        }
        if self.fired_F is not None:
            found["dead_frac"] = 1 - float(self.fired_F.double().mean())
        return found


@contextmanager
def watching(
    rack: Rack, path: tuple[str, ...], tokens: int
) -> Iterator[Callable[[], dict[str, dict[str, Any]]]]:
    """Watch the blocks of a path while held-out text is read, `tokens` in all.

    Yields:
        What asks for the numbers by `embedding` and block: those of blocks that ran.
    """
    every = max(1, math.ceil(tokens / POSITIONS))
    embedding, blocks = Site(), dict[str, Watched]()
    hooks = [
        rack.embedding.register_forward_hook(
            lambda module, args, x_BTD: embedding.add(some(x_BTD, every))
        )
    ]
    for stack in path:
        for number, block in enumerate(rack.blocks([stack])):
            watched = blocks[f"{stack}.{number}"] = Watched()
            hooks += hooked(block, watched, every)

    def found() -> dict[str, dict[str, Any]]:
        ran = {name: watched.numbers() for name, watched in blocks.items()}
        first = {"embedding": {"residual": embedding.numbers()}} if embedding.count else {}
        return {**first, **{name: numbers for name, numbers in ran.items() if numbers}}

    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def some(x_BTD: Tensor, every: int) -> Tensor:
    """One of so many positions, (P, D)."""
    return x_BTD.detach().flatten(0, -2)[::every]


def hooked(block: Block, watched: Watched, every: int) -> list[Any]:
    """Hooks that follow the stream through a block.

    What a sub-layer adds is the difference of the stream around it: so gain and gate are in it.
    Pre-norm, `ffn_norm` is given the stream between the two; post-norm, each norm is given the sum
    that its sub-layer made.
    """

    def enter(module: nn.Module, args: Any) -> None:
        watched.x_PD = some(args[0], every)

    def added(site: Site) -> Callable[[nn.Module, Any], None]:
        def note(module: nn.Module, args: Any) -> None:
            y_PD = some(args[0], every)
            assert watched.x_PD is not None
            site.add(y_PD.double() - watched.x_PD.double())
            watched.x_PD = y_PD

        return note

    def between(module: nn.Module, args: Any, y_BTD: Tensor | None = None) -> None:
        watched.x_PD = some(args[0] if y_BTD is None else y_BTD, every)

    def leave(module: nn.Module, args: Any, y_BTD: Tensor) -> None:
        y_PD = some(y_BTD, every)
        if not block.post and watched.x_PD is not None:
            watched.ffn.add(y_PD.double() - watched.x_PD.double())
        watched.residual.add(y_PD)
        watched.x_PD = None

    def fire(module: nn.Module, args: Any, gate_BTF: Tensor) -> None:
        watched.fire(some(gate_BTF, every))

    ffn = block.ffn
    hooks: list[Any] = [
        block.register_forward_pre_hook(enter),
        block.register_forward_hook(leave),
        (ffn.up if ffn.gate is None else ffn.gate).register_forward_hook(fire),
    ]
    if not block.post:
        return [*hooks, block.ffn_norm.register_forward_pre_hook(added(watched.attention))]
    if block.time is None:
        hooks.append(block.attention_norm.register_forward_hook(between))
    else:  # the norm's output changes with the noise level before it is the stream
        hooks.append(ffn.register_forward_pre_hook(between))
    return [
        *hooks,
        block.attention_norm.register_forward_pre_hook(added(watched.attention)),
        block.ffn_norm.register_forward_pre_hook(added(watched.ffn)),
    ]


class Moves:
    """How far a step moves what trains, by block; made before the step.

    Of each tensor at most `SAMPLED` numbers, evenly spread, are kept: of bfloat16 weights the exact
    values that a master keeps.
    """

    def __init__(self, named: Named, optimizer: Optimizer) -> None:
        self.named, self.optimizer = named, optimizer
        self.before = {key: self._sample(parameter) for key, parameter in named.items()}

    def _sample(self, parameter: nn.Parameter) -> Tensor:
        return self.optimizer.exact_n(parameter, every=step_of(parameter)).clone()

    def ratios(self) -> Numbers:
        """|w' - w| / |w| of each block's numbers, embedding's and head's, after the step."""
        moved, length = dict[str, float](), dict[str, float]()
        for key, parameter in self.named.items():
            old, block = self.before[key].double(), block_of(*key)
            share = parameter.numel() / len(old)
            change = float((self._sample(parameter).double() - old).square().sum())
            moved[block] = moved.get(block, 0.0) + share * change
            length[block] = length.get(block, 0.0) + share * float(old.square().sum())
        return {block: ratio(moved[block], length[block]) for block in moved}


def step_of(parameter: Tensor) -> int:
    """One in so many of a tensor's numbers; odd, so that it keeps to no column."""
    return max(1, math.ceil(parameter.numel() / SAMPLED)) | 1


def weight_norms(named: Named) -> Numbers:
    """|w| of each block, embedding and head, of what trains of them."""
    squares: dict[str, float] = {}
    for key, parameter in named.items():
        block = block_of(*key)
        norms = [torch.linalg.vector_norm(part.float()) for part in sliced(parameter.detach())]
        squares[block] = squares.get(block, 0.0) + float(torch.stack(norms).double().square().sum())
    return {block: math.sqrt(square) for block, square in squares.items()}


def ratio(part_square: float, whole_square: float) -> float:
    """The root of a ratio of squares; NaN over nothing."""
    return math.sqrt(part_square / whole_square) if whole_square else math.nan


def of_step(
    grad_norms: Mapping[str, float], norms: Numbers, moves: Numbers
) -> dict[str, dict[str, float]]:
    """What a step did to each block that trained in it.

    Args:
        grad_norms: |g| before clipping.
        norms: |w|, after it.
        moves: Of `Moves.ratios`.
    """
    return {
        block: {
            "grad_norm": norm,
            "grad_to_weight": norm / norms[block] if norms[block] else math.nan,
            "update_to_weight": moves[block],
        }
        for block, norm in grad_norms.items()
    }
