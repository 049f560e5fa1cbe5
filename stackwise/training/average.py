"""The moving average of what trains, which a run is measured and released with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from stackwise.stage import Stage, parts_trained
from stackwise.training.optim import SLICE, Optimizer
from stackwise.training.trained import Named, State


class Average:
    """Exponential moving average of what trains (masked diffusion is reported with it).

    The decay warms up as min(decay, (1 + n) / (10 + n)), n updates in, so that a short stage is
    not held back by its first weights (tf.train.ExponentialMovingAverage's rule). Of bfloat16
    weights it is kept in float32: a tenth of a percent of a difference is far under their spacing.
    """

    def __init__(self, named: Named, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.named = named
        self.values = {key: exact_copy(p.detach()) for key, p in named.items()}

    def update(self) -> None:
        """Move the average towards the weights, once per optimizer step."""
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        low = {key for key, p in self.named.items() if p.dtype != self.values[key].dtype}
        same = [key for key in self.named if key not in low]
        if same:
            weights = [self.named[key].detach() for key in same]
            torch._foreach_lerp_([self.values[key] for key in same], weights, 1 - keep)
        for key in low:
            slices = self.named[key].detach().view(-1).split(SLICE)
            for average_n, weight_n in zip(
                self.values[key].view(-1).split(SLICE), slices, strict=True
            ):
                average_n.lerp_(weight_n.float(), 1 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the rack holds the average; afterwards, its weights again.

        Copies nothing, but for bfloat16 weights, in whose place a rounded copy stands.
        """
        held = {key: parameter.data for key, parameter in self.named.items()}
        for key, parameter in self.named.items():
            parameter.data = self.values[key].to(parameter.dtype)
        try:
            yield
        finally:
            for key, parameter in self.named.items():
                parameter.data = held[key]

    def adopt(self, parts: Sequence[str], optimizer: Optimizer | None = None) -> None:
        """Make the average the weights of `parts`, for good.

        Args:
            parts: Their names.
            optimizer: Keeps the masters of bfloat16 weights, which then stand for the average too.
        """
        with torch.no_grad():
            for key, parameter in self.named.items():
                if key[0] not in parts:
                    continue
                if optimizer is not None and parameter.dtype != self.values[key].dtype:
                    optimizer.put(parameter, self.values[key])
                else:
                    parameter.copy_(self.values[key])

    def adopt_what_freezes(self, following: Stage | None, optimizer: Optimizer) -> None:
        """Freeze at their average the parts that the stage to come, if any, does not train."""
        goes_on = parts_trained(following) if following is not None else set()
        self.adopt(sorted({part for part, _ in self.named} - goes_on), optimizer)

    def state(self) -> State:
        """The averages by part and tensor name."""
        out: State = {}
        for (part, name), value in self.values.items():
            out.setdefault(part, {})[name] = value
        return out

    def load(self, state: Mapping[str, Mapping[str, Tensor]], updates: int) -> None:
        """Put back what `state` gave; tensors without an entry keep their present value."""
        self.updates = updates
        for part, name in self.values:
            if name in state.get(part, {}):
                self.values[part, name] = state[part][name].clone()


def exact_copy(weight: Tensor) -> Tensor:
    """A copy of a weight in which averages are kept: float32 of a bfloat16 one."""
    dtype = torch.float32 if weight.dtype == torch.bfloat16 else weight.dtype
    return weight.to(dtype, copy=True)
