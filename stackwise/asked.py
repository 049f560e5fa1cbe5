"""What callers hand to the public functions, checked before anything is made of it.

The sections of an experiment check themselves (`config.py`); here is what stands around them: an
experiment by its preset's name, and the lists of a study.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from stackwise.errors import ExperimentError, closest, short

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement

SEEDS, MOST_SEEDS = 1 << 31, 1000


def an_experiment(value: Any, what: str = "experiment") -> Experiment:
    """An experiment as it is, or the preset of that name.

    Args:
        value: What was given.
        what: The argument's name, for messages.

    Raises:
        ExperimentError: If it is neither.
    """
    from stackwise.config import Experiment, presets

    if isinstance(value, Experiment):
        return value
    if not isinstance(value, str):
        raise ExperimentError(
            f"{what}: {short(value)} is no experiment; give sw.Experiment(...) or a preset's name"
        )
    if value not in presets():
        raise ExperimentError(
            f"{what}: {short(value)} is no preset (a file is read by sw.Experiment.load)"
            f"{closest(value, presets())}"
        )
    return Experiment.preset(value)


def a_placement(value: Any) -> Placement | None:
    """A placement as it is, or made of a device's name or a mapping of keys; None as it is.

    Raises:
        ExperimentError: If a key of it is wrong.
    """
    from stackwise.config import Placement

    return value if value is None else Placement.model_validate(value)


def usual_placement(exp: Any) -> Placement:
    """How an experiment is carried out if nothing is said: for a preset's name as its file says."""
    from stackwise.config import Placement

    return Placement.preset(exp) if isinstance(exp, str) else Placement()


def varied(vary: Any) -> dict[str, list[Any]]:
    """The keys that a study varies, each with its values.

    Raises:
        ExperimentError: If a key has no list of values, or is what all arms have alike.
    """
    found = {}
    for key, values in _mapping(vary, "vary", "{'optim.lr': [1e-3, 2e-3]}").items():
        if key.partition(".")[0] == "budget":
            raise ExperimentError(
                f"vary: {key!r} cannot vary, since every arm gets the base's budget; make one "
                "study for each budget"
            )
        if key == "seed":
            raise ExperimentError(
                f"vary: {key!r} cannot vary, since every arm runs once per seed; give seeds=(0, 1)"
            )
        if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
            raise ExperimentError(
                f"vary: {key!r}: {short(values)} is not a list of values; put it into one"
            )
        found[key] = list(values)
        if not found[key]:
            raise ExperimentError(f"vary: {key!r} has no values; give some, or leave the key out")
    return found


def seeds_of(seeds: Any) -> tuple[int, ...]:
    """The seeds of a study.

    Raises:
        ExperimentError: If they are not a list of different seeds, one or more.
    """
    if isinstance(seeds, str | Mapping) or not isinstance(seeds, Iterable):
        raise ExperimentError(f"seeds: {short(seeds)} is not a list of seeds, as (0, 1, 2) is")
    found = tuple(islice(seeds, MOST_SEEDS + 1))
    if len(found) > MOST_SEEDS:
        raise ExperimentError(f"seeds: over {MOST_SEEDS} given; eight are enough for a headline")
    if not found:
        raise ExperimentError("seeds: none given; a study needs one, and three to say anything")
    for seed in found:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEEDS:
            raise ExperimentError(
                f"seeds: {short(seed)} must be a whole number of 0 or more, under {SEEDS}"
            )
        if found.count(seed) > 1:
            raise ExperimentError(f"seeds: {seed} is given twice; each arm runs once per seed")
    return found


def arms_named(more: Any) -> dict[str, Experiment]:
    """The arms of a study beside those that vary: name to experiment, or to a preset's name.

    Raises:
        ExperimentError: If they are not that.
    """
    given = _mapping(more, "more", "{'wide': sw.Experiment(...)}")
    return {name: an_experiment(value, f"more: {name!r}") for name, value in given.items()}


def _mapping(value: Any, what: str, example: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ExperimentError(f"{what}: {short(value)} is not a mapping of names, as {example} is")
    return value
