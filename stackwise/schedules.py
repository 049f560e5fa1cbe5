"""Masking schedules: how much is masked, over diffusion time or over training progress.

Over time t in (0, 1], a schedule is its alpha(t), the probability that a token is still visible:
1 at t = 0 and 0 at t = 1. The mask probability is lambda = 1 - alpha. The continuous-time bound on
the negative log-likelihood (MDLM, arXiv 2406.07524; MD4, arXiv 2406.04329) is

    -log p(x) <= E over t ~ U(0, 1) of w(t) * (cross-entropy summed over the masked tokens)
    w(t) = -alpha'(t) / (1 - alpha(t))

and does not depend on the schedule: only its variance and what training dwells on do. Over
progress, a schedule is the masked fraction of `mlm`. Which goes with what is in `masking.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from stackwise.choice import Choice, Params, find

Float = NDArray[np.float64]


@dataclass(frozen=True)
class TimeSchedule:
    """A schedule over diffusion time, as three functions of arrays.

    Attributes:
        alpha: Time in [0, 1] to the probability that a token is visible, falling from 1 to 0.
        weight: Time in (0, 1] to -alpha'(t) / (1 - alpha(t)).
        time_of: Mask probability in [0, 1] to the time at which 1 - alpha(t) equals it.
    """

    alpha: Callable[[Float], Float]
    weight: Callable[[Float], Float]
    time_of: Callable[[Float], Float]


@dataclass(frozen=True)
class Schedule(Choice):
    """An entry of `SCHEDULES`.

    `build` takes the parameters and returns a `TimeSchedule`, or, over progress, a function from
    progress in [0, 1] to the masked fraction.

    Attributes:
        kind: What the schedule runs over.
    """

    kind: Literal["time", "progress"] = "time"


class Linear(Params):
    """alpha(t) = 1 - t, weight 1/t (the log-linear noise of MDLM and SEDD; LLaDA 2502.09992)."""

    name: Literal["linear"] = "linear"


class Cosine(Params):
    """alpha(t) = 1 - cos(pi/2 (1 - t)), weight pi/2 cot(pi t / 2) (MD4)."""

    name: Literal["cosine"] = "cosine"


class Polynomial(Params):
    """alpha(t) = 1 - t^w, weight w/t (MD4)."""

    name: Literal["polynomial"] = "polynomial"
    exponent: float = Field(
        2.0,
        ge=1,
        le=10,
        description="w; 1 is linear, more dwells on light noise; weight^2 times mask probability, "
        "w^2 t^(w-2), has a finite sum over 1, one that grows as a logarithm towards time 0 at 1, "
        "and as a power under it",
    )


class Geometric(Params):
    """alpha(t) = exp(-sigma(t)), sigma(t) = sigma_min^(1-t) sigma_max^t (SEDD 2310.16834; MD4).

    Rescaled linearly so that alpha runs from exactly 1 to exactly 0: as published it stops short
    at both ends, and the bound would lack a reconstruction and a prior term.
    """

    name: Literal["geometric"] = "geometric"
    sigma_min: float = Field(1e-4, ge=1e-8, le=1, description="total noise at time 0")
    sigma_max: float = Field(20.0, ge=1e-2, le=100, description="total noise at time 1")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min: {self.sigma_min} must be under sigma_max={self.sigma_max}; "
                "1e-4 and 20 are usual"
            )
        return self


class Constant(Params):
    """The same masked fraction all through training."""

    name: Literal["constant"] = "constant"
    ratio: float = Field(0.15, gt=0, le=1, description="masked fraction of each sample")


class Ramp(Params):
    """A masked fraction that moves in a straight line over training: r = start + (end - start) p.

    `start` under `end` goes from easy to hard, `start` over `end` the other way.
    """

    name: Literal["ramp"] = "ramp"
    start: float = Field(0.15, gt=0, le=1, description="masked fraction at the first step")
    end: float = Field(0.90, gt=0, le=1, description="masked fraction at the last step")


def linear(params: Linear) -> TimeSchedule:
    """The straight line alpha = 1 - t; w = 1/t; t = lambda."""
    return TimeSchedule(lambda t: 1 - t, lambda t: 1 / t, lambda lam: 1 * lam)


def cosine(params: Cosine) -> TimeSchedule:
    """A quarter wave: alpha = 1 - sin(pi t/2); w = pi/2 cot(pi t/2); t = 2/pi arcsin(lambda)."""
    right = np.pi / 2
    return TimeSchedule(
        alpha=lambda t: 1 - np.sin(right * t),
        weight=lambda t: right / np.tan(right * t),
        time_of=lambda lam: np.arcsin(lam) / right,
    )


def polynomial(params: Polynomial) -> TimeSchedule:
    """The power alpha = 1 - t^w; weight w/t; t = lambda^(1/w)."""
    power = params.exponent
    return TimeSchedule(
        alpha=lambda t: 1 - t**power,
        weight=lambda t: power / t,
        time_of=lambda lam: lam ** (1 / power),
    )


def geometric(params: Geometric) -> TimeSchedule:
    """With sigma = min (max/min)^t: alpha = (e^-sigma - e^-max) / (e^-min - e^-max).

    w = sigma log(max/min) / expm1(sigma - min), since both the slope and 1 - alpha carry the
    factor e^-min / (e^-min - e^-max).
    """
    low, high = params.sigma_min, params.sigma_max
    rate, span = np.log(high / low), np.exp(-low) - np.exp(-high)

    def excess(t: Float) -> Float:
        return low * np.expm1(rate * t)

    def alpha(t: Float) -> Float:
        return 1 + np.exp(-low) * np.expm1(-excess(t)) / span

    def weight(t: Float) -> Float:
        return (low + excess(t)) * rate / np.expm1(excess(t))

    def time_of(lam: Float) -> Float:
        sigma = -np.log(np.exp(-high) + (1 - lam) * span)
        return np.clip(np.log(sigma / low) / rate, 0, 1)

    return TimeSchedule(alpha, weight, time_of)


def constant(params: Constant) -> Callable[[float], float]:
    """r(p) = ratio."""
    return lambda progress: params.ratio


def ramp(params: Ramp) -> Callable[[float], float]:
    """r(p) = start + (end - start) p."""
    return lambda progress: params.start + (params.end - params.start) * progress


SCHEDULES: dict[str, Choice] = {
    "linear": Schedule(linear, Linear),
    "cosine": Schedule(cosine, Cosine),
    "polynomial": Schedule(polynomial, Polynomial),
    "geometric": Schedule(geometric, Geometric),
    "constant": Schedule(constant, Constant, kind="progress"),
    "ramp": Schedule(ramp, Ramp, kind="progress"),
}


def schedule_kind(name: str) -> Literal["time", "progress"]:
    """What the schedule called `name` runs over; a plain function runs over time.

    Raises:
        ValueError: If there is no such schedule; the message lists the known ones.
    """
    entry = find(SCHEDULES, name, "masking schedule")
    return entry.kind if isinstance(entry, Schedule) else "time"


def names_of(kind: Literal["time", "progress"]) -> list[str]:
    """The schedules that run over `kind`."""
    return [name for name in SCHEDULES if schedule_kind(name) == kind]


def time_schedule(params: Params) -> TimeSchedule:
    """The three functions of a schedule over time.

    Raises:
        ValueError: If the schedule is unknown or runs over progress.
    """
    if schedule_kind(params.choice) != "time":
        raise ValueError(
            f"masking.schedule: {params.choice} runs over training progress, not over diffusion "
            f"time; use {', '.join(names_of('time'))}"
        )
    schedule: TimeSchedule = SCHEDULES[params.choice].build(params)
    return schedule


def progress_schedule(params: Params) -> Callable[[float], float]:
    """A schedule over progress: from progress in [0, 1] to the masked fraction.

    Raises:
        ValueError: If the schedule is unknown or runs over time.
    """
    if schedule_kind(params.choice) != "progress":
        raise ValueError(
            f"masking.schedule: {params.choice} runs over diffusion time, not over training "
            f"progress; use {', '.join(names_of('progress'))}"
        )
    ratio: Callable[[float], float] = SCHEDULES[params.choice].build(params)
    return ratio


def mask_ratio(params: Params, progress: float) -> float:
    """The masked fraction at `progress` in [0, 1] of a schedule over progress.

    Raises:
        ValueError: As `progress_schedule`.
    """
    return float(progress_schedule(params)(progress))
