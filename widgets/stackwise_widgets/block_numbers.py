"""Statistics of blocks over a run's looks, and drift over its stages, as tables of shaded cells.

A part of the Run panel; it reads the run's folder when it is asked to, and not before.
"""

from __future__ import annotations

import ipywidgets as w

import stackwise as sw
from stackwise_widgets.panel import Guard
from stackwise_widgets.views.statistics import drift_told_html, statistics_html

NUMBERS = {
    "size of the residual stream (rms)": "residual_rms",
    "its largest number": "residual_max_abs",
    "kurtosis over its features": "residual_kurtosis",
    "size of what attention adds (rms)": "attention_rms",
    "size of what the feed-forward adds (rms)": "ffn_rms",
    "hidden units that never fire": "dead_frac",
    "gradient over weights": "grad_to_weight",
    "update over weights": "update_to_weight",
}


class BlockNumbers(w.VBox):
    """A button, what is shown of blocks, and the tables.

    Args:
        guard: Of the panel.
    """

    def __init__(self, guard: Guard) -> None:
        self._run: sw.Run | None = None
        self.button = w.Button(description="Show the blocks", layout={"width": "auto"})
        self.which = w.Dropdown(
            options=list(NUMBERS.items()), description="of blocks", layout={"display": "none"}
        )
        self.tables = w.HTML()
        self.button.on_click(guard("reading the blocks", lambda _: self.show()))
        self.which.observe(guard("reading the blocks", lambda _: self.show()), "value")
        super().__init__([w.HBox([self.button, self.which]), self.tables])

    def use(self, run: sw.Run) -> None:
        """Another run; nothing is shown of it yet."""
        self._run, self.tables.value = run, ""
        self.which.layout.display = "none"

    def show(self) -> None:
        """Read what there is by now, and draw it."""
        if self._run is None:
            return
        self.which.layout.display = ""
        stages = self._run.stages()
        self.tables.value = statistics_html(
            self._run.statistics(), self.which.value, self.which.label
        ) + drift_told_html(self._run.drift(), stages[-1]["path"])
