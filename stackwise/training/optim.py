"""The optimizer: one update rule over what trains, with its state.

The rules are in `updates.py`. What is bfloat16, or moved by a rule that has temporaries, is stepped
in slices, so that a step takes a few megabytes above weights, gradients and state whatever the size
of a tensor; a rule that has to see a whole tensor then moves it by rows. `rounding.py` says how a
bfloat16 weight takes a small update. The state is named by part and tensor (`s1`,
`blocks.0.attention.q.weight`), so that it can be written, read back, and carried over a growth.
What all of it takes is in `optim_costs.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from stackwise.model.init import generator_for
from stackwise.model.shape import RackShape, depth_factor
from stackwise.model.spectral import divide_, first_u, flatten_, is_normed
from stackwise.stage import Stage, copied_from, keeps_state, trained_next
from stackwise.training.aim import Aim, Kept, is_hidden, rows_at_once, rows_of
from stackwise.training.rounding import draws_for, joined, scattered_, split_
from stackwise.training.trained import Named, State
from stackwise.training.updates import OPTIMIZERS, sliced

if TYPE_CHECKING:
    from stackwise.config import Optim

SLICE = 1 << 18  # numbers stepped at once: the fastest by `benchmarks/optimizers.py`
SLICE_ON_A_CARD = 1 << 22  # where every call costs more, and memory is faster
LOWER = "lower"  # state: what float32 has beyond a bfloat16 weight
SPECTRAL = "u"  # state: the vector of spectral norm's power iteration

Rounding = Literal["master", "stochastic"]


class Optimizer:
    """Moves what trains along its gradients; weight decay on matrices only.

    Args:
        optim: Names the rule and its numbers.
        named: What trains.
        rounding: How bfloat16 weights take small updates.
        seed: Of stochastic rounding.
        stage: The number of the stage, in which it draws otherwise than in any other.
        shape: The rack's, whose options its matrices and epsilon follow; None for none.

    Attributes:
        rate: The learning rate of the next step.
        state: Of each parameter that has moved.
    """

    def __init__(
        self,
        optim: Optim,
        named: Named,
        *,
        rounding: Rounding = "master",
        seed: int = 0,
        stage: int = 0,
        shape: RackShape | None = None,
    ) -> None:
        self.optim, self.rule, self.rate = optim, OPTIMIZERS[optim.name], optim.lr
        self.rounding, self.seed, self.stage = rounding, seed, stage
        self.names = {parameter: "/".join(key) for key, parameter in named.items()}
        self.aims = {
            parameter: self.rule.aim_at(tuple(parameter.shape), is_hidden(part))
            for (part, _), parameter in named.items()
        }
        self.state: dict[nn.Parameter, Kept] = {}
        blocks = {p: name for (part, name), p in named.items() if part not in ("embedding", "head")}
        inner = optim.eps * (1.0 if shape is None else depth_factor(shape))
        self.inner = set(blocks) if inner != optim.eps else set[nn.Parameter]()
        self.inner_optim = optim.model_copy(update={"eps": inner})
        normed = blocks if shape is not None and shape.spectral_norm else {}
        self.normed = {p for p, name in normed.items() if is_normed(name, p)}

    def step(self) -> None:
        """Move everything that has a gradient."""
        self.move([parameter for parameter in self.names if parameter.grad is not None])

    def begin(self) -> None:
        """Begin the state of all that trains now, and not as each of it first moves."""
        for parameter in self.names:
            self._kept(parameter)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.names:
            parameter.grad = None

    @torch.no_grad()
    def move(self, parameters: Sequence[nn.Parameter]) -> None:
        """Move some parameters, each of which has a gradient."""
        normed = [p for p in parameters if p in self.normed]
        for parameter in normed:
            flatten_(_grad(parameter), parameter, self._kept(parameter)[SPECTRAL])
        for optim, decay, group in self._groups(parameters):
            aimed = {p: aim for p in group if (aim := self.aims[p]) is not None}
            for parameter, aim in aimed.items():
                self._move_by_rows(parameter, aim, decay)
            group = [p for p in group if p not in aimed]
            whole = [p for p in group if self.rule.whole and p.dtype != torch.bfloat16]
            if whole:
                grads = [_grad(p) for p in whole]
                states = [self._kept(p) for p in whole]
                self.rule.move(optim, self.rate, decay, list(whole), grads, states)
            for parameter in group:
                if not self.rule.whole or parameter.dtype == torch.bfloat16:
                    self._move_in_slices(parameter, optim, decay)
        for parameter in normed:
            divide_(parameter, self._kept(parameter)[SPECTRAL])
        torch.autograd.graph.increment_version(parameters)  # the kernels write past autograd

    def _groups(
        self, parameters: Sequence[nn.Parameter]
    ) -> Iterator[tuple[Optim, float, list[nn.Parameter]]]:
        """What moves alike, with its numbers and its decay: that of matrices alone is not zero."""
        for optim, inner in ((self.optim, False), (self.inner_optim, True)):
            mine = [p for p in parameters if (p in self.inner) == inner]
            yield optim, self.optim.weight_decay, [p for p in mine if p.ndim >= 2]
            yield optim, 0.0, [p for p in mine if p.ndim < 2]

    def exact_n(
        self, parameter: nn.Parameter, start: int = 0, stop: int | None = None, every: int = 1
    ) -> Tensor:
        """Some of the float32 numbers that a parameter stands for: its master's, if it has one."""
        kept = self.state.get(parameter, {})
        weight_n = parameter.detach().reshape(-1)[start:stop:every]
        if LOWER not in kept:
            return weight_n.float()
        return joined(weight_n, kept[LOWER].view(-1)[start:stop:every])

    @torch.no_grad()
    def put(self, parameter: nn.Parameter, exact: Tensor) -> None:
        """Let a parameter stand for float32 values, which its master keeps where it has one."""
        if parameter.dtype != torch.bfloat16 or self.rounding != "master":
            parameter.copy_(exact)
            return
        lower_n, weight_n = self._kept(parameter)[LOWER].view(-1), parameter.detach().view(-1)
        slices = (numbers.split(SLICE) for numbers in (exact.reshape(-1), weight_n, lower_n))
        for exact_n, part_n, rest_n in zip(*slices, strict=True):
            split_(exact_n.to(torch.float32, copy=True), part_n, rest_n)

    def _move_in_slices(self, parameter: nn.Parameter, optim: Optim, decay: float) -> None:
        kept = {key: value for key, value in self._kept(parameter).items() if key != SPECTRAL}
        weight_n, grad_n = parameter.detach().view(-1), _grad(parameter).reshape(-1)
        size = SLICE if weight_n.is_cpu else SLICE_ON_A_CARD
        for start in range(0, len(weight_n), size):
            end = min(start + size, len(weight_n))
            part = sliced(kept, start, end)
            exact_n = self._read(weight_n[start:end], part)
            grads = [grad_n[start:end].to(exact_n.dtype)]
            self.rule.move(optim, self.rate, decay, [exact_n], grads, [part])
            self._write(exact_n, weight_n[start:end], part, self.names[parameter], start)
            if end == len(weight_n):
                self.state[parameter]["step"] = part["step"]

    def _move_by_rows(self, parameter: nn.Parameter, aim: Aim, decay: float) -> None:
        kept, shape = self._kept(parameter), tuple(parameter.shape)
        rows, columns = rows_of(shape)
        size = SLICE if parameter.is_cpu else SLICE_ON_A_CARD
        along = aim.look(_grad(parameter), kept, size)
        weight_n, rate = parameter.detach().view(-1), self.rate * aim.scale(shape)
        at_once = rows_at_once(columns, size)
        for first in range(0, rows, at_once):
            last = min(first + at_once, rows)
            start, end = first * columns, last * columns
            part = {key: kept[key].view(-1)[start:end] for key in (LOWER,) if key in kept}
            part["step"] = kept["step"]
            exact_n = self._read(weight_n[start:end], part)
            exact_n.mul_(1 - self.rate * decay)
            exact_n.view(last - first, columns).add_(along(first, last), alpha=-rate)
            self._write(exact_n, weight_n[start:end], part, self.names[parameter], start)

    def _read(self, weight_n: Tensor, part: Kept) -> Tensor:
        """A slice of weights as the rule moves it."""
        if weight_n.dtype != torch.bfloat16:
            return weight_n
        return joined(weight_n, part[LOWER]) if LOWER in part else weight_n.float()

    def _write(self, exact_n: Tensor, weight_n: Tensor, part: Kept, name: str, place: int) -> None:
        """Put back a slice that has moved."""
        if weight_n.dtype != torch.bfloat16:
            return
        if LOWER in part:
            split_(exact_n, weight_n, part[LOWER])
        else:
            step = int(part["step"])
            draws = draws_for(self.seed, self.stage, name, step, place, weight_n.device)
            scattered_(exact_n, weight_n, draws)

    def _kept(self, parameter: nn.Parameter) -> Kept:
        """The state of a parameter, begun if it has none."""
        if parameter not in self.state:
            parameter.data = parameter.data.contiguous()
            self.state[parameter] = self._begun(parameter)
            if parameter.dtype == torch.bfloat16 and self.rounding == "master":
                self.state[parameter][LOWER] = torch.zeros_like(parameter, dtype=torch.int16)
            if parameter in self.normed:
                draws = generator_for(self.seed, f"{self.stage}/{self.names[parameter]}")
                self.state[parameter][SPECTRAL] = first_u(parameter.detach(), draws)
        return self.state[parameter]

    def _begun(self, parameter: nn.Parameter) -> Kept:
        """The rule's own state of a parameter before its first step."""
        aim = self.aims[parameter]
        return (self.rule if aim is None else aim).start(parameter.detach())

    def load(self, parameter: nn.Parameter, entries: Mapping[str, Tensor]) -> None:
        """Let a parameter go on with state that was kept: the rule's, its lower half, or both.

        It is copied to where the rule keeps it.
        """
        kept = self._kept(parameter)
        for key, value in entries.items():
            if key in kept:
                kept[key].copy_(value)
            else:
                kept[key] = value.to(parameter.device, copy=True)


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "only what has a gradient moves"
    return parameter.grad


