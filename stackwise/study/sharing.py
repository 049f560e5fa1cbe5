"""First stages that several runs have alike are trained once, and the others branch from there.

Two runs have a stage alike if everything that decides its numbers is equal: the experiment but for
its curriculum, and the stages up to its end, with their tokens, schedule spans and parts of the
whole training. What is kept at that border also depends on what trains next (`forking.py`): where
the second run would begin otherwise there, nothing is shared. So a run that branches has the
weights, events and metrics of one that trained alone, to the last bit
(`tests/integration/test_shared_first_stages_change_no_bit.py`), and its ledger holds its full cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stackwise.config import Experiment, Placement
from stackwise.curriculum import stages
from stackwise.errors import ExperimentError
from stackwise.memory.flops import stage_flops_per_token
from stackwise.own_code import CodeFile
from stackwise.runs import Run
from stackwise.runs.records import is_run
from stackwise.stage import Stage
from stackwise.training.forking import beginnings, fork
from stackwise.training.kept_stages import kept_stages
from stackwise.training.start import (
    create_run,
    dataset_of,
    model_of,
    run_id_of,
    seen_from,
    settled,
)

OWN = {"curriculum", "title"}  # keys in which two runs may differ whose first stages are alike


@dataclass(frozen=True)
class Source:
    """Where a run may begin.

    Attributes:
        number: The place of the other run in the list of those that are to be trained.
        stages: How many first stages they have alike.
    """

    number: int
    stages: int


def stages_alike(one: Experiment, other: Experiment) -> int:
    """How many first stages of `other` may be taken over from a run of `one`.

    Both are settled.
    """
    if one.model_dump(exclude=OWN) != other.model_dump(exclude=OWN):
        return 0
    old, new, alike = stages(one), stages(other), 0
    for mine, theirs in zip(old, new[:-1], strict=False):
        if mine != theirs:
            break
        alike += 1
    return next((n for n in range(alike, 0, -1) if _begins_alike(other, old, new, n - 1)), 0)


def _begins_alike(exp: Experiment, old: Sequence[Stage], new: Sequence[Stage], number: int) -> bool:
    """Whether what is kept at the end of a stage is what a run of all the new stages has there."""
    try:
        return not beginnings(exp, old, new, number)
    except ExperimentError:
        return False


def sources_of(asked: Sequence[Experiment], placement: Placement) -> list[Source | None]:
    """For each experiment the earlier one that has most first stages alike; None if none has any.

    Nothing is shared where `placement.keep_stages` keeps no stage's end.
    """
    if not placement.keep_stages:
        return [None] * len(asked)
    exps = [settled(exp, placement)[0] for exp in asked]
    found: list[Source | None] = []
    for number, exp in enumerate(exps):
        before = [Source(n, stages_alike(exps[n], exp)) for n in range(number) if exps[n] != exp]
        best = max(before, key=lambda source: source.stages, default=None)
        found.append(best if best is not None and best.stages else None)
    return found


def flops_shared(exp: Experiment, count: int) -> float:
    """FLOPs of the first stages of an experiment, by arithmetic."""
    made = stages(exp)[:count]
    return sum((s.tokens or 0) * stage_flops_per_token(exp, s).total for s in made)


def alone(exp: Experiment, placement: Placement, code: Sequence[CodeFile] = ()) -> Path:
    """The folder of a run that trains all its stages itself, whether it is there or not."""
    exp, place = settled(exp, placement)
    dataset, model = dataset_of(exp, place.data_dir), model_of(exp, place.data_dir)
    return Path(place.runs_dir, run_id_of(exp, stages(exp), dataset, model, code))


def begun(
    exp: Experiment,
    placement: Placement,
    source: Run | None,
    count: int,
    code: Sequence[CodeFile] = (),
) -> Run:
    """The folder of a run: the one that is there, a branch of another run, or a new one.

    Args:
        exp: What it trains.
        placement: How it is carried out.
        source: A run that has its first stages alike; None for none.
        count: How many of them.
        code: The files of code that it carries.
    """
    there = source is not None and count - 1 in kept_stages(source.path)
    if source is None or not there or is_run(alone(exp, placement, code)):
        return create_run(exp, placement, code=code)
    exp, place = settled(exp, placement)
    changes = {"curriculum": exp.curriculum, "title": exp.title}
    seen = seen_from(Path(place.runs_dir, source.id), place)
    return fork(source, count - 1, changes, seen)


def flops_saved(runs: Sequence[Run]) -> float:
    """FLOPs of the stages that runs took over from others, each run counted once."""
    saved = 0.0
    for run in {run.id: run for run in runs}.values():
        forked = run.provenance().get("forked")
        if isinstance(forked, dict):
            saved += sum(row["flops"] for row in run.plan()[: forked["after_stage"] + 1])
    return saved
