"""How weights move: learning-rate schedules, parameter groups, AdamW, the moving average.

Only what trains is ever handed to an optimizer, so that frozen tensors cannot move. The state of
an optimizer and of the average is named by part and tensor (`s1`, `blocks.0.attention.q.weight`),
so that it can be written, read back, and carried over a growth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stackwise.stage import Stage

if TYPE_CHECKING:
    from stackwise.config import Optim

Named = dict[tuple[str, str], nn.Parameter]
State = dict[str, dict[str, Tensor]]


def lr_at(optim: Optim, position: float) -> float:
    """The learning rate at `position` in [0, 1] of a schedule.

    Linear warm-up over `warmup_frac`; then `constant`; `linear` and `cosine` down to zero; or
    `wsd` (warmup-stable-decay, arXiv 2404.06395): flat, then linear to zero over `decay_frac`.
    """
    if position < optim.warmup_frac:
        return optim.lr * position / optim.warmup_frac
    rest = (position - optim.warmup_frac) / (1 - optim.warmup_frac)
    match optim.schedule:
        case "constant":
            return optim.lr
        case "linear":
            return optim.lr * (1 - rest)
        case "cosine":
            return optim.lr * 0.5 * (1 + math.cos(math.pi * rest))
        case "wsd":
            return optim.lr * min(1.0, (1 - position) / optim.decay_frac)


def stage_lr(optim: Optim, stage: Stage, step: int, steps: int) -> float:
    """The learning rate of step `step` of the `steps` of a stage, taken in the step's middle."""
    within = (step + 0.5) / steps
    start, end = stage.lr_span
    rate = lr_at(optim, start + within * (end - start))
    if stage.lr == "rewarm" and start > 0 and within < optim.warmup_frac:
        rate *= within / optim.warmup_frac
    return rate


def parts_trained(stage: Stage) -> set[str]:
    """Names of the parts that a stage trains."""
    ends = {"embedding"} if stage.embedding else set()
    ends |= {"head"} if stage.head else set()
    return ends | set(stage.active or ())


def freeze_all_but(parts: Mapping[str, nn.Module], stage: Stage) -> Named:
    """Let gradient reach those of `parts` that the stage trains, and nothing else.

    Returns:
        What trains: (part, tensor name) to parameter, in a fixed order.
    """
    trains = parts_trained(stage)
    named: Named = {}
    for part, module in parts.items():
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(part in trains)
            if part in trains:
                named[part, name] = parameter
    return named


def adamw(optim: Optim, named: Named) -> torch.optim.Optimizer:
    """AdamW over what trains; weight decay on matrices only."""
    matrices = [p for p in named.values() if p.ndim >= 2]
    vectors = [p for p in named.values() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": optim.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=optim.lr,
        betas=(optim.beta1, optim.beta2),
        eps=optim.eps,
        fused=True,
    )


def set_lr(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_state(optimizer: torch.optim.Optimizer, named: Named) -> State:
    """The optimizer's tensors by part: `tensor name/state name` to tensor."""
    out: State = {}
    for (part, name), parameter in named.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            out.setdefault(part, {})[f"{name}/{key}"] = value
    return out


def load_optimizer_state(optimizer: torch.optim.Optimizer, named: Named, state: State) -> None:
    """Put back what `optimizer_state` gave; tensors without an entry start afresh."""
    for (part, name), parameter in named.items():
        entries = {
            key.rsplit("/", 1)[1]: value.clone()
            for key, value in state.get(part, {}).items()
            if key.rsplit("/", 1)[0] == name
        }
        if entries:
            optimizer.state[parameter] = entries


def global_norms(named: Named) -> tuple[float, dict[str, float]]:
    """The gradient norm of everything, and of each block (`s0.0`), embedding and head."""
    owned = {key: p.grad for key, p in named.items() if p.grad is not None}
    norms = torch.stack(torch._foreach_norm(list(owned.values()))).tolist()  # one wait for all
    squares: dict[str, float] = {}
    for (part, name), norm in zip(owned, norms, strict=True):
        block = block_of(part, name)
        squares[block] = squares.get(block, 0.0) + norm * norm
    return math.sqrt(sum(squares.values())), {key: math.sqrt(v) for key, v in squares.items()}


def block_of(part: str, name: str) -> str:
    """`s1`, `blocks.0.ffn.up.weight` to `s1.0`; embedding and head are themselves."""
    return f"{part}.{name.split('.')[1]}" if name.startswith("blocks.") else part


def clip_(named: Named, norm: float, bound: float | None) -> None:
    """Scale all gradients so that their norm, now `norm`, is at most `bound`."""
    if bound is not None and norm > bound:
        grads = [p.grad for p in named.values() if p.grad is not None]
        torch._foreach_mul_(grads, bound / norm)


class Average:
    """Exponential moving average of what trains (masked diffusion is reported with it).

    The decay warms up as min(decay, (1 + n) / (10 + n)), n updates in, so that a short stage is
    not held back by its first weights (tf.train.ExponentialMovingAverage's rule).
    """

    def __init__(self, named: Named, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.named = named
        self.values = {key: p.detach().clone() for key, p in named.items()}

    def update(self) -> None:
        """Move the average towards the weights, once per optimizer step."""
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages, weights = list(self.values.values()), list(self.named.values())
        torch._foreach_lerp_(averages, [w.detach() for w in weights], 1 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the rack holds the average; afterwards, its weights again. Copies nothing."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def adopt(self, parts: Sequence[str]) -> None:
        """Make the average the weights of `parts`, for good."""
        with torch.no_grad():
            for key, parameter in self.named.items():
                if key[0] in parts:
                    parameter.copy_(self.values[key])

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
                self.values[part, name] = state[part][name].clone()

    def _swap(self) -> None:
        for key, parameter in self.named.items():
            self.values[key], parameter.data = parameter.data, self.values[key]
