"""The controls of the Teach panel: buttons by name, fields by name."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as w

import stackwise as sw
from stackwise_widgets.views.markup import shortened

LABELS = {
    "play": ("Play", "go on by itself; press again to pause"),
    "back": ("Back", "look at the phase before; nothing is undone"),
    "step": ("Next phase", "carry out the next phase"),
    "next": ("Next step", "finish this step, or take the next one whole"),
    "reset": ("Reset", "back to the start of the stage"),
}
FIELDS = ("stage", "seed", "speed", "sample")
CONTROLS = (*LABELS, *FIELDS)
SEEDS = 1 << 31


def buttons() -> dict[str, w.Button]:
    """What is pressed, in the order of the Tab key."""
    wide = {"width": "auto"}
    return {
        name: w.Button(description=label, tooltip=tip, layout=wide)
        for name, (label, tip) in LABELS.items()
    }


def stage_field(stages: Sequence[sw.Stage], value: int) -> w.Dropdown:
    """The stage, by its number and what it trains."""
    options = [(stage_said(n, stage), n) for n, stage in enumerate(stages)]
    return w.Dropdown(options=options, value=value, **_look("stage", 210))


def seed_field(value: int) -> w.BoundedIntText:
    """The experiment's seed, or another."""
    return w.BoundedIntText(value=value, min=0, max=SEEDS - 1, **_look("seed", 120))


def speed_field(seconds: float) -> w.BoundedFloatText:
    """Seconds from one phase to the next."""
    limits = {"min": 0.05, "max": 60, "step": 0.5}
    return w.BoundedFloatText(value=seconds, **limits, **_look("seconds a phase", 180))


def sample_field(value: int, count: int) -> w.BoundedIntText:
    """The sample whose tokens are shown, from 1."""
    return w.BoundedIntText(
        value=value + 1, min=1, max=count, **_look(f"sample (of {count:,})", 160)
    )


def stage_said(number: int, stage: sw.Stage) -> str:
    """A stage in a list: `2: s1 trains`."""
    active = stage.active or ()
    one = "s" if len(active) == 1 else ""
    return shortened(f"{number}: {', '.join(active) or 'the ends'} train{one}", 34)


def _look(label: str, width_px: int) -> dict[str, object]:
    return {
        "description": label,
        "layout": {"width": f"{width_px}px"},
        "style": {"description_width": "initial"},
    }
