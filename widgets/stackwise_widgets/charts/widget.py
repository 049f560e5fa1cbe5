"""plotly's FigureWidget, which a page that is loaded again shows as it was drawn last.

plotly sends changes alone. A page that is open keeps its own account of them; one that is loaded
again asks for the widget's state, which plotly leaves as it was when the figure was made. Here that
state is read from the figure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import plotly.graph_objects as go

SHOWN: dict[str, Callable[[Any], Any]] = {
    "_widget_data": lambda figure: figure._data,
    "_widget_layout": lambda figure: figure._layout_obj._props,
}


class ShownFigure(go.FigureWidget):
    """A figure that is drawn in a thread, and may be looked at anew at any time.

    `drawing` is held while it is changed, so that no page reads half a change.
    """

    _ready = False  # ipywidgets asks for the state before plotly has any

    def __init__(self, *args: Any, **more: Any) -> None:
        self._drawing = threading.RLock()
        super().__init__(*args, **more)
        self._ready = True

    @property
    def drawing(self) -> AbstractContextManager[Any]:
        """The lock of its state."""
        return self._drawing

    def get_state(
        self, key: str | Iterable[str] | None = None, drop_defaults: bool = False
    ) -> dict[str, Any]:
        """The state of all traits, or of some; data and layout as they were drawn last."""
        keys = set(self.keys if key is None else [key] if isinstance(key, str) else key)
        shown = keys & set(SHOWN) if self._ready else set()
        with self._drawing:
            state: dict[str, Any] = super().get_state(keys - shown, drop_defaults=drop_defaults)
            for name in shown:
                to_json = self.trait_metadata(name, "to_json")
                state[name] = to_json(SHOWN[name](self), self)
        return state
