"""The text of what is wrong with an experiment.

Every problem at once, one line each: the key's path, the value, the rule, the way out. Each model
says its own problems (`choice.Checked`); the model that holds it puts the key in front.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple

from pydantic import ValidationError

from stackwise.versions import Kind, VersionError, upgraded

RULES = {
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be over {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be under {lt}",
    "int_parsing": "is not a whole number",
    "int_parsing_size": "is not a whole number of usual size",
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "string_type": "is not text",
    "string_unicode": "holds half a character, which is no text",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have {max_length} characters or fewer",
    "literal_error": "is not one of {expected}",
    "tuple_type": "is not a list",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have {max_length} entries or fewer",
    "model_type": "is not a mapping of keys",
}
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 60
SHORT.maxlevel = 2
LONGEST = 4000  # characters of a problem; those that list every name there is take some hundreds
MOST_ALIKE = 100  # unknown keys of a mapping, and wrong entries of a list, that are said one by one


class Problem(NamedTuple):
    """One line: where, and what."""

    path: str
    text: str

    def __str__(self) -> str:
        said = f"{self.path}: {self.text}" if self.path else self.text
        return said if len(said) <= LONGEST else f"{said[:LONGEST]}..."

    def under(self, key: str) -> Problem:
        """The same, seen from the model that holds it at `key`."""
        dot = "." if key and self.path and not self.path.startswith("[") else ""
        return Problem(f"{key}{dot}{self.path}", self.text)


class ExperimentError(ValueError):
    """An experiment, a placement or a stage that cannot be; the message lists every problem.

    Args:
        problems: What is wrong; text counts as one problem per line, without paths.
        source: The file that says it, for the message.

    Attributes:
        problems: The same, one by one.
    """

    def __init__(self, problems: str | Iterable[Problem], *, source: str = "") -> None:
        if isinstance(problems, str):
            problems = [Problem("", line) for line in problems.splitlines()]
        self.problems = tuple(dict.fromkeys(problems))
        where = f"{source}: " if source else ""
        super().__init__("\n".join(f"{where}{problem}" for problem in self.problems))

    def under(self, key: str) -> ExperimentError:
        """The same, seen from the value that holds it at `key`."""
        return ExperimentError([problem.under(key) for problem in self.problems])


class DoesNotFit(ExperimentError):
    """What was asked for takes more memory than there is."""


class FolderError(ExperimentError):
    """A folder that was named has no room for what is to be written, or may not be written to."""


class TrustError(ExperimentError):
    """A run, or a study, carries code that its user has not said to trust; nothing was imported."""


def older_read(kind: Kind, values: Mapping[str, Any]) -> dict[str, Any]:
    """What an older version of StackWise wrote, as this one writes it.

    Raises:
        ExperimentError: If it is of a newer one.
    """
    try:
        return upgraded(kind, values)
    except VersionError as error:
        key, _, text = str(error).partition(": ")
        raise ExperimentError([Problem(key, text)]) from None


@contextmanager
def said_in(source: str) -> Iterator[None]:
    """Name the file in the errors of what it says."""
    try:
        yield
    except ExperimentError as error:
        raise ExperimentError(error.problems, source=source) from None


def problems_in(error: ValidationError, known: Iterable[str], owner: str = "") -> list[Problem]:
    """What a validation error says, as problems of the model that raised it.

    Args:
        error: Of one model; what is below it arrives as `ExperimentError`.
        known: The model's keys.
        owner: What to call it where it has no such key: ` of mla`.
    """
    fields, found, unknown, told = list(known), list[Problem](), 0, set[str]()
    items = error.errors(include_url=False)
    for loc, group in groupby(items, key=lambda item: item["loc"][:1]):
        key = "".join(str(part) for part in loc)
        if not loc:
            found += [p for item in group for p in _raised(item, fields)]
        elif key not in fields:
            unknown += 1
            if unknown > MOST_ALIKE:
                continue
            name = key if key.isidentifier() and len(key) <= SHORT.maxstring else short(key)
            near = near_names(key, fields)
            way_out = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(fields)}"
            text = f"unknown key{owner}; {way_out}"
            again = not near and text in told
            told.add(text)
            found.append(Problem(name, f"unknown key{owner}; known: see above" if again else text))
        else:
            found += _of_field(key, list(group))
    if unknown > MOST_ALIKE:
        found.append(Problem("", f"{unknown - MOST_ALIKE} more unknown keys{owner}"))
    return found


def _of_field(key: str, items: list[Any]) -> Iterator[Problem]:
    """A key's problems; the types that it may have are branches, of which the deepest counts."""
    places = ["".join(f"[{p}]" for p in item["loc"] if isinstance(p, int)) for item in items]
    deepest = [pair for pair in zip(places, items, strict=True) if pair[0]]
    pairs = deepest or list(zip(places, items, strict=True))
    by_place: dict[str, list[Any]] = {}
    for place, item in pairs:
        by_place.setdefault(place, []).append(item)
    for place, here in [*by_place.items()][:MOST_ALIKE]:
        inner = [p for item in here for p in _raised(item, [])]
        yield from (problem.under(f"{key}{place}") for problem in inner)
        plain = [item for item in here if "error" not in item.get("ctx", {})]
        if plain:
            yield Problem(f"{key}{place}", _text(plain))
    if len(by_place) > MOST_ALIKE:
        yield Problem(key, f"{len(by_place) - MOST_ALIKE} more of its entries are wrong")


