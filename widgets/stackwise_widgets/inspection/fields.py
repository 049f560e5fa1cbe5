"""What `Inspect` is told: which run, and which text its rack reads, how much of it masked."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as w

from stackwise_widgets.inspection.subject import TEXT


def choice_field(ids: Sequence[str], chosen: str | None) -> w.Dropdown:
    """The run that is looked into, among others."""
    return w.Dropdown(description="Run", options=ids, value=chosen, layout={"width": "460px"})


def text_field() -> w.Textarea:
    """What the rack reads."""
    wide = {"flex": "1 1 400px", "width": "auto", "min_width": "320px"}
    return w.Textarea(value=TEXT, description="Text", rows=2, continuous_update=False, layout=wide)


def hidden_field() -> w.FloatSlider:
    """The part of the text that reads [MASK]."""
    return w.FloatSlider(
        description="Masked", min=0, max=1, step=0.05, value=0.0, continuous_update=False,
        readout_format=".0%", layout={"width": "280px"},
    )  # fmt: skip


def fetch_button() -> w.Button:
    """Asks for a text of the run's own data."""
    return w.Button(
        description="Held-out text",
        layout={"width": "auto"},
        tooltip="A window that it never trained on",
    )
