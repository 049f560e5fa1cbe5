"""The buttons of a run: each can be pressed exactly when it does something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as w

ENDED = ("made", "stopped", "failed", "died")


class Controls(w.HBox):
    """Launch, pause, go on, stop and save, stop now.

    Args:
        press: Is called with the name of the button: `launch`, `next`, `pause`, `resume`, `stop`,
            `stop-now`.
        launches: Whether there is something to launch; else the first two are left out.
    """

    def __init__(self, press: Callable[[str], Any], *, launches: bool) -> None:
        self.buttons = {
            "launch": _button("Launch", "Train it in a process of its own", style="primary"),
            "next": _button("Launch one stage", "Train the next stage alone, then stop and save"),
            "pause": _button("Pause", "Hold it after the step in hand, in memory"),
            "resume": _button("Go on", "Let it go on from where it is"),
            "stop": _button("Stop and save", "End it after the step in hand, saved"),
            "stop-now": _button("Stop now", "End it at once, back to its last checkpoint"),
        }
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: press(name))
        shown = [
            b for name, b in self.buttons.items() if launches or name not in ("launch", "next")
        ]
        super().__init__(shown, layout={"flex_flow": "row wrap"})
        self.show(None, "")

    def show(self, state: str | None, why_not: str) -> None:
        """Let those be pressed that do something.

        Args:
            state: The run's; None if there is none.
            why_not: Why nothing can be launched; empty if it can.
        """
        usable = {
            "launch": not why_not,
            "next": not why_not,
            "pause": state in ("running", "starting"),
            "resume": state == "paused" or state in ENDED,
            "stop": state in ("running", "paused", "queued", "starting", "stale"),
            "stop-now": state in ("running", "paused", "starting", "stale"),
        }
        for name, button in self.buttons.items():
            if button.disabled == usable[name]:
                button.disabled = not usable[name]


def _button(text: str, tooltip: str, *, style: str = "") -> w.Button:
    return w.Button(description=text, tooltip=tooltip, button_style=style, layout={"width": "auto"})
