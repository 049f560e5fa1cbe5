"""Diffusion times from a bell-shaped proposal, weighted so that the bound stays what it is.

The density q over a band's time f in (0, 1] is a normal one cut off at both ends,

    q(f) = phi((f - c) / s) / (s (Phi((1 - c) / s) - Phi(-c / s)))

and a time counts 1 / q(f), so that E over q of h / q is the integral of h, for every h: importance
sampling. A logit-normal, as for images (arXiv 2403.03206), falls to 0 at both ends, where 1 / q has
no finite integral; here q has a least value, so that the loss's second moment is at most that of
uniform times over it. Clipped noise (BD3-LM, arXiv 2503.09573, section 5.2) draws from an inner
interval alone and leaves out what lies outside: another loss. A bell with a weight is also studied
in arXiv 2605.13026.

What is drawn uniformly, and for whom, is in `draws.py`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Float = NDArray[np.float64]
FIRST = 2.0**-53  # the smallest time; 0 itself has no finite weight


class Bell(NamedTuple):
    """The normal density before it is cut off.

    Attributes:
        center: Where it is highest, in [0, 1].
        width: Its standard deviation, over 0.
    """

    center: float = 0.5
    width: float = 0.25


USUAL = Bell()


def bell_times(uniform_B: Float, bell: Bell) -> tuple[Float, Float]:
    """Times by the inverse of the distribution, so that evenly spaced numbers stay in order.

    Args:
        uniform_B: Uniform numbers in (0, 1].
        bell: Which density.

    Returns:
        Times in (0, 1] and 1 / q of each; both (B,), float64.

    Source: `tests/unit/test_a_bell_of_times_keeps_the_bound.py`.
    """
    center, width = bell
    low, high = (_below((end - center) / width) for end in (0.0, 1.0))
    part_B = torch.from_numpy(low + np.asarray(uniform_B, dtype=np.float64) * (high - low))
    time_B = np.clip(center + width * torch.special.ndtri(part_B).numpy(), FIRST, 1.0)
    return time_B, 1 / density(time_B, bell)


def density(time_B: Float, bell: Bell) -> Float:
    """The density q of the cut-off normal at times in [0, 1]."""
    center, width = bell
    mass = _below((1 - center) / width) - _below(-center / width)
    z_B = (np.asarray(time_B) - center) / width
    return np.exp(-(z_B**2) / 2) / (math.sqrt(2 * math.pi) * width * mass)


def _below(z: float) -> float:
    """The normal distribution's Phi."""
    return math.erfc(-z / math.sqrt(2)) / 2
