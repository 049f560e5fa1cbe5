"""What Design shows of an experiment, worked out apart from any widget: its stages, plan, pictures.

Each picture is a function of a `Question`; what cannot be worked out is said where the picture
would be. None of them changes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stackwise as sw
from stackwise.data.errors import DataError
from stackwise.data.tokenizer import load_tokenizer
from stackwise_widgets.views import (
    attention_pattern_html,
    grid_html,
    mask_preview_html,
    plan_html,
    plan_summary,
)
from stackwise_widgets.views.markup import escaped

if TYPE_CHECKING:
    from stackwise.data.tokenizer import Tokenizer

NEAR = ("kjv", "text", "jsonl", "parquet", "markov", "pcfg")  # corpora that are on this machine
MISSING = (DataError, sw.ExperimentError, OSError)


@dataclass(frozen=True)
class Question:
    """What is asked: an experiment, how and where it is carried out, and a text to mask."""

    experiment: sw.Experiment
    placement: sw.Placement
    hardware: str
    text: str


@dataclass(frozen=True)
class Answer:
    """The stages and the plan of a question, or why there are none.

    Attributes:
        question: What was asked.
        plan: The plan; None if something is wrong.
        problems: What is wrong with the stages, or with how they are carried out.
    """

    question: Question
    plan: sw.Plan | None
    problems: tuple[Any, ...] = ()

    @property
    def summary(self) -> str:
        """The plan in one line; what is wrong, if something is."""
        if self.plan is not None:
            return plan_summary(self.plan)
        return "; ".join(map(str, self.problems))


def answer(question: Question) -> Answer:
    """Plan what is asked; what to change, if it does not fit, is worked out with it."""
    try:
        found = sw.plan(question.experiment, question.placement, hardware=question.hardware)
    except sw.ExperimentError as error:
        return Answer(question, None, error.problems)
    return Answer(question, found)


def grid_of(found: Answer) -> str:
    """Stages x stacks."""
    assert found.plan is not None
    plan = found.plan
    return grid_html(plan.experiment, plan.placement, plan.needs.made, plan.rows)


def plan_of(found: Answer) -> str:
    """Memory by stage, and all else that it takes."""
    assert found.plan is not None
    return plan_html(found.plan)


def masks_of(found: Answer) -> str:
    """The text under the masking schedule, at three noise levels."""
    exp, place = found.question.experiment, found.question.placement
    tokenizer, note = tokenizer_for(exp, place.data_dir)
    if found.plan is not None:  # a budget that is a time in tokens
        exp = found.plan.experiment
    picture = mask_preview_html(exp, found.question.text, tokenizer=tokenizer)
    return picture if note is None else f"{picture}<p class='sw-quiet'>{escaped(note)}</p>"


def attention_of(found: Answer) -> str:
    """Which position sees which."""
    return attention_pattern_html(found.question.experiment)


PICTURES: dict[str, Callable[[Answer], str]] = {
    "Stages": grid_of,
    "Plan": plan_of,
    "Masks": masks_of,
    "Attention": attention_of,
}


def tokenizer_for(exp: sw.Experiment, data_dir: str) -> tuple[Tokenizer, str | None]:
    """The experiment's tokenizer if it is at hand, else bytes and why.

    One that has to be trained is, if its text lies on this machine; that is kept for the run.
    """
    try:
        return _tokenizer(exp.data.tokenizer, exp.data.corpus, data_dir), None
    except MISSING as error:
        why = f"shown as bytes, since the tokenizer is not at hand: {error}"
        return load_tokenizer(sw.Experiment().data.tokenizer), why


@lru_cache(maxsize=8)
def _tokenizer(tokenizer: sw.Params, corpus: sw.Params, data_dir: str) -> Tokenizer:
    if tokenizer.choice != "bpe":
        return load_tokenizer(tokenizer, Path(data_dir))
    if corpus.choice not in NEAR:
        raise DataError(f"it is trained as the run opens {corpus.choice}")
    return sw.open_dataset(corpus, tokenizer, data_dir=data_dir).tokenizer
