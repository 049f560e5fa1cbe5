"""Which knobs come first, and in which section each of the others is found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stackwise_widgets.form.schema import Spec, kind_doc, within

# What a study of curricula turns first; `budget` is all of its sides.
MAIN = (
    "curriculum",
    "masking.schedule",
    "masking.bands",
    "attention",
    "objective",
    "precision.compute",
    "placement.trunk",
    "data.corpus",
    "budget",
    "seed",
)


class Part(NamedTuple):
    """A section of the form.

    Attributes:
        path: Of the section; empty for the keys that are in none.
        title: Its name.
        description: What it is about.
        specs: Its knobs, without those that come first.
    """

    path: str
    title: str
    description: str
    specs: tuple[Spec, ...]


def first_knobs(specs: Iterable[Spec]) -> tuple[Spec, ...]:
    """The main knobs, in the order of `MAIN`."""
    found = {spec.path: spec for top in specs for spec in (top, *_fixed(top))}
    return tuple(found[path] for path in MAIN if path in found)


def parts(specs: Sequence[Spec]) -> tuple[Part, ...]:
    """The other knobs, section by section; a section without any is left out."""
    loose = tuple(spec for spec in specs if not _fixed(spec) and spec.path not in MAIN)
    sections = [
        Part(
            top.path,
            top.path,
            top.description,
            tuple(spec for spec in _fixed(top) if spec.path not in MAIN),
        )
        for top in specs
        if top.path not in MAIN and _fixed(top)
    ]
    found = [Part("", "experiment", "name and start", loose), *sections]
    return tuple(part for part in found if part.specs)


def _fixed(spec: Spec) -> tuple[Spec, ...]:
    """What is always inside; a choice's knobs come and go with its kind."""
    return within(spec, True) if spec.inside is not None and not spec.empty else ()


def hits(spec: Spec, words: Iterable[str]) -> bool:
    """Whether a knob speaks of every word: in its key, description, names or kinds."""
    kinds = [kind_doc(spec, name) for name in spec.options if spec.registry is not None]
    text = " ".join([spec.path, spec.description, *spec.options, *kinds]).lower()
    return all(word.lower() in text for word in words)
