"""A choice is a pair: the parameters a kind takes, and the function that builds it.

Registries (`CURRICULA`, `ATTENTION`, `SCHEDULES`, `CORPORA`, ...) are plain dicts from a name to
a `Choice`. This file holds the pair, the look-up with its error, and the parsing that turns
`"mla"`, `"text:PATH"` or `{"kind": "mla", "kv_rank": 32}` into validated parameters.
It knows nothing of any particular kind; the sections of an experiment are in `config.py`, the text
of errors in `errors.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, Self, cast, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from stackwise.errors import ExperimentError, Problem, closest, is_text, problems_in, short

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")  # fits into a run's id
BARE = "="  # where a bare value stands beside other keys: attention=mla attention.kv_rank=8


class Checked(BaseModel):
    """A frozen value without unknown keys, which says everything that is wrong with it at once.

    Numbers may be written as text, since YAML reads `3e-4` as text; true and false are no numbers.

    Raises:
        ExperimentError: With one line per problem.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    newer: ClassVar[frozenset[str]] = frozenset()  # keys left out of hashes at their defaults

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise self._said(error) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise ExperimentError(
            f"{name}: cannot be set, since the value is frozen; make another with replace"
        )

    def identity(self) -> dict[str, Any]:
        """What a hash of this value is made of, as JSON holds it.

        A key of `newer` counts only where it is not at its default: so what was written down before
        there was such a key keeps its hash.
        """
        found, fields = self.model_dump(mode="json"), type(self).model_fields
        for key in fields:
            value = getattr(self, key)
            if key in self.newer and value == fields[key].default:
                found.pop(key, None)
            elif isinstance(value, Checked) and key in found:
                found[key] = value.identity()
        return found

    @classmethod
    def model_validate(cls, obj: Any, *args: Any, **options: Any) -> Self:
        """Pydantic's own, with errors in words of ours."""
        try:
            return super().model_validate(obj, *args, **options)
        except ValidationError as error:
            raise cls._said(error) from None

    @classmethod
    def _said(cls, error: ValidationError) -> ExperimentError:
        return ExperimentError(problems_in(error, cls.model_fields))

    @model_validator(mode="wrap")
    @classmethod
    def _from_any(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        value = cls._unfolded(value)
        odd = [key for key in value if not is_text(key)] if is_mapping(value) else []
        if odd:
            raise ValueError(f"{short(odd[0])} is not a key; keys are text")
        return handler(value)

    @classmethod
    def _unfolded(cls, value: Any) -> Any:
        """What a user wrote, as a mapping where it is one written short."""
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, set | frozenset):
            raise ValueError("a set has no order; give a list")
        types = _types(cls.model_fields[str(info.field_name)].annotation)
        if types == [bool] and not isinstance(value, bool | None):
            raise ValueError(f"{short(value)} is neither true nor false")
        entries = value if isinstance(value, list | tuple) else [value]
        if not any(isinstance(entry, bool | str) for entry in entries):
            return value
        flags = [entry for entry in entries if isinstance(entry, bool)]
        if flags and bool not in types and (int in types or float in types):
            raise ValueError(f"{flags[0]} is not a number")
        if isinstance(value, str) and int in types and str not in types:
            return _whole(value)
        return value


class Section(Checked):
    """A part of an experiment. A bare value sets its first field."""

    @classmethod
    def _unfolded(cls, value: Any) -> Any:
        return unfolded(cls, value)


