"""What the fields say, read by the schema: an experiment and a placement, or all that is wrong.

And where each problem is shown: at its field, or at the nearest one above it that is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import stackwise as sw
from stackwise.rules import check_placement

if TYPE_CHECKING:
    from stackwise.errors import Problem


class Reading(NamedTuple):
    """What a form says.

    Attributes:
        experiment: None if it cannot be.
        placement: None if it cannot be.
        problems: All that is wrong; empty if both can be, and go together.
    """

    experiment: sw.Experiment | None
    placement: sw.Placement | None
    problems: tuple[Problem, ...] = ()


def read(values: Mapping[str, Any]) -> Reading:
    """Read a mapping by the door through which YAML comes in; `placement` is a section of it."""
    values = dict(values)
    placed = values.pop("placement")
    exp, wrong = _tried(lambda: sw.Experiment(**values))
    placement, misplaced = _tried(lambda: sw.Placement(**placed))
    problems = [*wrong, *misplaced]
    if not problems:  # packages that are not here are no problem of another machine
        _, problems = _tried(lambda: check_placement(exp, placement, elsewhere=True))
    return Reading(exp, placement, tuple(problems))


def _tried(make: Callable[[], Any]) -> tuple[Any, list[Problem]]:
    try:
        return make(), []
    except sw.ExperimentError as error:
        return None, list(error.problems)
    except Exception as error:  # of a kind of the user's own: a form says it and goes on
        said = f"a kind of your own raised {type(error).__name__}: {error}"
        return None, list(sw.ExperimentError(said).problems)


def shown_at(problems: Iterable[Problem], places: Iterable[str]) -> dict[str, list[str]]:
    """The lines to show at each place; "" is the top.

    Args:
        problems: What is wrong.
        places: Paths at which something can be shown.
    """
    seen, found = set(places), dict[str, list[str]]()
    for problem in problems:
        place = problem.path
        while place and place not in seen:
            place = place[: max(place.rfind("."), place.rfind("["), 0)]
        rest = problem.path.removeprefix(place).removeprefix(".") if place else problem.path
        found.setdefault(place, []).append(f"{rest}: {problem.text}" if rest else problem.text)
    return found
