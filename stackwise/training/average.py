"""The moving average of what trains, which a run is measured and released with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from stackwise.stage import Stage, parts_trained
from stackwise.training.optim import SLICE, Optimizer
from stackwise.training.rounding import exchange_, exchange_back_
from stackwise.training.trained import Named, State


class Average:
    """Exponential moving average of what trains (masked diffusion is reported with it).

    The decay warms up as min(decay, (1 + n) / (10 + n)), n updates in, so that a short stage is
    not held back by its first weights (tf.train.ExponentialMovingAverage's rule). Of bfloat16
    weights it is kept in float32, and follows the values that they stand for: a tenth of a percent
    of a difference is far under their spacing.

    Args:
        named: What trains.
        decay: Part of the average that is kept in a step, once it is warm.
        optimizer: Knows those values, where bfloat16 weights have a master.
    """

    def __init__(self, named: Named, decay: float, optimizer: Optimizer) -> None:
        self.decay, self.updates, self.optimizer = decay, 0, optimizer
        self.named = named
        self.values = {
            key: optimizer.exact_n(p).view(p.shape)
            if p.dtype == torch.bfloat16
            else p.detach().clone()
            for key, p in named.items()
        }

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
            average_n = self.values[key].view(-1)
            for start in range(0, len(average_n), SLICE):
                weight_n = self.optimizer.exact_n(self.named[key], start, start + SLICE)
                average_n[start : start + SLICE].lerp_(weight_n, 1 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the rack holds the average, rounded as its weights are; afterwards, its weights.

        Nothing is copied: they change places with the average, in which nothing may be looked up
        meanwhile.
        """
        self._exchange(exchange_)
        try:
            yield
        finally:
            self._exchange(exchange_back_)

    @torch.no_grad()
    def _exchange(self, pieces: Callable[[Tensor, Tensor], None]) -> None:
        for key, parameter in self.named.items():
            value = self.values[key]
            if parameter.dtype == value.dtype:
                self.values[key], parameter.data = parameter.data, value
                continue
            slices = (numbers.view(-1).split(SLICE) for numbers in (value, parameter.detach()))
            for wide_n, weight_n in zip(*slices, strict=True):
                pieces(wide_n, weight_n)

    def adopt(self, parts: Sequence[str]) -> None:
        """Make the average the weights of `parts`, for good."""
        with torch.no_grad():
            for key, parameter in self.named.items():
                if key[0] in parts:
                    self.optimizer.put(parameter, self.values[key])

    def adopt_what_freezes(self, following: Stage | None) -> None:
        """Freeze at their average the parts that the stage to come, if any, does not train."""
        goes_on = parts_trained(following) if following is not None else set()
        self.adopt(sorted({part for part, _ in self.named} - goes_on))

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
                self.values[part, name].copy_(state[part][name])
