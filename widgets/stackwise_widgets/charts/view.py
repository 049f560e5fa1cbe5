"""What is drawn of a run: few numbers, each beside its place in steps, tokens, FLOPs and seconds.

Frozen values that `series.py` makes and every picture shares. Memory in bytes, losses in nats per
token, of the stage's own noise band.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Along = Literal["steps", "tokens", "flops", "seconds"]
ALONG: dict[Along, str] = {
    "steps": "optimizer steps",
    "tokens": "tokens read",
    "flops": "FLOPs spent on training, head included",
    "seconds": "seconds in training steps",
}


@dataclass(frozen=True)
class Places:
    """Where along a run: four columns of one length."""

    steps: Numbers
    tokens: Numbers
    flops: Numbers
    seconds: Numbers

    def along(self, unit: Along) -> Numbers:
        """One of the four."""
        found: Numbers = getattr(self, unit)
        return found

    def at(self, index: Any) -> Places:
        """Some of them."""
        return Places(*(getattr(self, unit)[index] for unit in ALONG))


@dataclass(frozen=True)
class Series:
    """A curve. A NaN is a gap: a border between stages, a missing number, or one that is none."""

    at: Places
    value: Numbers


@dataclass(frozen=True)
class Matrix:
    """Rows by layer, columns along the run; rows are in the order of the finished rack.

    Attributes:
        rows: `embedding`, the blocks from left to right, and for gradient norms `head`.
        edges: Where columns begin and end, one more than there are columns.
        value: (rows, columns); NaN where a layer is not there, or has no number.
        broken: Whether a number was due and was none; same shape.
        stage: Of each column.
    """

    rows: tuple[str, ...]
    edges: Places
    value: Numbers
    broken: NDArray[np.bool_]
    stage: Numbers


@dataclass(frozen=True)
class StageView:
    """A stage of the run.

    Attributes:
        begin, end: Where along the run, in each unit; planned where it has not got there, and NaN
            where that cannot be said.
        state: `waiting`, `running` or `done`.
        band: Masked fractions, low and high.
        seconds_left: To its end, at the rate so far; None if not known.
        predicted, measured: Bytes by category; None where it was not measured.
        predicted_peak, measured_peak: Bytes; None if not known.
    """

    number: int
    name: str
    path: tuple[str, ...]
    active: tuple[str, ...]
    band: tuple[float, float]
    state: str
    begin: dict[Along, float]
    end: dict[Along, float]
    tokens: int | None = None
    seconds_left: float | None = None
    predicted: dict[str, float] = field(default_factory=dict)
    measured: dict[str, float | None] = field(default_factory=dict)
    predicted_peak: float | None = None
    measured_peak: float | None = None


@dataclass(frozen=True)
class Mark:
    """Something that happened at one place: a number that is none, divergence, the end.

    Attributes:
        text: For people, `NaN at step 123`.
        at: Where, in each unit.
        grave: Whether the run ended of it, or its numbers are worth nothing after it.
    """

    text: str
    at: dict[Along, float]
    grave: bool = True


@dataclass(frozen=True)
class RunView:
    """A run as it is drawn.

    Attributes:
        id, state, problem: As in a list of runs; `problem` names what is damaged.
        step, total_steps: Done, and planned in all; None if that cannot be said.
        seconds_left: To the end of the run; None if not known.
        whole: Whether every loss is the whole bound, so that stages can be compared.
        is_likelihood: False for mlm, whose loss bounds nothing.
        loss, smooth, heldout, masked, rate: Training loss and its running mean, held-out loss,
            masked fraction, learning rate.
        exits: Held-out loss by exit; None if no look went by depth.
        norms: Gradient norm by layer; None if there is none yet.
        marks: What went wrong, and how the run ended.
        version: Grows with every reading that found something new.
    """

    id: str
    state: str
    problem: str | None
    step: int
    total_steps: int | None
    seconds_left: float | None
    whole: bool
    is_likelihood: bool
    stages: tuple[StageView, ...]
    loss: Series
    smooth: Series
    heldout: Series
    masked: Series
    rate: Series
    exits: Matrix | None
    norms: Matrix | None
    marks: tuple[Mark, ...]
    result: dict[str, Any]
    version: int = 0
