"""Whether another process knows what an experiment names.

A curriculum may live in a notebook cell, since a run executes its list of stages. Any other kind is
looked up by name where the run trains, and is known there only if StackWise ships it, or the run
carries the file that brings it (`own_code.py`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from stackwise.errors import ExperimentError, Problem
from stackwise.own_code import brought_by, foreign_kinds

if TYPE_CHECKING:
    from stackwise.config import Experiment


def check_known_elsewhere(exp: Experiment, carried: Collection[str] = ()) -> None:
    """Raise if a process of its own could not train an experiment.

    Args:
        exp: The experiment.
        carried: Hashes of the files of code that its run carries.

    Raises:
        ExperimentError: If it names a kind that was registered in this process alone.
    """
    problems = [
        Problem(
            key,
            f"{name!r} is known to this process alone, and a launched run has one of its own; name "
            "the file that registers it with code= (--code), or train it here with sw.train",
        )
        for key, name in foreign_kinds(exp)
        if not brought_by(key, name) & set(carried)
    ]
    if problems:
        raise ExperimentError(problems)
