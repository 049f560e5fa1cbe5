"""YAML as an experiment is written in it: one mapping, plain values, every key once.

Tags, merge keys (`<<`) and keys given twice are refused; nothing in a file is ever executed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from stackwise.errors import ExperimentError, short

MOST_BYTES = 1 << 20  # an experiment is a page of text
MOST_VALUES = 100_000


class _Plain(yaml.SafeLoader):
    """PyYAML's safe loader, stricter: it says no instead of guessing."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values, self._sizes = 0, dict[str, int]()

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node, counted; aliases count each time for all that they repeat."""
        if self.check_event(yaml.AliasEvent):
            self._count(self._sizes.get(self.peek_event().anchor, 1))
            return super().compose_node(parent, index)
        anchor, before = self.peek_event().anchor, self._values
        self._count(1)
        node = super().compose_node(parent, index)
        if anchor is not None:
            self._sizes[anchor] = self._values - before
        return node

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            raise yaml.YAMLError(f"holds over {MOST_VALUES} values, those that aliases repeat "
                                 "counted each time")  # fmt: skip

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set[str]()
        for key, _ in getattr(node, "value", []):
            if key.tag == "tag:yaml.org,2002:merge":
                self._refuse(key, "merge keys (<<) are not read; write the keys out")
            if key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key.value, str) else f"a {key.id}"
                self._refuse(key, f"the key {short(shown)} is not text; put it in quotes")
            if key.value in seen:
                self._refuse(key, f"the key {short(key.value)} is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_tagged(self, node: Any) -> Any:
        self._refuse(node, f"the tag {short(node.tag)} is not read; write plain values")

    def construct_flat(self, node: Any) -> Any:
        """A mapping, made whole at once, so that its own aliases cannot contain it."""
        return self.construct_mapping(node, deep=True)

    @staticmethod
    def _refuse(node: Any, why: str) -> None:
        raise yaml.constructor.ConstructorError(None, None, why, node.start_mark)


INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


def _resolvers() -> dict[str, list[Any]]:
    """PyYAML's own, with numbers as YAML 1.2 writes them: 010 is no octal and 1:30 no minutes.

    What is no number there is text, and text that is a decimal number is one where one is read.
    """
    kept = {
        first: [(tag, rule) for tag, rule in rules if tag not in (INT, FLOAT)]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    whole = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+")
    fraction = re.compile(
        r"[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9_]+(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    )
    for tag, rule in ((INT, whole), (FLOAT, fraction)):
        for first in "-+.0123456789":
            kept.setdefault(first, []).append((tag, re.compile(f"(?:{rule.pattern})$")))
    return kept


_Plain.yaml_implicit_resolvers = _resolvers()
_Plain.add_constructor("tag:yaml.org,2002:map", _Plain.construct_flat)
for name in ("binary", "set", "omap", "pairs"):
    _Plain.add_constructor(f"tag:yaml.org,2002:{name}", _Plain.construct_tagged)
_Plain.add_constructor(None, _Plain.construct_tagged)


def read_mapping(text: str, source: str, what: str = "an experiment") -> dict[str, Any]:
    """Parse YAML that must be one mapping.

    Args:
        text: YAML.
        source: What to call it in errors.
        what: What it holds, for the same.

    Raises:
        ExperimentError: If it is not YAML (with line and column) or not a mapping.
    """
    try:
        values = read_value(text)
    except yaml.MarkedYAMLError as error:
        raise ExperimentError(f"{source}: {marked(error)}") from None
    except (yaml.YAMLError, ValueError) as error:
        why = str(error).splitlines()[0]
        if "integer string conversion" in why:  # Python's advice is no way out
            why = "a number of over 4300 digits"
        raise ExperimentError(f"{source}: is not YAML: {why}") from None
    except RecursionError:
        raise ExperimentError(f"{source}: is nested too deeply") from None
    if values is None:
        raise ExperimentError(f"{source}: is empty; {what} is a mapping of keys")
    if not isinstance(values, dict):
        raise ExperimentError(f"{source}: {short(values)} is not a mapping of keys")
    return values


def marked(error: yaml.MarkedYAMLError) -> str:
    """What PyYAML says, with line and column."""
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{where}{error.problem or error.context}"


def read_value(text: str) -> Any:
    """Parse YAML; its errors are PyYAML's own, or `ValueError` and `RecursionError` from below."""
    return yaml.load(text, Loader=_Plain)


def read_text(path: str | Path, *, links: bool = True) -> str:
    """The text of a file.

    Args:
        path: The file.
        links: Whether it may be a link: in a run's folder, which may be a stranger's, it may not.

    Raises:
        ExperimentError: If it is no file, too long, or not UTF-8.
    """
    path = Path(path)
    if not links and path.is_symlink():
        raise ExperimentError(f"{path}: is a link, which is not followed; put the file there")
    if os.path.isdir(path):
        raise ExperimentError(f"{path}: is a folder; name a YAML file")
    if not os.path.isfile(path):  # False where the system will not say, as of a name too long
        raise ExperimentError(f"{path}: no such file")
    try:
        with path.open("rb") as file:  # a pipe is no file, so that this ends
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ExperimentError(f"{path}: is over {MOST_BYTES} bytes long; name a YAML file")
        return content.decode("utf-8")
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ExperimentError(
            f"{path}: byte {error.start} is not UTF-8 text; save the file as UTF-8"
        ) from None