def _raised(item: Any, fields: list[str]) -> Iterator[Problem]:
    """Problems that a validator raised: its own text, or those of a model further down.

    A line that starts with one of the model's keys, as in `heads: ...`, is about that key.
    """
    error = item.get("ctx", {}).get("error")
    if isinstance(error, ExperimentError):
        yield from error.problems
    elif error is not None:
        for line in (str(error) or "cannot be").splitlines():
            match = re.match(r"(\w+)([\w.\[\]]*): (.*)", line)
            known = match is not None and match[1] in fields
            yield Problem(match[1] + match[2], match[3]) if match and known else Problem("", line)


def _text(items: list[Any]) -> str:
    """The value and the rules it breaks: more than one where a key may have several types."""
    value, kinds = items[0].get("input"), [item["type"] for item in items]
    if "missing" in kinds:
        return "is missing; give it"
    if value is None:
        inside = isinstance(items[0]["loc"][-1], int)
        return "is empty; give a value" + ("" if inside else ", or leave the key out")
    rules = dict.fromkeys(_rule(item) for item in items)
    hints = [hint for item in items if isinstance(value, str) for hint in _hints(item, value)]
    return "".join([f"{short(value)} {', and '.join(rules)}", *hints])


def _rule(item: Any) -> str:
    context = item.get("ctx", {})
    shown = {key: f"{v:g}" if isinstance(v, float) else v for key, v in context.items()}
    if item["type"] == "literal_error" and " or " not in shown["expected"]:
        return f"must be {shown['expected']}"
    return RULES.get(item["type"], item["msg"]).format(**shown)


def _hints(item: Any, value: str) -> list[str]:
    expected = re.findall(r"'([^']*)'", str(item.get("ctx", {}).get("expected", "")))
    return [f"; did you mean {name!r}?" for name in near_names(value, expected)]


def closest(name: str, known: Iterable[str]) -> str:
    """The tail of an error about an unknown name: the nearest one, and all that there are."""
    names = [str(name) for name in known]
    hint = "".join(f" did you mean {near!r}?" for near in near_names(name, names))
    return f";{hint} known: {', '.join(names)}"


def near_names(name: str, known: list[str]) -> list[str]:
    """The one known name that a name is a slip or the beginning of, or none."""
    close = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.65)
    begun = [other for other in known if len(name) > 2 and other.startswith(name)]
    return close or begun[:1]


def is_text(value: Any) -> bool:
    """Whether a value is text that UTF-8 can hold, without half of a character."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def short(value: Any) -> str:
    """A value on one line, cut where it is long."""
    try:
        text = SHORT.repr(value)
    except ValueError:  # Python writes no whole number of over 4300 digits
        return "a number of over 4300 digits"
    return text if isinstance(value, str) else " ".join(text.split())
