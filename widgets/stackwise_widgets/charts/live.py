"""The chart that moves: the one FigureWidget of the product, and it sends only what changed.

A page may hold one such widget, since each brings 5 MB of code with it. A tick sends the curves
that grew, thinned out, as float32; the matrix only when there is another look; shapes and words
only when a stage changed. `tests/unit/widgets/charts/test_the_live_chart_sends_little.py` holds the
bytes. A page that is loaded again reads all that was drawn (`widget.py`).
"""

from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np

from stackwise_widgets.charts.finished import check, colour_bar, nested
from stackwise_widgets.charts.frame import changing, layout_of
from stackwise_widgets.charts.panels import Heat, Traces, traces_of
from stackwise_widgets.charts.style import Theme
from stackwise_widgets.charts.view import ALONG, Along, RunView
from stackwise_widgets.charts.widget import ShownFigure

LEAST_SECONDS = 0.5
UNZOOMED = {"yaxis2.autorange": True, "yaxis4.autorange": True}  # the others' ranges are ours


class LiveChart:
    """One run's picture, kept up to date.

    Args:
        view: What to begin with.
        x: What runs along the axis.
        heat: What the layers x steps panel shows.
        theme: `auto` can be read on a light page as on a dark one.

    Attributes:
        figure: The widget.
    """

    def __init__(
        self,
        view: RunView,
        x: Along = "steps",
        heat: Heat = "exit_loss",
        theme: Theme = "auto",
    ) -> None:
        check(x, heat)
        self.view, self._x, self._heat = view, x, heat
        self.drawn_at = -np.inf
        self.sent = small(traces_of(view, x, heat))
        self.sent_layout = changing(view, x, heat)
        first = {name: dict(trace) for name, trace in self.sent.items()}
        first["heat"]["colorbar"] = colour_bar(heat)
        self.names = list(first)
        self.figure = ShownFigure(
            data=list(first.values()), layout=nested(layout_of(view, x, heat, theme))
        )
        self.figure._config = {**self.figure._config, "responsive": True, "displaylogo": False}

    @property
    def x(self) -> Along:
        """What runs along the axis: steps, tokens, flops or seconds. Setting it redraws."""
        return self._x

    @x.setter
    def x(self, x: Along) -> None:
        check(x, self._heat)
        self._x = x
        self._draw({"xaxis.title.text": ALONG[x]})

    @property
    def heat(self) -> Heat:
        """What the layers x steps panel shows: exit_loss or grad_norm. Setting it redraws."""
        return self._heat

    @heat.setter
    def heat(self, heat: Heat) -> None:
        check(self._x, heat)
        self._heat = heat
        self._draw({}, bar=colour_bar(heat))

    def update(self, view: RunView, *, now: float | None = None) -> bool:
        """Draw what is new, unless something was drawn less than half a second ago.

        Args:
            view: The run as it stands; one that is no longer running is drawn at once, and so is
                another run, with all of its axes whatever was zoomed into.
            now: Seconds of a clock that only rises; None for this machine's.

        Returns:
            Whether it was drawn. If not, the next call draws it.
        """
        now = time.monotonic() if now is None else now
        if view is self.view or (view.id, view.version) == (self.view.id, self.view.version):
            return False
        same = view.id == self.view.id
        if same and now - self.drawn_at < LEAST_SECONDS and view.state == self.view.state:
            return False
        self.view, self.drawn_at = view, now
        if not same:
            self.sent_layout = {}
        self._draw({} if same else UNZOOMED)
        return True

    def _draw(self, layout: dict[str, Any], bar: dict[str, Any] | None = None) -> None:
        """Send what differs from what was sent, in one message."""
        traces = small(traces_of(self.view, self._x, self._heat))
        frame = changing(self.view, self._x, self._heat)
        changed = {k: v for k, v in frame.items() if v != self.sent_layout.get(k)}
        with self.figure.drawing, self.figure.batch_update():
            for number, name in enumerate(self.names):
                for key, value in _differing(traces[name], self.sent[name]).items():
                    self.figure.data[number][key] = value
            if bar is not None:
                self.figure.data[self.names.index("heat")]["colorbar"] = bar
            for key, value in {**layout, **changed}.items():
                self.figure.layout[key] = value
        self.sent, self.sent_layout = traces, frame


def small(traces: Traces) -> Traces:
    """Traces whose numbers take half the bytes; matrices are packed, which plotly does not do.

    Steps up to 16 million are exact in float32, and every other number to seven digits.
    """
    return {
        name: {key: _small(value) for key, value in trace.items()} for name, trace in traces.items()
    }


def _small(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    short = value.astype(np.float32)
    return short if short.ndim == 1 else packed(short)


def packed(value: np.ndarray) -> dict[str, str]:
    """A matrix as plotly.js reads it: its bytes in base64, and its shape."""
    data = base64.b64encode(value.tobytes()).decode("ascii")
    return {"dtype": "f4", "bdata": data, "shape": ", ".join(map(str, value.shape))}


def unpacked(value: dict[str, str]) -> np.ndarray:
    """What `packed` made."""
    shape = [int(size) for size in value["shape"].split(",")]
    return np.frombuffer(base64.b64decode(value["bdata"]), np.float32).reshape(shape)


def _differing(trace: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in trace.items() if not _same(value, sent.get(key))}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b, equal_nan=True)
    return type(a) is type(b) and a == b
