"""The arms of a study: experiments under the names that tables and figures show.

What each of them may spend is in `budgets.py`; the arms that are added so that the comparison is a
fair one, in `controls.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from pydantic import BaseModel

from stackwise.config import Experiment, Placement
from stackwise.errors import ExperimentError
from stackwise.training.start import settled

MOST_ARMS = 1000
SAME_DATA = ("corpus", "tokenizer", "seq_len", "heldout_frac")


@dataclass(frozen=True)
class Arm:
    """One experiment of a study, under the name that tables and figures show."""

    name: str
    experiment: Experiment


def arms_of(
    base: Experiment, keys: Mapping[str, Sequence[Any]], more: Mapping[str, Experiment], name: str
) -> list[Arm]:
    """Every combination of the values that vary, laid over the base, and the arms beside them.

    Raises:
        ExperimentError: If there are too many, or one cannot be.
    """
    check_count(keys, more)
    named = [names_of(values) for values in keys.values()]
    made = [
        Arm(", ".join(names) or name, base.replace(**dict(zip(keys, values, strict=True))))
        for names, values in zip(product(*named), product(*keys.values()), strict=True)
    ]
    return [*made, *(Arm(name, exp) for name, exp in more.items())]


def check_count(keys: Mapping[str, Sequence[Any]], more: Mapping[str, Any]) -> None:
    """Raise if there are more arms than any study could carry out, before one is made.

    Raises:
        ExperimentError: If so.
    """
    if prod(map(len, keys.values())) + len(more) > MOST_ARMS:
        raise ExperimentError(
            f"vary and more: give over {MOST_ARMS} arms, the most of a study; make several"
        )


def check_names(arms: Sequence[Arm]) -> Iterator[str]:
    """Which names two arms have."""
    names = [arm.name for arm in arms]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"arm {name!r}: names two arms; give each a name of its own"


def check_data(arms: Sequence[Arm], placement: Placement) -> Iterator[str]:
    """Which arms would see other data than the first one, so that nothing could be compared."""
    first = arms[0]
    for arm in arms[1:]:
        for key in SAME_DATA:
            was, now = (_data(each, key, placement) for each in (first, arm))
            if was != now:
                yield (
                    f"arm {arm.name!r}: data.{key}: {now} is not {was}, that of arm "
                    f"{first.name!r}; arms that see other data cannot be compared, so make one "
                    "study for each"
                )


def _data(arm: Arm, key: str, placement: Placement) -> Any:
    """What an arm says of its data, the folder of its files aside."""
    try:
        value = getattr(settled(arm.experiment, placement)[0].data, key)
    except (ExperimentError, OSError, ValueError):  # said where the arm itself is checked
        value = getattr(arm.experiment.data, key)
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def names_of(values: Sequence[Any]) -> list[str]:
    """What to call the values of a key that varies: by kind, and by what differs within a kind."""
    short = [_kind(value) for value in values]
    named = []
    for value, name in zip(values, short, strict=True):
        alike = [_keys(v) for v, other in zip(values, short, strict=True) if other == name]
        keys = dict.fromkeys(key for other in alike for key in other)
        differing = [key for key in keys if any(o.get(key) != alike[0].get(key) for o in alike)]
        own = _keys(value)
        named.append(" ".join([name, *(f"{key}={own[key]}" for key in differing if key in own)]))
    return named


def _kind(value: Any) -> str:
    """A value's selector, or all of it."""
    keys = value.model_dump() if isinstance(value, BaseModel) else value
    if not isinstance(keys, Mapping):
        return str(value)
    selected = keys.get("name", keys.get("kind"))
    return " ".join(f"{k}={v}" for k, v in keys.items()) if selected is None else str(selected)


def _keys(value: Any) -> dict[str, Any]:
    """What a value says beside its selector."""
    keys = value.model_dump() if isinstance(value, BaseModel) else value
    if not isinstance(keys, Mapping):
        return {}
    return {key: item for key, item in keys.items() if key not in ("name", "kind")}
