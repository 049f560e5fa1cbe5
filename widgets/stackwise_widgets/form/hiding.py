"""Which knobs are not shown: a teacher leaves only those that a lesson is about."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import stackwise as sw
from stackwise_widgets.form.schema import Spec, everything, specs_of
from stackwise_widgets.hiding import likely

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
            near = likely(path, sorted(known))
            hint = f"did you mean {near!r}?" if near else "name a key, as in optim.lr"
            raise ValueError(f"hide: {path!r} is no knob; {hint}")
    return frozenset(asked)


def top_specs() -> tuple[Spec, ...]:
    """The knobs of the form, from the top: those of an experiment, and the placement's section."""
    placing = Spec("placement", "section", "how it is carried out", inside=sw.Placement)
    return (*specs_of(sw.Experiment), placing)


def every_path() -> set[str]:
    """All names that `hidden_paths` takes."""
    return {spec.path for spec in everything(top_specs())} | set(LINES)


def covers(hidden: Collection[str], path: str) -> bool:
    """Whether a knob is hidden: itself, or with what holds it."""
    parts = path.split(".")
    return any(".".join(parts[: n + 1]) in hidden for n in range(len(parts)))
