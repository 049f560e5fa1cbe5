"""A progress bar over runs: stage, loss, and the time that is left, by planned FLOPs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from stackwise.by_stage import step_tokens
from stackwise.printing import printable
from stackwise.training.step import StepNumbers
from stackwise.training.work import Work

FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed} done, {remaining} left{postfix}"
MOST_FLOPS = 1e300
EVERY_SECONDS, EVERY_SECONDS_IN_A_FILE = 0.5, 30.0


@dataclass
class Bar:
    """Advances by the FLOPs that were planned for the steps taken, so that it ends at 100 %.

    Attributes:
        bar: tqdm's, in FLOPs.
        before: FLOPs of the runs before the present one.
        run_id: The present one, once it took a step.
    """

    bar: Any
    before: float = 0.0
    run_id: str = ""

    def enter(self, name: str, before: float) -> None:
        """Say what is trained from here on, and that `before` FLOPs lie behind, now or earlier."""
        self.before, self.run_id = before, ""
        self.bar.set_description_str(f"{printable(name):<22}", refresh=False)
        self._skip_to(before)

    def on_step(self, work: Work, numbers: StepNumbers) -> None:
        """Take one step of a run into account."""
        if work.run.id != self.run_id:
            self.run_id = work.run.id
            self._skip_to(self.before + planned_flops(work, work.at.step - 1))
        if work.pacer is not None:  # the clock changes what is planned
            self.bar.total = self.before + whole_flops(work)
        stage = work.stages[work.at.stage]
        self.bar.set_postfix_str(
            f"stage {work.at.stage + 1}/{len(work.stages)} {stage.name}, loss {numbers.loss:.3f}",
            refresh=False,
        )
        reached = self.before + planned_flops(work, work.at.step)
        self.bar.update(max(0.0, min(reached, self.bar.total) - self.bar.n))

    def end(self) -> None:
        """All of it is done."""
        self._skip_to(self.bar.total)

    def _skip_to(self, flops: float) -> None:
        """What was spent in another process says nothing about the time that is left."""
        skipped = max(0.0, flops - self.bar.n)
        self.bar.n += skipped
        self.bar.initial += skipped


def planned_flops(work: Work, steps: int) -> float:
    """FLOPs planned for a run up to step `steps` of the stage that it is in."""
    costs = [cost.total for cost in work.costs]
    pairs = zip(work.stages[: work.at.stage], costs, strict=False)
    tokens = steps * step_tokens(work.exp, work.stages[work.at.stage])
    return sum((stage.tokens or 0) * cost for stage, cost in pairs) + tokens * costs[work.at.stage]


def whole_flops(work: Work) -> float:
    """FLOPs planned for a run, by its stages as they are now."""
    pairs = zip(work.stages, work.costs, strict=True)
    return sum((stage.tokens or 0) * cost.total for stage, cost in pairs)


@contextmanager
def bar_over(flops: float) -> Iterator[Bar]:
    """A bar over `flops` FLOPs of training, on standard error; a line now and then in a file."""
    seconds = EVERY_SECONDS if sys.stderr.isatty() else EVERY_SECONDS_IN_A_FILE
    most = min(flops, MOST_FLOPS)  # what a stranger planned may be endless
    bar = tqdm(total=most, bar_format=FORMAT, dynamic_ncols=True, mininterval=seconds)
    try:
        yield Bar(bar)
    finally:
        bar.close()
