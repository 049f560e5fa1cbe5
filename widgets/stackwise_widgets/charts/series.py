"""A run folder read into what is drawn of it, as often as one likes: only what is new is read.

`Reader(run).read()` twice a second, `view_of(run)` once. Neither ever raises for what a folder
holds: what is damaged is named in the view, and what is left is drawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from stackwise.runs.damage import RunError
from stackwise.runs.following import Follower
from stackwise_widgets.charts.decimate import MOST_POINTS, running_mean, thin
from stackwise_widgets.charts.facts import Facts, facts_of
from stackwise_widgets.charts.looks import Looks, exit_matrix, looks_of
from stackwise_widgets.charts.marks import marks_of
from stackwise_widgets.charts.norms import norm_matrix
from stackwise_widgets.charts.stretches import number_or_none, places_of, stages_seen
from stackwise_widgets.charts.view import Matrix, Numbers, Places, RunView, Series, StageView

if TYPE_CHECKING:
    import stackwise as sw

SMOOTH_FRAC = 1 / 20  # of the steps so far; as in the figure of a study
SMOOTH_POINTS = 1000
STRIP_POINTS = 600  # a strip as high as a finger
WHOLE = (0.0, 1.0)


class Reader:
    """Reads one run again and again.

    Args:
        run: The run; its folder may be incomplete, growing or damaged.
    """

    def __init__(self, run: sw.Run) -> None:
        self.run = run
        self.follower = Follower(run.path)
        self.facts: Facts | None = None
        self.view: RunView | None = None
        self.exits: tuple[object, Matrix | None] = (None, None)
        self.paced = 0

    def read(self) -> RunView:
        """The run as it stands; the same object as before if nothing is new."""
        if self.facts is None or self.facts.problems:
            self.facts = facts_of(self.run)
        problems, new = list(self.facts.problems), False
        try:
            new = self.follower.read()
        except OSError as error:
            problems.append(f"{type(error).__name__}: {error}")
        if new and (paced := decided(self.follower)) != self.paced:
            self.paced, self.facts = paced, facts_of(self.run)
        if self.follower.damaged:
            problems.append(f"events.jsonl: {self.follower.damaged} lines cannot be read")
        if self.follower.broken:
            problems.append(f"metrics/: {self.follower.broken} pieces are damaged and left out")
        state, left = self._standing(problems)
        shown = (state, left, "; ".join(problems) or None)
        before = self.view
        if new or before is None or shown != (before.state, before.seconds_left, before.problem):
            self.view = self._made(self.facts, *shown)
        assert self.view is not None
        return self.view

    def _standing(self, problems: list[str]) -> tuple[str, float | None]:
        """State, and seconds left."""
        try:
            state, status = self.run.state, self.run.status()
        except (RunError, OSError, ValueError) as error:
            problems.append(str(error))
            return "damaged", None
        if state == "finished":
            return state, 0.0
        return state, number_or_none(status.get("seconds_left"))

    def _made(self, facts: Facts, state: str, left: float | None, problem: str | None) -> RunView:
        follower = self.follower
        stages = stages_seen(facts, follower, finished=state == "finished", seconds_left=left)
        looks = looks_of(facts, follower, stages)
        places, stage_N = places_of(follower), follower.numbers("stage")
        loss_N = follower.numbers("loss")
        smooth_N = running_mean(loss_N, stage_N, max(1, round(len(loss_N) * SMOOTH_FRAC)))
        total = stages[-1].end["steps"] if stages else math.nan
        strips = {name: curve(places, follower.numbers(column), stage_N, STRIP_POINTS)
                  for name, column in (("masked", "masked_frac"), ("rate", "lr"))}  # fmt: skip
        return RunView(
            id=self.run.id,
            state=state,
            problem=problem,
            step=int(places.steps[-1]) if len(loss_N) else 0,
            total_steps=int(total) if math.isfinite(total) else None,
            seconds_left=left,
            whole=all(stage.band == WHOLE for stage in stages),
            is_likelihood=facts.objective != "mlm",
            stages=stages,
            loss=curve(places, loss_N, stage_N),
            smooth=curve(places, smooth_N, stage_N, SMOOTH_POINTS),
            heldout=curve(looks.at, looks.loss, looks.stage),
            exits=self._exits(looks, stages),
            norms=norm_matrix(facts, follower),
            marks=marks_of(follower, looks, smooth_N, state),
            result=next((e for e in reversed(follower.events) if e.get("kind") == "result"), {}),
            version=1 + (self.view.version if self.view else 0),
            **strips,
        )

    def _exits(self, looks: Looks, stages: tuple[StageView, ...]) -> Matrix | None:
        """Kept until there is another look, since most ticks bring none."""
        key = (len(looks.loss), tuple(looks.at.steps[-1:]), len(self.follower.look_firsts))
        if key != self.exits[0]:
            self.exits = key, exit_matrix(looks, stages)
        return self.exits[1]


def decided(follower: Follower) -> int:
    """How often the clock has decided of the lengths of stages, where the budget is a time."""
    return sum(event.get("kind") == "paced" for event in follower.events)


def view_of(run: sw.Run) -> RunView:
    """A run, read once."""
    return Reader(run).read()


def curve(at: Places, value_N: Numbers, stage_N: Numbers, most: int = MOST_POINTS) -> Series:
    """A curve of at most `most` points, with a gap at each border between stages."""
    borders = np.count_nonzero(np.diff(stage_N))
    gaps = 0 < borders <= most // 4
    kept = thin(value_N, most - borders if gaps else most)
    found = Series(at.at(kept), value_N[kept])
    if not gaps:
        return found
    new = np.flatnonzero(np.diff(stage_N[kept]) != 0) + 1
    spread = np.insert(np.arange(len(kept)), new, new - 1)
    value = found.value[spread]
    value[new + np.arange(len(new))] = np.nan
    return Series(found.at.at(spread), value)
