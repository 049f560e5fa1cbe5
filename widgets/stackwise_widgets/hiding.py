"""What a teacher hides of a panel: names that are checked, so that none is hidden by a slip.

A panel checks its own (`hidden`); a workbench all of them as it opens (`check_name`, `parts_of`),
since it makes most of its panels later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from importlib import import_module

from stackwise.errors import closest, near_names

COMPARE = ("filter", "deed", "axis", "study")
INSPECT = ("choice", "text", "attention", "depth", "drift", "denoise")
MODULES = {"Design": "design", "Run": "run_panel", "Teach": "teach"}  # whose PARTS they are
WAY_OUT = "name a panel, as Compare, a part of one, as run.sample, or a key, as optim.lr"


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
        raise ValueError(f"hide: {rest[0]!r} is no part{closest(rest[0], parts)}")
    return found


def parts_of(panel: str) -> tuple[str, ...]:
    """The names of what can be hidden of a panel of the workbench; of Design, beside its keys."""
    if panel in MODULES:  # read as they are asked for: some take a while to import
        return tuple(import_module(f"stackwise_widgets.{MODULES[panel]}").PARTS)
    return {"Compare": COMPARE, "Inspect": INSPECT}[panel]


def check_name(name: str, panels: Sequence[str], panel: str | None = None) -> None:
    """Raise if a name to hide is none of a workbench.

    Args:
        name: A part, or a key of the form.
        panels: The names of the panels.
        panel: The one that it is said to be of; None where none was named.

    Raises:
        ValueError: If it is unknown; the message names the closest.
    """
    from stackwise_widgets.form.hiding import every_path

    known = [*parts_of("Design"), *sorted(every_path())]
    if panel is not None and panel != "Design":
        hidden([name], parts_of(panel))
    elif name not in known:
        whole = [f"{each.lower()}.{part}" for each in panels for part in parts_of(each)]
        near = likely(name, [*panels, *whole, *known])
        hint = f"did you mean {near!r}?" if near else WAY_OUT
        raise ValueError(f"hide: {name!r} is no panel, no part of one and no knob; {hint}")


def likely(name: str, known: Iterable[str]) -> str | None:
    """The known name that another is a slip of, capital letters aside; None if there is none.

    Args:
        name: What was asked for.
        known: Of two that differ in capital letters alone, the first counts.
    """
    first: dict[str, str] = {}
    for each in known:
        first.setdefault(each.casefold(), each)
    near = near_names(str(name).strip().casefold(), list(first))
    return first[near[0]] if near else None
