"""How a valid file becomes a malformed one: some changes, each three whole numbers.

    content = changed(valid, "json", [(op, place, value), ...])

A pure function, so that hypothesis shrinks what fails to the one change that matters, and atheris
makes changes of its own with it. Files of `json`, `lines` (of JSON), `yaml` and `words` are changed
by their structure: a key goes, comes twice, gets another name or another value. Every kind, and
what no longer parses, is changed by bytes, too: cut, flipped, doubled, replaced.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml

from .hostile import BYTES, JSON, ODD_KEYS, YAML

Change = tuple[int, int, int]
MOST_BYTES = 1 << 20  # of a malformed file; a longer one tells nothing new


def changed(content: bytes, kind: str, changes: Sequence[Change]) -> bytes:
    """A file after these changes, one after the other."""
    for op, place, value in changes:
        structured = STRUCTURED.get(kind)
        what, by_bytes = divmod(op, 4)
        new = structured(content, what, place, value) if structured and by_bytes else None
        content = (in_bytes(content, what, place, value) if new is None else new)[:MOST_BYTES]
    return content


def in_bytes(content: bytes, op: int, place: int, value: int) -> bytes:
    """A change that knows nothing of what the bytes mean."""
    at = place % (len(content) + 1)
    length = 1 + value % 64
    piece = BYTES[value % len(BYTES)]
    match op % 8:
        case 0:
            flipped = bytes([content[at] ^ (1 << value % 8)]) if at < len(content) else b""
            return content[:at] + flipped + content[at + 1 :]
        case 1:
            return content[:at]
        case 2:
            return content[:at] + piece + content[at:]
        case 3:
            return content[:at] + piece + content[at + len(piece) :]
        case 4:
            return content[:at] + content[at + length :]
        case 5:
            return content[:at] + content[at : at + length] * 3 + content[at + length :]
        case 6:
            return content[:at] + value.to_bytes(8, "little", signed=False) + content[at + 8 :]
        case _:
            return content.replace(b"\n", b"\r\n") if value % 2 else b"\xef\xbb\xbf" + content


class Text:
    """A value that is written as it stands, whatever it is."""

    def __init__(self, text: str) -> None:
        self.text = text


def in_json(content: bytes, op: int, place: int, value: int) -> bytes | None:
    """A change of one JSON value; None where there is none."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return None
    try:
        return written(turned(tree, op, place, value, JSON))
    except RecursionError:
        return None


def in_lines(content: bytes, op: int, place: int, value: int) -> bytes | None:
    """A change of one line of JSON, or of the lines' order."""
    lines = content.split(b"\n")
    at = place % len(lines)
    match op % 16:
        case 12:
            lines.insert(at, lines[value % len(lines)])
        case 13:
            del lines[at]
        case 14:
            lines[at], lines[value % len(lines)] = lines[value % len(lines)], lines[at]
        case _:
            new = in_json(lines[at], op, place // len(lines), value)
            if new is None:
                return None
            lines[at] = new
    return b"\n".join(lines)


def in_yaml(content: bytes, op: int, place: int, value: int) -> bytes | None:
    """A change of one value of a YAML mapping, which is written in braces afterwards."""
    try:
        tree = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(tree, dict):
        return None
    try:
        made = turned(tree, op, place, value, YAML)
        lines = [f"{json.dumps(str(key))}: {''.join(pieces(item))}" for key, item in made.items()]
    except RecursionError:
        return None
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def in_words(content: bytes, op: int, place: int, value: int) -> bytes | None:
    """A change of one word of a command line; a line holds a word."""
    words = content.decode("utf-8", "surrogateescape").split("\n")
    at = place % len(words)
    head, equals, _ = words[at].partition("=")
    text = YAML[value % len(YAML)].replace("\n", " ")
    match op % 8:
        case 0 | 1 | 4 | 5:
            words[at] = f"{head}={text}" if equals else text
        case 2:
            words[at] = f"{head}.{text}{equals}" if equals else f"{words[at]}={text}"
        case 6:
            words.insert(at, words[value % len(words)])
        case _:
            del words[at]
    return "\n".join(words).encode("utf-8", "surrogatepass")


def in_named(content: bytes, op: int, place: int, value: int) -> bytes | None:
    """A change of a file behind a line with its name, as its ending says."""
    name, _, rest = content.partition(b"\n")
    kinds = {b"json": in_json, b"jsonl": in_lines, b"yaml": in_yaml}
    change = kinds.get(name.rpartition(b".")[2])
    new = change(rest, op, place, value) if change else in_bytes(rest, op, place, value)
    return None if new is None else name + b"\n" + new


STRUCTURED: dict[str, Callable[[bytes, int, int, int], bytes | None]] = {
    "json": in_json, "lines": in_lines, "yaml": in_yaml, "words": in_words,
    "named": in_named,
}  # fmt: skip


def turned(tree: Any, op: int, place: int, value: int, hostile: Sequence[str]) -> Any:
    """A tree with one of its values changed."""
    places = list(places_in(tree))
    new = Text(hostile[value % len(hostile)])
    if not places:
        return new
    holder, key = places[place % len(places)]
    match op % 12:
        case 4:
            del holder[key]
        case 5 if isinstance(holder, dict):
            holder[ODD_KEYS[value % len(ODD_KEYS)]] = holder.pop(key)
        case 6 if isinstance(holder, dict):  # the same key twice
            holder[Twice(key)] = new
        case 7:
            other, there = places[value % len(places)]
            holder[key] = other[there]
        case 8:
            holder[key] = [holder[key]]
        case 9:
            holder[key] = str(holder[key])
        case 10 if isinstance(holder, list):
            holder.insert(key, new)
        case 11 if isinstance(holder, dict):
            holder[ODD_KEYS[value % len(ODD_KEYS)]] = new
        case _:
            holder[key] = new
    return tree


class Twice(str):
    """A key beside an equal one."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def places_in(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Where a tree holds values: what holds each, and by which key or number."""
    waiting, seen = [tree], set[int]()  # an alias may hold itself
    while waiting:
        holder = waiting.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        items = list(holder.items()) if isinstance(holder, dict) else []
        items = list(enumerate(holder)) if isinstance(holder, list) else items
        for key, item in items:
            yield holder, key
            if isinstance(item, dict | list):
                waiting.append(item)


def written(tree: Any) -> bytes:
    """A tree as JSON, hostile texts as they stand."""
    return "".join(pieces(tree)).encode("utf-8", "surrogatepass")


def pieces(tree: Any) -> Iterator[str]:
    if isinstance(tree, Text):
        yield tree.text
    elif isinstance(tree, dict):
        for n, (key, item) in enumerate(tree.items()):
            yield f"{', ' if n else '{'}{json.dumps(str(key))}: "
            yield from pieces(item)
        yield "}" if tree else "{}"
    elif isinstance(tree, list):
        for n, item in enumerate(tree):
            yield ", " if n else "["
            yield from pieces(item)
        yield "]" if tree else "[]"
    else:
        yield json.dumps(tree, default=str)
