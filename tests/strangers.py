"""What a stranger can do to a run's folder who knows how it is written, and what text could do.

The payloads break out of an attribute and of an element, and are an image that would run a script;
they hold mathematics that no figure can set, escapes that a terminal obeys, and what turns round
the text after it. What acts is looked for in HTML, and in plotly's texts, which are HTML in part.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from stackwise.seals import sealed

STAGE = "\"'><img src=x onerror=pwned()>$\\frac{1}{$"  # prints, as a stage's name has to
MARK = f"{STAGE}<a href=javascript:pwned()>\x1b]0;pwned\x07\x9b2J\u202e"
HALF = "\ud800"  # of a character, which JSON may hold and no message to a page
BARE = "<x>\"'><svg/onload=pwned()>"  # begins at once, and has no space to be shown as a dot
TOKENS = (
    *(MARK, "\u202e\u2066", "\x1b[2J", "\x00", "$\\mathdefault{10^{3}$", "</pre>", "\r"),
    *(f"{BARE}{number}" for number in range(24)),
)
OBEYED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Acting(HTMLParser):
    """Collects what a piece of HTML would do that is the payload's."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = list(OBEYED.findall(text))
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        handlers = [name for name, _ in attrs if name.startswith("on")]
        strange = any("pwned" in (value or "") for name, value in attrs if name in ("href", "src"))
        if handlers or strange or tag == "x" or (tag == "img" and dict(attrs).get("src") == "x"):
            self.found.append(self.get_starttag_text() or tag)


def acting(texts: Iterable[str]) -> list[str]:
    """What some pieces of HTML would do."""
    return [act for text in texts for act in Acting(text).found]


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a nested value, keys aside."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        for item in value.values():
            yield from texts_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_of(item)
    elif isinstance(value, str):
        yield value


def harmless(panel: Any, where: str = "") -> None:
    """Fail if a widget that exists would act, cannot be sent, or if none in the panel shows it."""
    from ipywidgets.widgets.widget import _instances

    found = [text for each in inside(panel) for text in html_of(each)]
    assert any("pwned" in text for text in found), where
    for each in list(_instances.values()):
        assert acting(html_of(each)) == [], where
        for text in texts_of(each.get_state()):
            text.encode()


def inside(widget: Any) -> Iterator[Any]:
    """A widget and all in it."""
    yield widget
    for each in getattr(widget, "children", ()):
        yield from inside(each)


def html_of(widget: Any) -> Iterator[str]:
    """What a widget puts into a page as HTML, or plotly does of it."""
    import ipywidgets as w

    if isinstance(widget, w.HTML | w.HTMLMath):
        yield widget.value
    if hasattr(widget, "to_plotly_json"):
        yield from texts_of(widget.to_plotly_json())
    if getattr(widget, "description_allow_html", False):
        yield widget.description


def tokenizer_json() -> str:
    """A tokenizer of bytes with the payloads as further tokens."""
    from stackwise.data.tokenizer import ByteTokenizer

    facts = json.loads(ByteTokenizer().to_json())
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    facts["added_tokens"] = [
        {"id": 256 + number, "content": text, **plain} for number, text in enumerate(TOKENS)
    ]
    return json.dumps(facts)


def rehash(folder: Path, name: str) -> None:
    """Set right every hash of a file that was rewritten: of provenance.json and of manifests."""
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    for path in (folder / "provenance.json", *folder.glob("*/manifest.json")):
        facts = json.loads(path.read_text())
        for known in ("files", "run"):
            if name in facts.get(known, {}):
                facts[known][name] = digest
        path.write_text(json.dumps(sealed(facts)))
