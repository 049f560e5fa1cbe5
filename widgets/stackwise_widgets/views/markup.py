"""Text made safe for HTML and for the XML of SVG, and figures said in words.

Whatever comes from outside (run ids, notes, names of stages, a user's own text) passes through
`escaped`. A figure that is missing, not a number or infinite is said in words, never drawn.
"""

from __future__ import annotations

import hashlib
import html
import math
import re
from collections.abc import Callable, Sequence

from stackwise.planner.units import days_text, gb
from stackwise.report import bytes_text

# What XML cannot hold, even as a number: control characters, halves of surrogate pairs, which no
# message to a page can hold either, two others; and what turns round the text around it.
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)
REPLACEMENT = "\ufffd"
ENDS = ("embedding", "head")


def escaped(value: object) -> str:
    """A value as text that is safe in an element and in an attribute, in HTML and in XML."""
    return html.escape(clean(value))


def clean(value: object) -> str:
    """A value as text without what no page can show; for what is set as text, not as HTML."""
    return FORBIDDEN.sub(REPLACEMENT, str(value))


def attributes(**values: object) -> str:
    """Attributes of a tag, each with a space before it; those that are None are left out."""
    given = ((name.strip("_").replace("_", "-"), value) for name, value in values.items())
    return "".join(f' {name}="{escaped(value)}"' for name, value in given if value is not None)


def key_of(*parts: object) -> str:
    """Eight letters and digits that name some content, so that ids in a page do not meet."""
    digest = hashlib.sha256("\n".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()
    return f"k{digest[:7]}"


def apart(picture: str, place: str) -> str:
    """A picture whose ids are other ones than those of the same picture elsewhere in the page.

    A page takes the first of two equal ids, and JupyterLab takes what is out of sight from it.

    Args:
        picture: What a view gave.
        place: A letter for where it is shown.
    """
    return re.sub(r"\bk[0-9a-f]{7}\b", lambda key: f"{key[0]}{place}", picture)


def said(value: float | None, text: Callable[[float], str]) -> str:
    """A figure by `text`, or in words what it is instead of one."""
    if value is None:
        return "not known"
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinity"
    return text(value)


def bytes_said(count: float | None) -> str:
    """Bytes of memory: `1.5 GiB`."""
    return said(count, bytes_text)


def disk_said(count: float | None) -> str:
    """Bytes of a disk or a host: `1.5 GB`."""
    return said(count, gb)


def count_said(count: float | None) -> str:
    """Tokens, steps or parameters: `1.25 M`; never `1e+03 M`, as rounding after dividing makes."""
    return said(count, _counted)


def _counted(count: float) -> str:
    for power, unit in enumerate(("", " k", " M", " G")):
        text = f"{count / 1000**power:.{0 if not unit else 3}{'f' if not unit else 'g'}}"
        if abs(float(text)) < 1000:
            return text + unit
    return f"{count / 1e12:,.3g} T"


def flops_said(flops: float | None) -> str:
    """FLOPs: `3.5e+12`."""
    return said(flops, lambda value: f"{value:.3g}")


def percent_said(part: float | None) -> str:
    """A part of one: `52.3 %`, `50 %`."""
    return said(part, lambda value: f"{round(100 * value, 1):g} %")


def days_said(days: float | None) -> str:
    """A time: minutes, hours, days or years."""
    return said(days, days_text)


def stacks_said(stacks: Sequence[str], order: Sequence[str]) -> str:
    """Names of parts, those that follow each other in `order` as one range: `s0 to s7`."""
    place = {name: number for number, name in enumerate(order)}
    spans: list[list[str]] = []
    for name in stacks:
        follows = spans and place.get(name, -9) == place.get(spans[-1][-1], -1) + 1
        if follows and name not in ENDS and spans[-1][-1] not in ENDS:
            spans[-1].append(name)
        else:
            spans.append([name])
    return ", ".join(s[0] if len(s) == 1 else f"{s[0]} to {s[-1]}" for s in spans) or "none"


def shortened(text: str, most: int) -> str:
    """Text of at most so many letters, with an ellipsis where some were left out."""
    return text if len(text) <= most else text[: max(1, most - 1)] + "…"
