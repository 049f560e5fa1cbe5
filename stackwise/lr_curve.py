"""What a range test of learning rates found: the curve of each stage, and what is read off it.

Batches and masks differ by more than a step changes. So each loss of a ramp is taken beside that of
the same batch, under the same masks, at the weights that the stage begins with; what is smoothed is
the difference. Two rates are read off: where the loss falls most steeply, and a tenth of where it
is lowest, which is the one suggested: to begin a grid with, and no tuned rate.

How a ramp is run is in `lr_range.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stackwise.report import table

if TYPE_CHECKING:
    import pandas as pd

SMOOTHING = 0.9  # about the mean of ten steps


@dataclass(frozen=True)
class StageRates:
    """The range test of one stage.

    Attributes:
        stage: Its number.
        name: Its name.
        begins: Where its weights came from.
        rates: The learning rate of each step that was taken.
        losses: The loss of each, nats per token.
        before: The loss of the same batches at the weights that the stage begins with.
        smoothed: The moving average of their difference, above the mean of `before`.
        lowest: The rate at which that is lowest; None if no rate lowers it.
        steepest: The rate at which it falls most steeply, before that.
        diverged: The rate at which it stopped; None if it came to the end of the ramp.
    """

    stage: int
    name: str
    begins: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    before: tuple[float, ...]
    smoothed: tuple[float, ...]
    lowest: float | None
    steepest: float | None
    diverged: float | None

    @property
    def suggested(self) -> float | None:
        """A tenth of the rate at which the loss is lowest; None if no rate lowers it."""
        return None if self.lowest is None else float(f"{self.lowest / 10:.2g}")

    @property
    def advice(self) -> str:
        """What to set, or why nothing can be said."""
        if self.suggested is None:
            return "no rate of the ramp lowers the loss; try a lower --low, or more --steps"
        if self.diverged is None and self.lowest == self.rates[-1]:
            return f"optim.lr={self.suggested:g}, but the loss still falls there; raise --high"
        return f"optim.lr={self.suggested:g}"


@dataclass(frozen=True)
class LrFound:
    """What a range test found.

    Attributes:
        stages: One for each stage that was asked for.
        tokens: Tokens read, each once, those of the stages before included.
        flops: FLOPs spent on them, the head's of stages before in the mean.
    """

    stages: tuple[StageRates, ...]
    tokens: int
    flops: float

    @property
    def suggested(self) -> float | None:
        """What to set `optim.lr` to: the lowest of the stages, since it serves them all."""
        found = [each.suggested for each in self.stages if each.suggested is not None]
        return min(found, default=None)

    def to_frame(self) -> pd.DataFrame:
        """One row per step: stage, name, lr, loss, before, smoothed."""
        import pandas as pd

        columns = ("stage", "name", "lr", "loss", "before", "smoothed")
        rows = [
            (each.stage, each.name, *step)
            for each in self.stages
            for step in zip(each.rates, each.losses, each.before, each.smoothed, strict=True)
        ]
        return pd.DataFrame(rows, columns=list(columns))

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        stages = [
            {**asdict(each), "suggested": each.suggested, "advice": each.advice}
            for each in self.stages
        ]
        return {
            "suggested": self.suggested,
            "tokens": self.tokens,
            "flops": self.flops,
            "stages": stages,
        }

    def __str__(self) -> str:
        head = ["stage", "steps", "steepest", "lowest", "diverged", "suggested"]
        rows = [
            [f"{each.stage} {each.name}", str(len(each.rates))]
            + [_shown(r) for r in (each.steepest, each.lowest, each.diverged, each.suggested)]
            for each in self.stages
        ]
        return table(head, rows)


@dataclass
class Ramp:
    """What was measured: losses before any step, those of the steps, and where it stopped."""

    before: list[float]
    looked_at: int  # positions that counted before
    rates: list[float]
    losses: list[float]
    counted: int = 0  # positions that counted in the steps
    diverged: float | None = None

    def smoothed(self) -> list[float]:
        """The loss by its moving average, without what the batches differ by."""
        level = sum(self.before) / len(self.before)
        apart = [loss - was for loss, was in zip(self.losses, self.before, strict=False)]
        return [level + mean for mean in smooth(apart)]


def smooth(values: Sequence[float]) -> list[float]:
    """A moving average, each divided by the weights that it has by then."""
    mean, found = 0.0, []
    for number, value in enumerate(values, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        found.append(mean / (1 - SMOOTHING**number))
    return found


def read(stage: int, name: str, begins: str, ramp: Ramp, first: int) -> StageRates:
    """What a ramp says from its step `first` on."""
    smoothed, rates = ramp.smoothed(), ramp.rates
    lowest = min(range(first, len(rates)), key=smoothed.__getitem__, default=first)
    falls = [smoothed[i + 1] - smoothed[i] for i in range(first, lowest)]
    steepest = first + falls.index(min(falls)) if falls else None
    return StageRates(
        stage=stage,
        name=name,
        begins=begins,
        rates=tuple(rates),
        losses=tuple(ramp.losses),
        before=tuple(ramp.before[: len(rates)]),
        smoothed=tuple(smoothed),
        lowest=None if steepest is None else rates[lowest],
        steepest=None if steepest is None else rates[steepest],
        diverged=ramp.diverged,
    )


def _shown(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.2g}"
