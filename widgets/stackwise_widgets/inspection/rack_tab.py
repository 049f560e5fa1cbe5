"""The parts of a run's rack as a picture, and what is wrong where it cannot be shown."""

from __future__ import annotations

from typing import Any

import ipywidgets as w
import pandas as pd

import stackwise as sw
from stackwise_widgets.inspection.stills import parts_still
from stackwise_widgets.latest import Latest
from stackwise_widgets.panel import Guard
from stackwise_widgets.paper import PaperFigure
from stackwise_widgets.views import rack_html, rack_parts
from stackwise_widgets.views.markup import escaped


class RackTab(w.HTML):
    """The parts of a rack, read in a thread.

    Args:
        guard: Of the panel.

    Attributes:
        run: Whose rack it is; None before one is chosen, or where it cannot be looked into.
        parts: What is shown, as `views.rack_parts` has it.
    """

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self.run: sw.Run | None = None
        self.parts: list[dict[str, Any]] = []
        self._guard, self._reads = guard, Latest(guard)

    def use(self, run: sw.Run) -> None:
        """Another run."""
        self.run = run
        self._reads.ask(
            "reading the rack", lambda: _read(run), lambda found: self._show(run, found)
        )

    def clear(self, why: str = "") -> None:
        """Nothing is shown of any run any more; `why` there is none, in words."""
        self._reads.drop()
        self.run, self.parts = None, []
        self.value = _said(why) if why else ""

    def wait(self, timeout: float | None = None) -> bool:
        """Until what was asked for is shown."""
        return self._reads.wait(timeout)

    def data(self) -> pd.DataFrame:
        """One row per part."""
        return pd.DataFrame(self.parts)

    def figure(self) -> PaperFigure:
        """The bytes of each part, for a paper."""
        return parts_still(self.parts, self.run.id if self.run else "no run")

    def code(self) -> str:
        """The Python that reads the same."""
        return "\nfrom stackwise_widgets.views import rack_parts\n\nrack_parts(run)\n"

    def _show(self, run: sw.Run, found: list[dict[str, Any]] | Exception) -> None:
        if run is not self.run:
            return  # it is not shown any more
        if isinstance(found, Exception):
            self.value = _said(f"The rack of this run cannot be read: {found}")
            self._guard.take("reading the rack", found)
            return
        self.parts, self.value = found, rack_html(found)


def _read(run: sw.Run) -> list[dict[str, Any]] | Exception:
    """The parts of a run's rack, or why they cannot be read, which is shown in their place."""
    try:
        return rack_parts(run)
    except Exception as error:
        return error


def _said(words: str) -> str:
    lines = "<br/>".join(map(escaped, words.splitlines()))
    return f'<p class="sw-said" role="status">{lines}</p>'
