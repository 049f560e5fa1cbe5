"""The schema of an experiment as a tree of specs, one for each knob; no widget is made here.

A spec says where a knob stands, what may be in it and how it is shown. Sections and choices hold
further specs, which `within` reads anew each time: a registry may have grown in the meantime.
What stands in the fields is in `sheet.py`; how a value is written as text in `text.py`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stackwise_widgets.form.text import number_text

Control = Literal["checkbox", "dropdown", "combobox", "text", "section", "choice"]
NOTHING = object()  # the default of a knob that has none
PLAIN = {str: "str", int: "int", float: "float", bool: "bool"}
LISTS = (list, tuple, set, frozenset, Sequence)


@dataclass(frozen=True)
class Spec:
    """One knob.

    Attributes:
        path: Its key, as YAML, the command line and the errors name it: `optim.lr`.
        control: What shows it. An optional section has a checkbox of its own, a choice a dropdown.
        description: The schema's own.
        bounds: What a value must be, in words.
        literals: The values that have names.
        types: Of what else it may be: `int`, `float`, `str`, `bool`, `list`, `other`.
        empty: Whether it may be left empty.
        default: What it is if nothing is said, as YAML writes it, or `NOTHING`.
        inside: The model of a section.
        registry: Of a choice: name to entry, read whenever it is asked.
        selector: Of a choice: the key that holds the name.
        either: Whether exactly one of the section's fields is filled.
    """

    path: str
    control: Control
    description: str = ""
    bounds: str = ""
    literals: tuple[Any, ...] = ()
    types: frozenset[str] = frozenset()
    empty: bool = False
    default: Any = NOTHING
    inside: type[BaseModel] | None = None
    registry: Mapping[str, Any] | None = field(default=None, compare=False)
    selector: str = ""
    either: bool = False

    @property
    def key(self) -> str:
        """Its name in the section that holds it."""
        return self.path.rpartition(".")[2]

    @property
    def has_field(self) -> bool:
        """Whether something is filled in at it; a section that is always there has no field."""
        return self.control != "section" or self.empty

    @property
    def options(self) -> tuple[str, ...]:
        """What a list offers for it, the empty entry not included."""
        if self.registry is not None:
            return tuple(str(name) for name in self.registry)
        return tuple(option_text(value) for value in self.literals)


def option_text(value: Any) -> str:
    """How a named value stands in a list."""
    return value if isinstance(value, str) else json.dumps(value)


@lru_cache(maxsize=512)
def specs_of(model: type[BaseModel], path: str = "") -> tuple[Spec, ...]:
    """The knobs of a model, in its order; `path` is the key that holds it."""
    dot = "." if path else ""
    return tuple(_spec(f"{path}{dot}{key}", info) for key, info in model.model_fields.items())


def within(spec: Spec, filled: str | bool) -> tuple[Spec, ...]:
    """The knobs that a section or a choice holds while `filled` stands in its own field.

    The selector of a kind is the choice's own field.
    """
    if spec.inside is not None:
        return specs_of(spec.inside, spec.path) if filled or not spec.empty else ()
    model = getattr((spec.registry or {}).get(str(filled)), "params", None)
    is_model = inspect.isclass(model) and issubclass(model, BaseModel)
    return specs_of(model, spec.path)[1:] if is_model else ()


def walk(specs: Iterable[Spec], texts: Mapping[str, str | bool]) -> Iterator[Spec]:
    """Every knob that is there while the fields hold `texts`, from the top."""
    for spec in specs:
        yield spec
        yield from walk(within(spec, texts.get(spec.path, "")), texts)


def everything(specs: Iterable[Spec]) -> Iterator[Spec]:
    """Every knob that can be there: of all kinds by now, and of sections that may be empty."""
    for spec in specs:
        yield spec
        for filled in [True] if spec.inside else spec.options if spec.registry is not None else []:
            yield from everything(within(spec, filled))


def about(spec: Spec, filled: str | bool = "") -> str:
    """What a field is for: its description, its names, its bounds, and the kind chosen."""
    kind = kind_doc(spec, str(filled)) if spec.registry is not None else ""
    names = f"{', '.join(spec.options)}, or a value" if spec.control == "combobox" else ""
    said = [spec.description, names, spec.bounds, f"{filled}: {kind}" if kind else ""]
    return "\n".join(part for part in said if part)


def kind_doc(spec: Spec, name: str) -> str:
    """The first line that a kind says of itself."""
    entry = (spec.registry or {}).get(name)
    told = [getattr(entry, "params", None), getattr(entry, "build", entry)]
    docs = [part.__doc__ for part in told if inspect.isclass(part) or inspect.isroutine(part)]
    return next((doc.strip().splitlines()[0] for doc in docs if doc and doc.strip()), "")


def _spec(path: str, info: FieldInfo) -> Spec:
    kinds, notes = _flat(info.annotation)
    notes = [*info.metadata, *notes]
    literals = [v for kind in kinds if get_origin(kind) is Literal for v in get_args(kind)]
    empty = NoneType in kinds or None in literals
    kinds = [kind for kind in kinds if kind is not NoneType and get_origin(kind) is not Literal]
    rest: dict[str, Any] = {
        "path": path,
        "description": info.description or "",
        "empty": empty,
        "default": _default(info),
    }
    chosen = next((note for note in notes if hasattr(note, "registry")), None)
    if chosen is not None:
        return Spec(control="choice", registry=chosen.registry, selector=chosen.selector, **rest)
    if len(kinds) == 1 and not literals and _is_model(kinds[0]):
        either = getattr(kinds[0], "merges", True) is False
        return Spec(control="section", inside=kinds[0], either=either, **rest)
    return _leaf(kinds, [v for v in literals if v is not None], notes, rest)


def _leaf(kinds: list[Any], literals: list[Any], notes: list[Any], rest: dict[str, Any]) -> Spec:
    types = frozenset(word for kind in kinds for word in _types(kind))
    control: Control = "text"
    if types == {"bool"}:
        if not rest["empty"] and not literals:
            return Spec(control="checkbox", types=types, **rest)
        literals, types = [*literals, True, False], frozenset()
    if literals:
        control = "combobox" if types else "dropdown"
    return Spec(
        control=control, literals=tuple(literals), types=types, bounds=_bounds(notes), **rest
    )


def _flat(annotation: Any) -> tuple[list[Any], list[Any]]:
    """The types that an annotation allows, and what is noted with them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *notes = get_args(annotation)
        kinds, found = _flat(inner)
        nested = [each for note in notes for each in getattr(note, "metadata", [note])]
        return kinds, [*found, *nested]
    if origin in (Union, UnionType):
        pairs = [_flat(arg) for arg in get_args(annotation)]
        return [k for kinds, _ in pairs for k in kinds], [n for _, found in pairs for n in found]
    alias = getattr(annotation, "__value__", None)  # `type X = ...`
    return ([annotation], []) if alias is None else _flat(alias)


