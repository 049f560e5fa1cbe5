"""Update rules: how tensors move along their gradients in one step, and what a rule remembers.

A rule is handed float32 weights, whole or a slice, with its state for them; who cuts slices and
rounds bfloat16 weights is in `optim.py`, how matrices move that have to be seen whole in `aim.py`,
`adafactor.py` and `muon.py`. The 8-bit rules are bitsandbytes' own blockwise kernels (arXiv
2110.02861): a byte per number of state, scaled by the largest of each 256. As there, tensors under
4096 numbers keep a float32 state: `tests/unit/test_8bit_updates_equal_bitsandbytes.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from stackwise.model.codes import operators
from stackwise.model.formats import lacking
from stackwise.training import adafactor, muon, paged
from stackwise.training.aim import Aim, Kept, Shape

if TYPE_CHECKING:
    from stackwise.config import Optim

SCALED = 256  # numbers of state that share a scale
LEAST_8BIT = 4096  # numbers of a tensor whose state is kept in bytes


@dataclass(frozen=True)
class Rule:
    """An entry of `OPTIMIZERS`.

    Attributes:
        start: (weights) -> the state before the first step.
        move: (optim, rate, decay, weights, grads, states): one step, in place. It leaves each
            state's `step` one higher.
        state_bytes: (numbers in a tensor) -> bytes of its state, the counted step included.
        whole: Whether whole lists of float32 tensors are moved in one call. Otherwise the rule has
            temporaries as large as what it is handed, and gets slices.
        bitsandbytes: Whether it needs that package, as new as `formats.py` asks.
        aim: For tensors that it has to see whole; None where there are none.
        paged_bytes: (numbers in a tensor) -> bytes of its state that lie in unified memory where a
            card computes, and may be anywhere.
    """

    start: Callable[[Tensor], Kept]
    move: Callable[[Optim, float, float, list[Tensor], list[Tensor], list[Kept]], None]
    state_bytes: Callable[[int], int]
    whole: bool
    bitsandbytes: bool = False
    aim: Aim | None = None
    paged_bytes: Callable[[int], int] = lambda numbers: 0

    def missing(self) -> str | None:
        """What is wrong with bitsandbytes, if it needs it, with the way out; None for nothing."""
        return lacking() if self.bitsandbytes else None

    def aim_at(self, shape: Shape, hidden: bool) -> Aim | None:
        """How it moves a tensor that it has to see whole; None for one that it has not."""
        return self.aim if self.aim is not None and self.aim.takes(shape, hidden) else None


def _start_adamw(weight: Tensor) -> Kept:
    dtype = torch.float32 if weight.dtype == torch.bfloat16 else weight.dtype
    return {
        "step": torch.zeros((), dtype=torch.float32, device=weight.device),
        "exp_avg": torch.zeros_like(weight, dtype=dtype),
        "exp_avg_sq": torch.zeros_like(weight, dtype=dtype),
    }


def _adamw(
    optim: Optim,
    rate: float,
    decay: float,
    weights: list[Tensor],
    grads: list[Tensor],
    states: list[Kept],
) -> None:
    """Torch's fused AdamW (arXiv 1711.05101)."""
    adamw(
        weights,
        grads,
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [state["step"] for state in states],
        fused=True,
        amsgrad=False,
        beta1=optim.beta1,
        beta2=optim.beta2,
        lr=rate,
        weight_decay=decay,
        eps=optim.eps,
        maximize=False,
    )


def _eight_bit(name: Literal["adam", "lion"], *, pages: bool = False) -> Rule:
    """A rule of bitsandbytes: `adam` keeps two states, `lion` (arXiv 2302.06675) one.

    Its bytes are in unified memory if it `pages`, and a card computes (`paged.py`).
    """
    keys = ("1", "2") if name == "adam" else ("1",)

    def start(weight: Tensor) -> Kept:
        kept = {"step": torch.zeros(())}  # on the CPU: the kernels take a number
        small = weight.numel() < LEAST_8BIT
        for key in keys:
            dtype = torch.float32 if small else torch.uint8
            kept[f"state{key}"] = (
                paged.zeros(tuple(weight.shape), dtype, weight.device)
                if pages
                else torch.zeros_like(weight, dtype=dtype)
            )
            if not small:
                scales = -(-weight.numel() // SCALED)
                kept[f"absmax{key}"] = torch.zeros(scales, device=weight.device)
        return kept

    def move(
        optim: Optim,
        rate: float,
        decay: float,
        weights: list[Tensor],
        grads: list[Tensor],
        states: list[Kept],
    ) -> None:
        for weight, grad, state in zip(weights, grads, states, strict=True):
            state["step"] += 1
            _bitsandbytes(name, optim, rate, decay, weight, grad, state)
            if pages:
                paged.settle(weight.device)

    def state_bytes(numbers: int) -> int:
        small = numbers < LEAST_8BIT
        each = 4 * numbers if small else numbers + 4 * -(-numbers // SCALED)
        return len(keys) * each + 4

    def paged_bytes(numbers: int) -> int:
        return len(keys) * numbers * (pages and numbers >= paged.LEAST_PAGED)

    return Rule(start, move, state_bytes, whole=False, bitsandbytes=True, paged_bytes=paged_bytes)


def _bitsandbytes(
    name: str,
    optim: Optim,
    rate: float,
    decay: float,
    weight: Tensor,
    grad: Tensor,
    state: Kept,
) -> None:
    """One call of bitsandbytes' kernels, without its trust ratio and its scaling of gradients."""
    kernels = operators()
    step, (one, two) = int(state["step"]), (state["state1"], state.get("state2"))
    betas = (optim.beta1, optim.beta2, 0.0, 0.0)
    eps = optim.eps if name == "adam" else 0.0
    if one.dtype == torch.float32:
        kernels.optimizer_update_32bit(
            name, grad, weight, one, two, None, 0.0, 0.0, *betas, eps, decay, step, rate, 1.0, False
        )
        return
    signed, unsigned = _codes(weight.device)
    scales = state["absmax1"], state.get("absmax2")
    codes = signed, unsigned if two is not None else None
    kernels.optimizer_update_8bit_blockwise(
        name, grad, weight, one, two, *betas, eps, step, rate, *codes, *scales, decay, 1.0, False
    )


@cache
def _codes(device: torch.device) -> tuple[Tensor, Tensor]:
    """The 256 values that a byte of state stands for, with and without a sign."""
    operators()
    from bitsandbytes.functional import create_dynamic_map

    return create_dynamic_map(signed=True).to(device), create_dynamic_map(signed=False).to(device)


def sliced(state: Kept, start: int, end: int) -> Kept:
    """The state of numbers `start` to `end` of a tensor, as views; only its step is a copy."""
    return {
        key: value.clone()
        if key == "step"
        else value[start // SCALED : -(-end // SCALED)]
        if key.startswith("absmax")
        else value.view(-1)[start:end]
        for key, value in state.items()
    }


def _adamw_bytes(numbers: int) -> int:
    return 8 * numbers + 4


OPTIMIZERS: dict[str, Rule] = {
    "adamw": Rule(_start_adamw, _adamw, _adamw_bytes, whole=True),
    "adamw8bit": _eight_bit("adam"),
    "paged_adamw8bit": _eight_bit("adam", pages=True),
    "lion8bit": _eight_bit("lion"),
    "adafactor": Rule(
        adafactor.start_vector,
        adafactor.move_vectors,
        lambda numbers: 4 * numbers + 4,
        whole=True,
        aim=adafactor.AIM,
    ),
    "muon": Rule(_start_adamw, _adamw, _adamw_bytes, whole=True, aim=muon.AIM),
}
