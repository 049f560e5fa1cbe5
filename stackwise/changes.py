"""What `replace` and `key=value` mean: changes laid over a value, as input for its validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from stackwise.choice import BARE, Params, unfolded
from stackwise.errors import ExperimentError, short

MOST_DOTS = 16  # of a key; each is a level down


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """`{"optim.lr": 1}` as `{"optim": {"lr": 1}}`; of a key given twice the later one counts.

    A bare value stays beside the keys below it: `attention=mla`, `attention.kv_rank=8`.

    Raises:
        ExperimentError: If a key has more dots than any that there is.
    """
    out: dict[str, Any] = {}
    for key, value in changes.items():
        if key.count(".") > MOST_DOTS:
            raise ExperimentError(f"{short(key)}: unknown key; it has over {MOST_DOTS} dots")
        head, dot, rest = key.partition(".")
        out[head] = (
            _over(out[head], _inner(dot, rest, value)) if head in out else _inner(dot, rest, value)
        )
    return out


def _inner(dot: str, rest: str, value: Any) -> Any:
    return nested({rest: value}) if dot else value


def _over(old: Any, new: Any) -> Any:
    """Two changes of one key, the later one last."""
    if not isinstance(old, Mapping) and not isinstance(new, Mapping):
        return new
    first = old if isinstance(old, Mapping) else {BARE: old}
    second = new if isinstance(new, Mapping) else {BARE: new}
    return {
        **first,
        **{key: _over(first[key], v) if key in first else v for key, v in second.items()},
    }


def merged(model: BaseModel, change: Any) -> Any:
    """`model` as input for validation, with `change` laid over it.

    A bare value selects a kind or sets a section's first field; a mapping changes only the keys it
    names, and a section that says so (`merges`) is replaced whole.
    """
    if isinstance(change, BaseModel):
        return change
    if isinstance(model, Params):
        return _other_params(model, change)
    if change is None or isinstance(change, list | tuple | set):
        return change
    change = unfolded(type(model), change)
    if not getattr(model, "merges", True):
        return dict(change)
    out: dict[str, Any] = {name: getattr(model, name) for name in type(model).model_fields}
    for key, value in change.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, BaseModel) else value
    return out


def _other_params(model: Params, change: Any) -> Any:
    """Parameters of the same kind are kept; those of another are dropped."""
    if not isinstance(change, Mapping) or BARE in change:
        return change
    kind = model.selector()
    if change.get(kind, model.choice) != model.choice:
        return dict(change)
    return {**model.model_dump(), **change}
