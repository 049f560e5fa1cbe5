"""Time-as-input: the noise level of a sample, as every block reads it through its norms.

A level in [0, 1] is the probability with which a token of the sample is masked. Each block has its
own readout of it, so that a stack is whole wherever it lies: frozen, lent from disk, copied or
exported. One linear layer of W features of the level gives, for either sub-layer F of the block,
what its norm and its residual are changed by:

    x + (1 + gate) F((1 + scale) norm(x) + shift)

Its weights start at zero, so that at first a block computes what it would without it, bit for bit:
adaLN-zero (DiT, arXiv 2212.09748, section 3.2). There the gate itself starts at zero and so a block
at the identity, which would undo what growth copies. DiT's small network between features and
readout is shared by its blocks; it is left out here, for the sake of whole stacks.

What a level is while training, and when a rack is asked, stands at `Rack.time_of`.

Shapes: B samples, D width, W features.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stackwise.model.saved import Saved
from stackwise.model.shape import RackShape

STEPS = 1000.0  # levels are spread over as many steps as diffusion times are in DiT
PERIOD = 10_000.0  # from the fastest wave to the slowest, as in DiT
CHANGES = 6  # vectors of the width: shift, scale and gate for each of two sub-layers


class Change(NamedTuple):
    """What one sub-layer's norm and residual are changed by, (B, 1, D) each, float32 or wider.

    Attributes:
        shift: Added to the norm's output.
        scale: Factor on the norm's output, 1 at first.
        gate: Factor on what the sub-layer adds, 1 at first.
    """

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def normal(self, x_BTD: Tensor) -> Tensor:
        """The norm's output, changed."""
        return torch.addcmul(self.shift, x_BTD, self.scale)


class TimeInput(nn.Module):
    """A block's readout of the level: its two sub-layers' changes.

    Args:
        shape: The rack's.
    """

    def __init__(self, shape: RackShape) -> None:
        super().__init__()
        self.kind = shape.time
        self.readout = nn.Linear(shape.time_width, CHANGES * shape.d_model)

    def forward(self, time_B: Tensor, dtype: torch.dtype) -> tuple[Change, Change]:
        """Levels (B,) to the changes of attention and of the feed-forward.

        Args:
            time_B: Levels in [0, 1].
            dtype: Of the residual stream.
        """
        features_BW = level_features(time_B.to(dtype), self.readout.in_features, self.kind)
        read_B1F = self.readout(features_BW).to(dtype)[:, None]
        shift, scale, gate, *ffn = read_B1F.chunk(CHANGES, dim=-1)
        return Change(shift, 1 + scale, 1 + gate), Change(ffn[0], 1 + ffn[1], 1 + ffn[2])


def level_features(time_B: Tensor, width: int, kind: str) -> Tensor:
    """Features of levels, (B, W).

    `sinusoidal`: cosines and sines of W/2 waves, the timestep embedding of DiT at t = 1000 level.
    `learned`: how near the level is to each of W evenly spaced ones, of which two neighbours share
    it: a linear layer of them is a table of W learned rows, with straight lines in between.

    Args:
        time_B: Levels in [0, 1].
        width: W.
        kind: Which.
    """
    if kind == "learned":
        knots_W = torch.arange(width, device=time_B.device, dtype=time_B.dtype)
        return (1 - (time_B[:, None] * (width - 1) - knots_W).abs()).clamp_min(0)
    half = width // 2
    place_H = torch.arange(half, device=time_B.device, dtype=time_B.dtype)
    waves_H = torch.exp(-math.log(PERIOD) / half * place_H)
    angle_BH = STEPS * time_B[:, None] * waves_H
    return torch.cat((angle_BH.cos(), angle_BH.sin()), dim=-1)


def time_matrix(shape: RackShape) -> int:
    """Weights of a block's readout: 2 FLOPs each per sample, forward; none without time input."""
    return 0 if shape.time == "none" else CHANGES * shape.d_model * shape.time_width


def time_saved(shape: RackShape, length: int, trains: bool) -> Saved:
    """Numbers per token that a block keeps for it: factors, once for a sample of `length` tokens.

    And, where the readout trains, what they are factors on: the outputs of two norms and of two
    sub-layers; and features. Whole numbers for each token, so up to one too many.
    """
    if shape.time == "none":
        return Saved(0, 0)
    width = shape.d_model
    factors = Saved(-(-4 * width // length), 0)
    features = -(-shape.time_width // length)
    return factors.plus(Saved(2 * width, 2 * width + features)) if trains else factors


def time_parameters(shape: RackShape) -> int:
    """Every trainable number of a block's readout."""
    return 0 if shape.time == "none" else CHANGES * shape.d_model * (shape.time_width + 1)
