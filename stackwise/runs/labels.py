"""What people say of a run: its name, a note, tags; labels.json, which decides nothing.

The file may come from a stranger: what could not have been written here is cut, or left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stackwise.atomic import write_text
from stackwise.jsontext import dumps, read_mapping
from stackwise.printing import is_prose, prints

LABELS = "labels.json"
LONGEST = {"name": 80, "note": 10_000, "tag": 40}
MOST_TAGS = 100


@dataclass(frozen=True)
class Labels:
    """What a run is called.

    Attributes:
        name: In lists; empty: its id.
        note: Any text.
        tags: Words to group runs by, each once, in order.
    """

    name: str = ""
    note: str = ""
    tags: tuple[str, ...] = ()


def read_labels(folder: Path) -> Labels:
    """A run's labels; none where the file is not there or cannot be read."""
    found = read_mapping(folder / LABELS)
    listed = found.get("tags")
    tags = [_cut("tag", tag) for tag in listed[:MOST_TAGS]] if isinstance(listed, list) else []
    return Labels(_cut("name", found.get("name")), _cut("note", found.get("note")), _once(tags))


def write_labels(
    folder: Path,
    *,
    name: str | None = None,
    note: str | None = None,
    tags: Iterable[str] | None = None,
) -> Labels:
    """Change a run's labels; what is None stays as it is, what is empty goes.

    Raises:
        ValueError: If one is no text, is too long, or holds characters that do not print.
        OSError: If the file cannot be written.
    """
    labels = read_labels(folder)
    if name is not None:
        labels = replace(labels, name=_line("name", name))
    if note is not None:
        labels = replace(labels, note=_prose("note", note))
    if tags is not None:
        labels = replace(labels, tags=_tags(tags))
    write_text(folder / LABELS, dumps(asdict(labels), indent=1))
    return labels


def _tags(tags: Any) -> tuple[str, ...]:
    if not isinstance(tags, Iterable):
        raise ValueError(f"tags: {tags!r:.40} is no list of words")
    found = _once(_line("tag", word) for word in ((tags,) if isinstance(tags, str) else tags))
    if len(found) > MOST_TAGS:
        raise ValueError(f"tags: there are {len(found)}, and {MOST_TAGS} are allowed; drop some")
    return found


def _once(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, words)))


def _line(what: str, text: Any) -> str:
    text = _text(what, text).strip()
    if not all(map(prints, text)):
        raise _unprintable(what, text)
    return _short(what, text)


def _prose(what: str, text: Any) -> str:
    """A text of several lines, without what is seen in none: a note may be pasted from anywhere."""
    text = _text(what, text).replace("\r\n", "\n")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _unprintable(what, text)
    return _short(what, "".join(filter(is_prose, text)))


def _text(what: str, text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{what}: {text!r:.40} is no text; put it in quotes")
    return text


def _unprintable(what: str, text: str) -> ValueError:
    return ValueError(f"{what}: {text[:40]!r} holds characters that do not print; leave them out")


def _short(what: str, text: str) -> str:
    if len(text) > LONGEST[what]:
        raise ValueError(
            f"{what}: has {len(text)} characters, and {LONGEST[what]} are allowed; shorten it"
        )
    return text


def _cut(what: str, text: Any) -> str:
    """What is left of a stranger's text: what prints of its beginning; nothing of what is none."""
    if not isinstance(text, str):
        return ""
    fits = is_prose if what == "note" else prints
    kept = "".join(letter for letter in text[: LONGEST[what]] if fits(letter))
    return kept if what == "note" else kept.strip()
