"""Which knobs are not shown: a teacher leaves only those that a lesson is about."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from stackwise_widgets.form.schema import Spec, everything

LINES = ("preset", "find")  # what stands above the knobs


def hidden_paths(specs: Iterable[Spec], hide: Iterable[str]) -> frozenset[str]:
    """The keys to hide.

    Raises:
        ValueError: If one is neither a knob of any kind nor a line above them.
    """
    asked = [hide] if isinstance(hide, str) else list(hide)
    known = {spec.path for spec in everything(specs)} | set(LINES)
    for path in asked:
        if path not in known:
            near = difflib.get_close_matches(str(path), sorted(known), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "name a key, as in optim.lr"
            raise ValueError(f"hide: {path!r} is no knob; {hint}")
    return frozenset(asked)


def covers(hidden: Collection[str], path: str) -> bool:
    """Whether a knob is hidden: itself, or with what holds it."""
    parts = path.split(".")
    return any(".".join(parts[: n + 1]) in hidden for n in range(len(parts)))
