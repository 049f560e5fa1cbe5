"""Spectral normalisation: every matrix of a block has a largest singular value of one.

Miyato et al. (arXiv 1802.05957) compute with W / sigma(W), sigma being estimated by power iteration
whose vector u goes on from step to step. That function does not change when W is scaled, so W is
kept divided: it starts so, its gradient loses what would scale it, <G, W> u v^T (their equation 12
at sigma = 1), and after each step it is divided again. What lies in a rack is thus the matrix that
it computes with, wherever that goes: into a frozen format, a cache, an average or an export. And a
forward pass costs what it costs without.

It goes for every matrix of a block, but for the readout of the noise level, which starts at zero.
An average of such matrices has a largest singular value of one at most. Who does this in a step is
`training/optim.py`, which keeps u beside the moments. A step takes about 26 FLOPs per weight for
it, as much as four tokens do; like the optimizer's own they are not in the ledger.

Shapes: O outputs, I inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

AT_FIRST = 100  # iterations on a matrix that has no u yet
EACH_STEP = 5  # after a step: one follows slow training, but not a new largest direction soon
NEVER = ".time.readout.weight"  # left alone, by the end of its name


class Top(NamedTuple):
    """A matrix's largest singular value, as far as it is known, with its vectors."""

    sigma: Tensor
    u_O: Tensor
    v_I: Tensor


def is_normed(name: str, parameter: Tensor) -> bool:
    """Whether a parameter of a stack, of this name there, is a matrix that is normalised."""
    return parameter.ndim == 2 and not name.endswith(NEVER)


@torch.no_grad()
def iterated(weight_OI: Tensor, u_O: Tensor, times: int = 1) -> Top:
    """Power iteration from u on: v = W^T u, then u = W v, each to length one."""
    for _ in range(times):
        v_I = nn.functional.normalize(weight_OI.mT @ u_O, dim=0, eps=1e-30)
        u_O = weight_OI @ v_I
        sigma = torch.linalg.vector_norm(u_O)
        u_O = u_O / sigma.clamp_min(1e-30)
    return Top(sigma, u_O, v_I)


def first_u(weight_OI: Tensor, generator: torch.Generator) -> Tensor:
    """A vector to begin with, (O,), by chance and `AT_FIRST` iterations."""
    drawn_O = torch.randn(len(weight_OI), generator=generator).to(weight_OI)
    return iterated(weight_OI.detach(), drawn_O, AT_FIRST).u_O


@torch.no_grad()
def divide_(weight_OI: Tensor, u_O: Tensor) -> None:
    """Some iterations, after which W is divided by its sigma and u is the better one; in place.

    A matrix of zeros stays one.
    """
    sigma, better_O, _ = iterated(weight_OI, u_O, EACH_STEP)
    if sigma > 0:
        weight_OI.div_(sigma)
        u_O.copy_(better_O)


@torch.no_grad()
def flatten_(grad_OI: Tensor, weight_OI: Tensor, u_O: Tensor) -> None:
    """Take <G, W> u v^T off a gradient, in place: what would only scale W."""
    v_I = nn.functional.normalize(weight_OI.mT @ u_O, dim=0, eps=1e-30)
    along = torch.dot(grad_OI.reshape(-1), weight_OI.reshape(-1))
    grad_OI.addr_(along * u_O, v_I, alpha=-1)


def start_normed(stack: nn.Module, generator: torch.Generator) -> None:
    """Divide the matrices of a stack that has just been drawn, in place."""
    for name, weight_OI in stack.named_parameters():
        if is_normed(name, weight_OI) and not weight_OI.is_meta:
            divide_(weight_OI, first_u(weight_OI, generator))
