"""bfloat16 weights that take updates smaller than their spacing.

A bfloat16 number is the upper half of a float32 one, and an update of less than 1/256 of a weight
is lost when the sum is rounded to nearest. Two ways out:

- `master`: keep the lower half too, as the difference from the rounded weight. Weight and
  difference together are the float32 value, exactly, in 2 + 2 bytes:
      upper = (bits + 0x8000) >> 16,  lower = bits - (upper << 16), which lies in -2^15 .. 2^15 - 1.
- `stochastic`: add a uniform 16-bit number to the bits and cut: a value between two neighbours goes
  to either with the probability that makes its mean right (arXiv 1502.02551). What is exactly a
  bfloat16 number never moves. The draws are a pure function of (seed, stage, name, step, place), so
  that a run that is resumed draws the same, and a stage that comes back to a tensor draws anew.

An average of such weights is float32, and takes their place in the same bytes while it is looked at
(`exchange_`).

All tensors here are flat; the halves are read as on a little-endian machine.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

UPPER, LOWER = 1, 0  # the places of a float32 number's halves in memory
HALF = 0x8000


def joined(weight_n: Tensor, lower_n: Tensor) -> Tensor:
    """The float32 values of bfloat16 weights and their int16 differences, fresh."""
    bits_n = weight_n.view(torch.int16).to(torch.int32)
    bits_n <<= 16
    bits_n += lower_n
    return bits_n.view(torch.float32)


def split_(exact_n: Tensor, weight_n: Tensor, lower_n: Tensor) -> None:
    """Write float32 values as nearest bfloat16 weights (ties away from zero) and differences.

    Args:
        exact_n: float32; used up.
        weight_n: bfloat16, written.
        lower_n: int16, written.
    """
    halves_n2 = exact_n.view(torch.int32).add_(HALF).view(torch.int16).view(-1, 2)
    weight_n.view(torch.int16).copy_(halves_n2[:, UPPER])
    lower_n.copy_(halves_n2[:, LOWER]).bitwise_xor_(-HALF)  # 0 .. 2^16 - 1 less 2^15


def exchange_(wide_n: Tensor, weight_n: Tensor) -> None:
    """Put float32 values, rounded, in the place of bfloat16 weights, and the weights into theirs.

    Each number of `wide_n` then holds the lower half of what it was and the weight;
    `exchange_back_` undoes it, to the last bit. Nothing else is held but a slice.

    Args:
        wide_n: float32, used as a store.
        weight_n: bfloat16, written.
    """
    halves_n2 = wide_n.view(torch.int16).view(-1, 2)
    kept_n = weight_n.view(torch.int16).clone()
    split_(wide_n.clone(), weight_n, halves_n2[:, LOWER])
    halves_n2[:, UPPER] = kept_n


def exchange_back_(wide_n: Tensor, weight_n: Tensor) -> None:
    """Undo `exchange_`."""
    halves_n2 = wide_n.view(torch.int16).view(-1, 2)
    kept_n = halves_n2[:, UPPER].clone()
    wide_n.copy_(joined(weight_n, halves_n2[:, LOWER]))
    weight_n.view(torch.int16).copy_(kept_n)


def scattered_(exact_n: Tensor, weight_n: Tensor, draws: torch.Generator) -> None:
    """Write float32 values as bfloat16 weights, rounded up or down by chance, right in the mean.

    Args:
        exact_n: float32; used up.
        weight_n: bfloat16, written.
        draws: On the same device.
    """
    numbers = torch.empty(-(-len(exact_n) // 4), dtype=torch.int64, device=exact_n.device)
    numbers.random_(-(2**63), None, generator=draws)  # four draws in each
    draw_n = numbers.view(torch.int16)[: len(exact_n)]
    halves_n2 = exact_n.view(torch.int32).add_(draw_n).add_(HALF).view(torch.int16).view(-1, 2)
    weight_n.view(torch.int16).copy_(halves_n2[:, UPPER])


def draws_for(
    seed: int, stage: int, name: str, step: int, place: int, device: torch.device
) -> torch.Generator:
    """The generator of one slice of one tensor in one step; it depends on nothing else."""
    digest = hashlib.sha256(f"rounding/{seed}/{stage}/{name}/{step}/{place}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))
