"""A choice is a pair: the parameters a kind takes, and the function that builds it.

Registries (`CURRICULA`, `ATTENTION`, `SCHEDULES`, `CORPORA`, ...) are plain dicts from a name to
a `Choice`. This file holds the pair, the look-up with its error, and the parsing that turns
`"mla"`, `"text:PATH"` or `{"kind": "mla", "kv_rank": 32}` into validated parameters.
It knows nothing of any particular kind; the sections of an experiment are in `config.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, create_model, model_validator


class Section(BaseModel):
    """A part of an experiment: frozen, no unknown keys. A bare value sets its first field."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        if isinstance(value, Mapping | BaseModel):
            return value
        return {next(iter(cls.model_fields)): value}


class Params(BaseModel):
    """Parameters of one kind. The first field is its selector, a `Literal` with its own name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        names = list(cls.model_fields)
        if ":" not in value:
            return {names[0]: value}
        if len(names) == 1:
            raise ValueError(f"{value!r}: {names[0]} {value.split(':', 1)[0]!r} takes no value")
        first, second = value.split(":", 1)
        return {names[0]: first, names[1]: second}

    @classmethod
    def selector(cls) -> str:
        """Name of the field that says which kind this is (`kind` or `name`)."""
        return next(iter(cls.model_fields))

    @property
    def choice(self) -> str:
        """The kind's name in its registry."""
        return cast(str, getattr(self, self.selector()))

    def replace(self, **changes: Any) -> Self:
        """A copy with some parameters changed, validated again."""
        return type(self).model_validate({**self.model_dump(), **changes})


@dataclass(frozen=True)
class Choice:
    """One entry of a registry.

    Attributes:
        build: The function that builds the thing.
        params: What it takes; None for a kind without parameters.
    """

    build: Callable[..., Any]
    params: type[Params] | None = None


def find(registry: Mapping[str, Any], name: str, what: str) -> Choice:
    """The entry called `name`.

    A plain function in the registry counts as a choice without parameters.

    Raises:
        ValueError: If there is none; the message lists the known names and the closest.
    """
    if name not in registry:
        raise ValueError(f"unknown {what} {name!r}{closest(name, registry)}")
    entry = registry[name]
    return entry if isinstance(entry, Choice) else Choice(entry)


def closest(name: str, known: Mapping[str, Any]) -> str:
    """The tail of an error about an unknown name: the nearest one, and all that there are."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{hint} known: {', '.join(known)}"


def params_of(registry: Mapping[str, Any], name: str, what: str, selector: str) -> type[Params]:
    """The parameter model of `name`, made on the spot for a kind that declares none."""
    params = find(registry, name, what).params
    if params is not None:
        return params
    literal: Any = Literal[name]  # type: ignore[valid-type]
    return create_model(f"{name}_params", __base__=Params, **{selector: (literal, name)})


def parse(registry: Mapping[str, Any], value: Any, what: str, selector: str) -> Params:
    """Turn what a user wrote into the validated parameters of one kind.

    Args:
        registry: Name to `Choice`.
        value: A name, `"name:value"`, a mapping with the selector, or parameters already built.
        what: The section's name, for messages.
        selector: The mapping's key that holds the name (`kind` or `name`).

    Raises:
        ValueError: If the name is unknown or missing, or `value` has another type.
    """
    if isinstance(value, Params):
        return value
    if isinstance(value, str):
        name = value.split(":", 1)[0]
        return params_of(registry, name, what, selector).model_validate(value)
    if isinstance(value, Mapping):
        if selector not in value:
            raise ValueError(f"{what} needs {selector!r}; known: {', '.join(registry)}")
        name = value[selector]
        if not isinstance(name, str):
            raise ValueError(
                f"{what}.{selector}: {name!r} is not a name; known: {', '.join(registry)}"
            )
        return params_of(registry, name, what, selector).model_validate(dict(value))
    raise ValueError(
        f"{what}: {value!r} is neither a name nor a mapping; known: {', '.join(registry)}"
    )
