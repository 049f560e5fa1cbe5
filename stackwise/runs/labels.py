"""What people say of a run: its name, a note, tags; labels.json, which decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from stackwise.atomic import write_text
from stackwise.jsontext import dumps, loads

LABELS = "labels.json"
LONGEST = {"name": 80, "note": 10_000, "tag": 40}


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
    try:
        found = loads((folder / LABELS).read_text("utf-8"))
        tags = tuple(str(tag) for tag in found.get("tags", ()))
        return Labels(str(found.get("name", "")), str(found.get("note", "")), tags)
    except (OSError, ValueError, TypeError, AttributeError):
        return Labels()


def write_labels(
    folder: Path,
    *,
    name: str | None = None,
    note: str | None = None,
    tags: Iterable[str] | None = None,
) -> Labels:
    """Change a run's labels; what is None stays as it is, what is empty goes.

    Raises:
        ValueError: If one is too long, or holds characters that do not print.
        OSError: If the file cannot be written.
    """
    labels = read_labels(folder)
    if name is not None:
        labels = replace(labels, name=_line("name", name))
    if note is not None:
        labels = replace(labels, note=_short("note", note))
    if tags is not None:
        words = (tags,) if isinstance(tags, str) else tags
        found = [_line("tag", word) for word in words]
        labels = replace(labels, tags=tuple(dict.fromkeys(filter(None, found))))
    write_text(folder / LABELS, dumps(asdict(labels), indent=1))
    return labels


def _line(what: str, text: str) -> str:
    text = text.strip()
    if not text.isprintable():
        raise ValueError(
            f"{what}: {text[:40]!r} holds characters that do not print; leave them out"
        )
    return _short(what, text)


def _short(what: str, text: str) -> str:
    if len(text) > LONGEST[what]:
        raise ValueError(
            f"{what}: has {len(text)} characters, and {LONGEST[what]} are allowed; shorten it"
        )
    return text
