"""Whether another process knows what an experiment names.

A curriculum may live in a notebook cell, since a run executes its list of stages. Any other kind is
looked up by name where the run trains, and is known there only if StackWise ships it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stackwise.choice import find
from stackwise.data.corpora import CORPORA
from stackwise.data.tokenizer import TOKENIZERS
from stackwise.errors import ExperimentError, Problem
from stackwise.model.attention import ATTENTION
from stackwise.objective import OBJECTIVES
from stackwise.schedules import SCHEDULES

if TYPE_CHECKING:
    from stackwise.choice import Params
    from stackwise.config import Experiment


def check_known_elsewhere(exp: Experiment) -> None:
    """Raise if a process of its own could not train an experiment.

    Raises:
        ExperimentError: If it names a kind that was registered in this process alone.
    """
    named: list[tuple[str, Mapping[str, Any], Params | None]] = [
        ("attention", ATTENTION, exp.attention),
        ("objective", OBJECTIVES, exp.objective),
        ("masking.schedule", SCHEDULES, exp.masking.schedule),
        ("data.corpus", CORPORA, exp.data.corpus),
        *(("data.corpus", CORPORA, each) for each in getattr(exp.data.corpus, "corpora", ())),
        ("data.tokenizer", TOKENIZERS, exp.data.tokenizer),
    ]
    problems = [
        Problem(
            key,
            f"{params.choice!r} is known to this process alone, and a launched run has one of its "
            "own; train it here with sw.train",
        )
        for key, registry, params in named
        if params is not None and not _is_shipped(registry, params.choice, key)
    ]
    if problems:
        raise ExperimentError(problems)


def _is_shipped(registry: Mapping[str, Any], name: str, what: str) -> bool:
    """Whether a kind's function is one of StackWise's own."""
    return str(find(registry, name, what).build.__module__).startswith("stackwise.")
