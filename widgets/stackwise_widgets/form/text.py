"""A value as the text of its field, and back: what is typed means what it means in YAML.

Numbers may be written as `3e-4` or `1_000_000`, lists with or without brackets; nothing is
corrected. Text that means nothing stays text, so that the schema says what is wrong with it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackwise_widgets.form.schema import Spec

GROUPED = 1_000_000  # whole numbers from here on are written with underscores
NULL = "null"


def number_text(number: int | float) -> str:
    """A number as short as it can be and still be read back: `3.5e12`, `0.005`, `1_000_000`."""
    if isinstance(number, int):
        return f"{number:_}" if abs(number) >= GROUPED else str(number)
    text = repr(number).removesuffix(".0")
    if not math.isfinite(number):
        return text
    sign, digits, _ = Decimal(repr(number)).normalize().as_tuple()
    rest = "".join(map(str, digits[1:]))
    power = Decimal(repr(number)).adjusted()
    short = f"{'-' * sign}{digits[0]}{'.' * bool(rest)}{rest}e{power}"
    return short if "e" in text or (abs(number) >= GROUPED and len(short) < len(text)) else text


def text_of(spec: Spec, value: Any) -> str | bool:
    """What stands in the field of a value; `value` is as YAML writes it."""
    if spec.control == "checkbox":
        return value is True
    if value is None:
        return ""
    if isinstance(value, bool) or value in spec.literals:
        return value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, str) and (not spec.types or "str" in spec.types):
        return _string_text(spec, value)
    exact = "other" in spec.types or {"int", "float"} <= spec.types
    return _written(value, exact=exact)


def _string_text(spec: Spec, value: str) -> str:
    """As it is, unless it would be read as something else; then in quotes."""
    plain = value.isprintable() and value == value.strip() and value_of(spec, value) == value
    return value if plain else json.dumps(value)


def _written(value: Any, *, exact: bool) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_written(each, exact=exact) for each in value)}]"
    if isinstance(value, int | float) and not isinstance(value, bool) and not exact:
        return number_text(value)
    return json.dumps(value)


def value_of(spec: Spec, text: str | bool) -> Any:
    """What a field says, as YAML would give it to the schema; None where it is empty."""
    if isinstance(text, bool):
        return text
    if not text.strip() and (spec.empty or spec.types != {"str"}):
        return None
    for literal in spec.literals:
        if text.strip() == (literal if isinstance(literal, str) else json.dumps(literal)):
            return literal
    quoted = _json(text, '"')
    if spec.types <= {"str"}:
        return text if quoted is None else quoted
    return _value(spec, text.strip())


def _value(spec: Spec, text: str) -> Any:
    """Of a field that holds numbers, a list or anything else."""
    found = _json(text, '"[{')
    if found is not None:
        return found
    if spec.empty and text == NULL:
        return None
    if "list" in spec.types and ("," in text or text.startswith("[")):
        inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        return [_entry(spec, part.strip()) for part in _parts(inside)]
    return _entry(spec, text, outer=True)


def _parts(text: str) -> Iterator[str]:
    parts = text.split(",")
    yield from parts if parts[-1].strip() else parts[:-1]


def _entry(spec: Spec, text: str, *, outer: bool = False) -> Any:
    types = spec.types - ({"list"} if outer else set())
    if not outer and text in (NULL, ""):
        return None
    if types & {"bool", "other"} and text in ("true", "false"):
        return text == "true"
    return _number(text) if types & {"int", "float", "other"} else text


def _number(text: str) -> int | float | str:
    """A number, or the text as it is; what is beyond numbers is said of the text."""
    if not text.isascii():
        return text
    if re.fullmatch(r"[-+]?\d[\d_]*", text):
        try:
            return int(text)
        except ValueError:  # over 4300 digits, or an underscore too many
            return text
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _json(text: str, first: str) -> Any:
    """JSON that begins with one of these characters; None for anything else."""
    if not text.strip().startswith(tuple(first)):
        return None
    try:
        return json.loads(text, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError):
        return None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found
