"""The text of what is wrong with an experiment.

Every problem at once, one line each: the key's path, the value, the rule, the way out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from stackwise.choice import closest

RULES = {
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be over {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be under {lt}",
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "string_type": "is not text",
    "string_pattern_mismatch": "must match {pattern}",
    "literal_error": "is not one of {expected}",
    "tuple_type": "is not a list",
}


class ExperimentError(ValueError):
    """An experiment, a placement or a stage that cannot be; the message lists every problem."""


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """All problems of a validation error, one per line.

    Args:
        error: What pydantic raised.
        model: The model that was validated; unknown keys are compared with its fields.
        prefix: Path in front of every key.
    """
    lines = list(dict.fromkeys(_lines(error, model, [prefix] if prefix else [])))
    return "\n".join(lines)


def _lines(error: ValidationError, model: type[BaseModel], prefix: list[str]) -> Iterator[str]:
    unions: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        inner = item.get("ctx", {}).get("error")
        place = [*prefix, *(str(p) for p in item["loc"])]
        if isinstance(inner, ValidationError):
            yield from _lines(inner, _model_named(inner, model), place)
        elif item["type"] == "value_error":
            for line in str(inner).splitlines():
                yield _joined(place, line)
        else:
            fields, path = _resolve(model, item["loc"])
            key = ".".join([*prefix, *path])
            unions.setdefault(key, []).append(_one(item, fields))
    for key, texts in unions.items():
        yield f"{key}: {texts[0]}" if len(texts) == 1 else _either(key, texts)


def _either(key: str, texts: list[str]) -> str:
    """One line for a value that fits none of the types a key may have."""
    value = texts[0].split(" ", 1)[0]
    rules = [text.split(" ", 1)[1] for text in dict.fromkeys(texts)]
    return f"{key}: {value} {', nor '.join(rules)}" if len(rules) > 1 else f"{key}: {texts[0]}"


def _joined(place: list[str], line: str) -> str:
    """`place` before a line that starts with its own key or, in a choice's error, names itself."""
    path = ".".join(place)
    if not path or line.startswith((f"{path}:", "unknown ", f"{path}.", f"{path} ")):
        return line if not line.startswith("unknown ") else f"{path}: {line}"
    first = line.split(":", 1)[0]
    return f"{path}.{line}" if first.replace("_", "").replace(", ", "").isalnum() else f"{path}: {line}"


def _resolve(model: type[BaseModel], loc: tuple[Any, ...]) -> tuple[Mapping[str, Any], list[str]]:
    """The fields of the model that holds the last key of `loc`, and the path without union tags."""
    fields: Mapping[str, Any] = model.model_fields
    path: list[str] = []
    for part in loc:
        if isinstance(part, int) or part in fields or part == loc[-1] == loc[0]:
            path.append(str(part))
        elif path and not _is_tag(str(part)):
            path.append(str(part))
        if isinstance(part, str) and part in fields:
            inner = fields[part].annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                fields = inner.model_fields
    return fields, path


def _is_tag(part: str) -> bool:
    return part in ("int", "float", "str", "bool", "none") or "[" in part


def _one(item: Any, fields: Mapping[str, Any]) -> str:
    kind, value = item["type"], item.get("input")
    if kind == "extra_forbidden":
        return f"unknown key{closest(str(item['loc'][-1]), fields)}"
    if kind == "missing":
        return "is missing"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{_short(value)} is not a mapping of keys"
    rule = RULES.get(kind)
    text = rule.format(**item.get("ctx", {})) if rule else item["msg"]
    return f"{_short(value)} {text}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _model_named(error: ValidationError, default: type[BaseModel]) -> type[BaseModel]:
    """The model that an inner error is about."""
    known: dict[str, type[BaseModel]] = {}
    queue = list(BaseModel.__subclasses__())
    while queue:
        cls = queue.pop()
        known.setdefault(cls.__name__, cls)
        queue.extend(cls.__subclasses__())
    return known.get(error.title, default)