class Params(Checked):
    """Parameters of one kind. The first field is its selector, a `Literal` with its own name."""

    @classmethod
    def _unfolded(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        names = list(cls.model_fields)
        first, colon, second = value.partition(":")
        if not colon:
            return {names[0]: value}
        if len(names) == 1:
            raise ValueError(f"{short(value)} gives a value, but {first} takes none")
        if not second:
            raise ValueError(
                f"{short(value)} ends with its colon; write {first}:{names[1].upper()}"
            )
        return {names[0]: first, names[1]: second}

    @classmethod
    def _said(cls, error: ValidationError) -> ExperimentError:
        owner = cls.model_fields[cls.selector()].default
        return ExperimentError(problems_in(error, cls.model_fields, f" of {owner}"))

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


class Unknown(Params):
    """Parameters of a kind that this process does not know, as a finished run may name one."""

    model_config = ConfigDict(extra="allow")

    name: str


def unread(section: Checked, key: str, why: str) -> Iterator[str]:
    """What is wrong with a key that nothing reads because of `why`: that it is not at its default.

    A default cannot be told from the same value given, and changes nothing either way.
    """
    value, usual = getattr(section, key), type(section).model_fields[key].default
    if value != usual:
        way_out = "leave it empty" if usual is None else f"leave it at {usual}"
        yield f"{key}: {short(value)} is not read with {why}; {way_out}"


@dataclass(frozen=True)
class Choice:
    """One entry of a registry.

    Attributes:
        build: The function that builds the thing.
        params: What it takes; None for a kind without parameters.

    Raises:
        ExperimentError: If `params` is no class of parameters.
    """

    build: Callable[..., Any]
    params: type[Params] | None = None

    def __post_init__(self) -> None:
        good = isinstance(self.params, type) and issubclass(self.params, Params)
        if self.params is not None and not good:
            raise ExperimentError(
                f"params: {short(self.params)} is no class of parameters; derive one from sw.Params"
            )


def find(registry: Mapping[str, Any], name: str, what: str) -> Choice:
    """The entry called `name`.

    A plain function in the registry counts as a choice without parameters.

    Raises:
        ExperimentError: If there is none; the message lists the known names and the closest.
    """
    if name not in registry:
        raise ExperimentError(f"unknown {what} {short(name)}{closest(name, registry)}")
    entry = registry[name]
    return entry if isinstance(entry, Choice) else Choice(entry)


def params_of(registry: Mapping[str, Any], name: str, what: str, selector: str) -> type[Params]:
    """The parameter model of `name`, made on the spot for a kind that declares none."""
    return find(registry, name, what).params or _no_params(name, selector)


@cache
def _no_params(name: str, selector: str) -> type[Params]:
    fields: dict[str, Any] = {selector: (Literal[name], name)}
    return create_model(f"{name}_params", __base__=Params, **fields)


def parse(registry: Mapping[str, Any], value: Any, what: str, selector: str) -> Params:
    """Turn what a user wrote into the validated parameters of one kind.

    Args:
        registry: Name to `Choice`.
        value: A name, `"name:value"`, a mapping with the selector, or parameters already built.
        what: What is chosen, for messages.
        selector: The mapping's key that holds the name (`kind` or `name`).

    Raises:
        ExperimentError: If the name is unknown or missing, or the parameters are wrong.
    """
    known = f"known: {', '.join(map(str, registry))}"
    asked = value.get(selector) if isinstance(value, Mapping) else value
    if isinstance(asked, Hashable) and asked in registry:
        _check_name(asked)
    if isinstance(value, Params):
        if not isinstance(value, Unknown) and not _belongs(registry, value, what, selector):
            raise ExperimentError(f"{short(value)} is of another registry; {known}")
        return value
    if isinstance(value, str):
        name = value.partition(":")[0]
        return params_of(registry, name, what, selector).model_validate(value)
    if not isinstance(value, Mapping):
        shown = "is empty" if value is None else f"{short(value)} is neither a name nor a mapping"
        raise ExperimentError(f"{shown}; {known}")
    if BARE in value:
        rest = {key: item for key, item in value.items() if key != BARE}
        return parse(
            registry, {**_spread(registry, value[BARE], what, selector), **rest}, what, selector
        )
    if selector not in value:
        raise ExperimentError(f"needs {selector!r}; {known}")
    name = value[selector]
    if not isinstance(name, str):
        raise ExperimentError([Problem(selector, f"{short(name)} is not a name; {known}")])
    return params_of(registry, name, what, selector).model_validate(dict(value))


def _check_name(name: Any) -> None:
    """Raise if what a registry holds could not be said as `key=value` or stand in a run's id."""
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ExperimentError(
            f"{short(name)} cannot be the name of an entry; name it with letters, digits, '.', '_' "
            "and '-', 48 at most, the first a letter or digit"
        )


def _belongs(registry: Mapping[str, Any], value: Params, what: str, selector: str) -> bool:
    known = value.choice in registry
    return known and isinstance(value, params_of(registry, value.choice, what, selector))


def _spread(registry: Mapping[str, Any], value: Any, what: str, selector: str) -> dict[str, Any]:
    """A bare value as a mapping: `"text:PATH"` as `{"kind": "text", "path": PATH}`."""
    name = str(value).partition(":")[0]
    return dict(params_of(registry, name, what, selector)._unfolded(str(value)))


def unfolded(section: type[BaseModel], value: Any) -> Any:
    """What a user wrote for a section, as a mapping where a bare value sets the first field.

    Raises:
        ValueError: If it is empty or a list where the first field is neither.
    """
    first, field = next(iter(section.model_fields.items()))
    if isinstance(value, Mapping) and BARE in value:
        rest = {key: item for key, item in value.items() if key != BARE}
        return {first: value[BARE], **rest}
    if isinstance(value, Mapping | BaseModel):
        return value
    if value is None and field.default is not None:
        raise ValueError("is empty; give its keys, or leave it out")
    if isinstance(value, list | tuple | set):
        raise ValueError(f"{short(value)} is a list; give a mapping of keys, or {first} alone")
    return {first: value}


def is_mapping(value: Any) -> bool:
    """Whether a value has keys."""
    return isinstance(value, Mapping)


def _types(annotation: Any) -> list[Any]:
    """The plain types in an annotation: [int, NoneType] of `tuple[int | None, ...]`."""
    inner = get_args(annotation)
    return [kind for part in inner for kind in _types(part)] if inner else [annotation]


def _whole(text: str) -> Any:
    """`"1e6"` as 1000000; other text as it is."""
    if not set(text) & set(".eE"):
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else text