def optimizer_state(optimizer: Optimizer, named: Named) -> State:
    """The optimizer's tensors by part: `tensor name/state name` to tensor."""
    out: State = {}
    for (part, name), parameter in named.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            out.setdefault(part, {})[f"{name}/{key}"] = value
    return out


def lower_halves(state: State) -> State:
    """Of states by part, what belongs to the bfloat16 weights themselves and not to the rule."""
    suffix = f"/{LOWER}"
    halves = {
        part: {key: value for key, value in entries.items() if key.endswith(suffix)}
        for part, entries in state.items()
    }
    return {part: entries for part, entries in halves.items() if entries}


def carried(state: State, made: Sequence[Stage], number: int) -> State:
    """What of the states after a stage later ones begin with.

    Whole states where `optimizer_state` says keep; else what belongs to the weights.
    """
    later = {part for part in state if trained_next(made, number, part) is not None}
    kept = {part: state[part] for part in state if keeps_state(made, number, part)}
    return {**lower_halves({part: state[part] for part in later}), **kept}


def with_copies(state: State, stage: Stage) -> State:
    """States by part, those of a stage's copies being their source's."""
    pairs = copied_from(stage).items()
    return {**state, **{stack: state[source] for stack, source in pairs if source in state}}


def load_optimizer_state(
    optimizer: Optimizer, named: Named, state: State, *, whole: bool = True
) -> None:
    """Put back what `optimizer_state` gave; tensors without an entry start afresh.

    Args:
        optimizer: Is given it.
        named: What trains.
        state: By part and tensor name.
        whole: All of it, or only what belongs to the weights.
    """
    state = state if whole else lower_halves(state)
    for (part, name), parameter in named.items():
        entries = {
            key.rsplit("/", 1)[1]: value
            for key, value in state.get(part, {}).items()
            if key.rsplit("/", 1)[0] == name
        }
        if entries:
            optimizer.load(parameter, entries)
