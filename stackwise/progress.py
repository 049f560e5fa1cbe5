"""A progress bar over runs: stage, loss, and the time that is left, by FLOPs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from stackwise.training.step import StepNumbers
from stackwise.training.work import Work

FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed} done, {remaining} left{postfix}"


@dataclass
class Bar:
    """Advances by the FLOPs that runs spend."""

    bar: Any
    run_id: str = ""
    seen: float = 0.0

    def name(self, text: str) -> None:
        """Say what is trained from here on."""
        self.bar.set_description_str(f"{text:<22}")

    def on_step(self, work: Work, numbers: StepNumbers) -> None:
        """Take one step of a run into account."""
        if work.run.id != self.run_id:
            self.run_id, self.seen = work.run.id, 0.0
        self.bar.update(work.at.flops - self.seen)
        self.seen = work.at.flops
        stage = work.stages[work.at.stage]
        self.bar.set_postfix_str(
            f"stage {work.at.stage + 1}/{len(work.stages)} {stage.name}, loss {numbers.loss:.3f}"
        )


@contextmanager
def bar_over(flops: float) -> Iterator[Bar]:
    """A bar over `flops` FLOPs of training, on standard error."""
    bar = tqdm(total=flops, bar_format=FORMAT, dynamic_ncols=True, mininterval=0.5)
    try:
        yield Bar(bar)
    finally:
        bar.close()
