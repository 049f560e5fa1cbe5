"""What probing costs beside training, by arithmetic, and how it is kept within a share of it.

Probes are looks at held-out text (`training/watch.py`) and drift over a stage
(`training/stage_drift.py`). Statistics of blocks ride on looks and make no matrix product. Two
things are counted with probes, but not bounded: the loss before and after stacks are frozen to
less, which says what freezing did, and the score of the finished rack, which is a run's result.

The bound counts planned FLOPs and not seconds, so that the same experiment is looked at in the same
steps on every machine. What is over `eval.probe_frac` is cut in this order, until the rest fits:

1. the evenly spread looks (`eval.points`), by halves, down to those at the ends of stages;
2. looks go by the stage's own end alone (`eval.depths=last`), as many as fit then;
3. drift is not measured.

Windows are never fewer: losses on others could not be compared. Without a `probe_frac` the bound is
`USUAL`, and what takes less than `LITTLE` is left alone: it is over within a second or so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stackwise.budget import steps_of
from stackwise.data.heldout import rows_at_once
from stackwise.memory.flops import (
    counted_frac,
    exit_flops,
    forward_flops_per_token,
    head_flops_per_position,
    stage_flops_per_token,
)

if TYPE_CHECKING:
    from stackwise.config import Experiment
    from stackwise.stage import Stage

USUAL = 0.05
LITTLE = 1e10  # FLOPs
DRIFT_WINDOWS = 4
DRIFT_FILE = "drift.safetensors"  # in the run's folder, while a stage trains
DRIFT_POSITIONS = 128  # of them, at which outputs and predictions are compared


@dataclass(frozen=True)
class Probes:
    """How a run is probed, and what that takes.

    Attributes:
        points: Looks that are spread over the run; those at the ends of stages are beside them.
        depths: Whether they go by every depth.
        drift: Whether drift is measured.
        flops: What all of it takes.
        training_flops: What training takes.
        bound: The most that `flops` may be over `training_flops`.
    """

    points: int
    depths: Literal["all", "last"]
    drift: bool
    flops: float
    training_flops: float
    bound: float

    @property
    def frac(self) -> float:
        """The share, of the FLOPs of training."""
        return self.flops / self.training_flops if self.training_flops else 0.0

    @property
    def fits(self) -> bool:
        """Whether it is within the bound."""
        return self.flops <= self.bound * self.training_flops


def asked_probes(exp: Experiment, made: Sequence[Stage]) -> Probes:
    """What an experiment asks for, whatever it takes."""
    return _Prices(exp, made).probes(exp.eval.points, exp.eval.depths, exp.eval.drift)


def bounded_probes(exp: Experiment, made: Sequence[Stage]) -> Probes:
    """What of it is done."""
    prices = _Prices(exp, made)
    asked = prices.probes(exp.eval.points, exp.eval.depths, exp.eval.drift)
    if exp.eval.probe_frac is None and asked.flops <= LITTLE:
        return asked
    found = asked
    for found in prices.fewer(asked):
        if found.fits:
            break
    return found


def as_probed(exp: Experiment, made: Sequence[Stage]) -> Experiment:
    """The experiment with what is done in the place of what it asks for; all else is the same."""
    found = bounded_probes(exp, made)
    done = {"points": found.points, "depths": found.depths, "drift": found.drift}
    if all(getattr(exp.eval, key) == value for key, value in done.items()):
        return exp
    return exp.model_copy(update={"eval": exp.eval.model_copy(update=done)})


def look_count(exp: Experiment, made: Sequence[Stage], number: int) -> int:
    """Looks at held-out text in a stage: evenly spread ones, and its last step."""
    return looks_in([steps_of(exp, stage) for stage in made], number, exp.eval.points)


def looks_in(steps: Sequence[int], number: int, points: int) -> int:
    """The same for stages of so many steps."""
    before, whole = sum(steps[:number]), sum(steps)
    if not steps[number]:
        return 0
    return looks_between(before, before + steps[number], whole, points)


def looks_between(done: int, end: int, whole: int, points: int) -> int:
    """Looks after step `done` of a run up to `end`, where a stage ends."""
    spread = end * points // whole - done * points // whole
    last = end * points // whole > (end - 1) * points // whole
    return spread + (not last)


def drift_flops(exp: Experiment, made: Sequence[Stage], number: int) -> float:
    """FLOPs of the drift over a stage: the path before it at its beginning, its own at its end.

    As `stackwise.drift.drift_flops`, which reads any text.
    """
    tokens = drift_windows(exp) * exp.data.seq_len
    places = min(DRIFT_POSITIONS, tokens)
    if not number:
        return 0.0
    return sum(seen_flops(exp, made[at].path, tokens, places) for at in (number - 1, number))


def drift_windows(exp: Experiment) -> int:
    """Held-out windows that drift over a stage is measured on."""
    return min(DRIFT_WINDOWS, exp.eval.windows, rows_at_once(exp))


def seen_flops(exp: Experiment, path: Sequence[str], tokens: int, places: int) -> float:
    """FLOPs of reading text through a path, its head at some places, and likenesses at each exit.

    Args:
        exp: The experiment.
        path: The stacks that run.
        tokens: Tokens read.
        places: Positions that are compared.
    """
    exits = 1 + len(path) * exp.rack.blocks_per_stack
    likenesses = exits * 2.0 * places**2 * (exp.rack.d_model + 1)
    head = head_flops_per_position(exp) * places
    return forward_flops_per_token(exp, path) * tokens + head + likenesses


class _Prices:
    """What each kind of probe takes of an experiment, worked out once."""

    def __init__(self, exp: Experiment, made: Sequence[Stage]) -> None:
        self.exp, self.steps = exp, [steps_of(exp, stage) for stage in made]
        tokens = exp.eval.windows * exp.data.seq_len
        self.looks: dict[str, list[float]] = {"all": [], "last": []}
        for stage in made:
            whole = stage.model_copy(update={"seq_len": None})  # as held-out samples are
            counted = round(counted_frac(exp, whole) * tokens)
            end = forward_flops_per_token(exp, stage.path) * tokens
            self.looks["all"].append(exit_flops(exp, stage.path, tokens, counted))
            self.looks["last"].append(end + head_flops_per_position(exp) * counted)
        self.drift = sum(drift_flops(exp, made, number) for number in range(len(made)))
        self.training = sum(
            (stage.tokens or 0) * stage_flops_per_token(exp, stage).total for stage in made
        )

    def probes(self, points: int, depths: Literal["all", "last"], drift: bool) -> Probes:
        """These, with their price."""
        spent = drift * self.drift
        for number, each in enumerate(self.looks[depths]):
            spent += looks_in(self.steps, number, points) * each
        bound = USUAL if self.exp.eval.probe_frac is None else self.exp.eval.probe_frac
        return Probes(points, depths, drift, spent, self.training, bound)

    def fewer(self, asked: Probes) -> Iterator[Probes]:
        """Less and less, in the order in which it is cut."""
        ways = dict.fromkeys([(asked.depths, asked.drift), ("last", asked.drift), ("last", False)])
        for depths, drift in ways:
            points = asked.points
            while points:
                yield self.probes(points, depths, drift)
                points //= 2
