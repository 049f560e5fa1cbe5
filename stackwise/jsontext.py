"""JSON that every reader can parse: what it has no word for becomes the nearest thing it has.

NaN and the infinities are written as the strings "NaN", "Infinity" and "-Infinity" and read back
as numbers, so a diverged loss differs from a missing one. A text that is exactly one of these
three words reads back as the number, too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from stackwise import bounded

DIGITS = re.compile(r"[0-9]{309}")
NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON text.

    Raises:
        TypeError: If it holds something that is neither a mapping, a sequence, a set, a number
            (NumPy's included), text, a truth value, nor None.
    """
    return json.dumps(_plain(value), allow_nan=False, indent=indent)


def loads(text: str) -> Any:
    """What `dumps` wrote.

    Raises:
        ValueError: If it is not JSON, is nested too deep to be ours, or holds a whole number that
            no float can.
    """
    try:
        value = parsed(text)
        if DIGITS.search(text):
            _check_sizes(value)
        return _restored(value) if '"NaN"' in text or 'Infinity"' in text else value
    except RecursionError:
        raise ValueError("nested too deep") from None


def parsed(text: str | bytes) -> Any:
    """JSON of others, as it stands.

    Raises:
        ValueError: If it is not JSON or not UTF-8, is nested too deep, or holds a number that is
            too long; a `JSONDecodeError` where a place in the text can be named.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError as error:
        if "integer string conversion" not in str(error):
            raise
        raise ValueError("a number of over 4300 digits") from None  # Python's advice is no way out


def read_mapping(path: Path) -> dict[str, Any]:
    """What `dumps` wrote of a mapping into a file; empty if it is not there or holds none."""
    try:
        found = loads(bounded.read_text(path))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _number(float(value))
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON: {value!r:.60}")


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _check_sizes(value: Any) -> None:
    """Raise ValueError at a whole number that no float can hold, on which arithmetic would end."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_sizes(item)
    elif isinstance(value, int):
        try:
            float(value)
        except OverflowError:
            raise ValueError("a number of over 308 digits") from None


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _restored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item) for item in value]
    return NUMBERS.get(value, value) if isinstance(value, str) else value
