"""What a teacher hides of a panel: names that are checked, so that none is hidden by a slip."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


def left_over(hide: Iterable[str], parts: Collection[str]) -> tuple[set[str], list[str]]:
    """Names of a panel's own parts among those to hide, and the rest, which others know.

    Args:
        hide: What is to be hidden.
        parts: The names of the panel's parts.
    """
    names = [hide] if isinstance(hide, str) else list(hide)
    return {name for name in names if name in parts}, [name for name in names if name not in parts]


def hidden(hide: Iterable[str], parts: Collection[str]) -> set[str]:
    """The same where nobody else knows names.

    Raises:
        ValueError: If one is no part; the message names the closest.
    """
    found, rest = left_over(hide, parts)
    if rest:
        near = difflib.get_close_matches(rest[0], [*parts], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"hide: {rest[0]!r} is no part{hint} known: {', '.join(parts)}")
    return found