def _types(kind: Any) -> set[str]:
    outer = get_origin(kind) or kind
    if outer in PLAIN:
        return {PLAIN[outer]}
    if inspect.isclass(outer) and issubclass(outer, PurePath):
        return {"str"}
    if outer in LISTS or (inspect.isclass(outer) and issubclass(outer, tuple)):
        inner = [_flat(arg)[0] for arg in get_args(kind) if arg is not ...]
        return {"list"} | {word for kinds in inner for one in kinds for word in _types(one)}
    return {"other"} if kind is not NoneType else set()


def _is_model(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, BaseModel)


def _default(info: FieldInfo) -> Any:
    """A default as YAML writes it; one that hangs on other fields counts as none."""
    if info.is_required() or info.default_factory_takes_validated_data:
        return NOTHING
    return _written(info.get_default(call_default_factory=True))


def _written(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_written(each) for each in value] if isinstance(value, list | tuple) else value


def _bounds(notes: list[Any]) -> str:
    words = {
        "ge": "{} or more",
        "gt": "over {}",
        "le": "{} or less",
        "lt": "under {}",
        "min_length": "length {} or more",
        "max_length": "length {} or less",
        "pattern": "matching {}",
    }
    found = [(name, getattr(note, name, None)) for name in words for note in notes]
    return ", ".join(
        words[name].format(number_text(value) if isinstance(value, int | float) else value)
        for name, value in found
        if value is not None
    )
