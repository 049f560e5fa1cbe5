"""The panel that lists runs, and lays those that are ticked over each other.

    panel = Compare("runs")
    panel.select("toy-grow-1a2b3c4d", "toy-left_to_right-5e6f7a8b")
    panel.data(), panel.figure(), panel.chart()

It reads run folders and nothing else, beside the main thread. The picture is SVG: some kilobytes
that follow the page's theme, where a plotly figure that is drawn again brings its data and asks for
five megabytes of JavaScript; `chart()` gives that one, to be zoomed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ipywidgets as w
import pandas as pd

import stackwise as sw
from stackwise_widgets.charts import comparable, overlay_data, runs_table
from stackwise_widgets.charts.overlaid import OVER, Over
from stackwise_widgets.comparison.deed import Deed
from stackwise_widgets.comparison.picture import overlay_html
from stackwise_widgets.comparison.rows import Listed, chosen_by, listed, shown, states_in
from stackwise_widgets.comparison.still import overlay_still
from stackwise_widgets.comparison.studies import Studies, studies_in
from stackwise_widgets.comparison.table import RunsTable
from stackwise_widgets.hiding import COMPARE, hidden
from stackwise_widgets.latest import Latest
from stackwise_widgets.panel import Guard
from stackwise_widgets.theme import stylesheet
from stackwise_widgets.views.markup import clean, escaped

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from stackwise_widgets.panel import PanelError
    from stackwise_widgets.paper import PaperFigure

Where = str | Path | sw.Run | Sequence[str | Path | sw.Run]
FIRST = 8  # finished runs that are ticked at first
AXES = {"FLOPs": "flops", "tokens": "tokens", "steps": "steps", "seconds": "seconds",
        "peak bytes": "peak_bytes"}  # fmt: skip


class _Laid(NamedTuple):
    """What was read of the runs that are ticked."""

    keys: tuple[str, ...]
    data: pd.DataFrame
    remarks: list[str]


class Compare(w.VBox):
    """Runs as a table, and those that are ticked as curves over what they spent.

    Args:
        runs_dir: A folder of runs, one run, or a list of such.
        hide: Parts that are not shown: `filter` (with what else chooses runs), `deed` (what may be
            done with a run), `axis`, `study` (studies that lie beside the runs).

    Raises:
        ValueError: If a name to hide is unknown.

    Attributes:
        guard: Its handlers run through it.
        table: The rows, with `selected` and `current`.
        axis, band, filter, state: What runs along the axis; whether seeds are a band; what is
            listed.
        deed: What may be done with the run whose name was pressed.
        studies: The studies that were found; with `choice`, and the `result` of the chosen one.
    """

    def __init__(self, runs_dir: Where = "runs", *, hide: Iterable[str] = ()) -> None:
        self.hide = hidden(hide, COMPARE)
        single = isinstance(runs_dir, str | Path | sw.Run)
        self._where: list[str | Path | sw.Run] = [runs_dir] if single else list(runs_dir)  # type: ignore[list-item, arg-type]
        self.guard = Guard()
        self._lists, self._draws = Latest(self.guard), Latest(self.guard)
        self._all: list[Listed] = []
        self._laid = _Laid((), pd.DataFrame(), [])
        self._begun = False
        self.table = RunsTable()
        self.axis = w.ToggleButtons(options=list(AXES.items()), value="flops")
        self.axis.style.button_width = "auto"
        self.band = w.Checkbox(value=True, description="seeds as a band", indent=False)
        self.filter = w.Text(placeholder="filter: words, tags, key:value", continuous_update=True,
                             layout={"flex": "1 1 220px", "min_width": "160px"})  # fmt: skip
        self.state = w.Dropdown(options=["all"], layout={"width": "150px"})
        self._refresh = w.Button(description="Refresh", tooltip="Read the folders again",
                                 layout={"width": "90px"})  # fmt: skip
        self._ticks = [
            w.Button(description=text, tooltip=tip, layout={"width": "auto"})
            for text, tip in (("Tick all", "All that are listed"), ("Tick none", "None"))
        ]
        self._found, self._picture, self._remarks = w.HTML(), w.HTML(), w.HTML()
        self.deed = Deed(self.guard, self.refresh)
        self.studies = Studies(self.guard, self._tick_runs)
        super().__init__(self._arranged())
        self.add_class("sw-panel")
        self.add_class("sw-compare")
        self._listen()
        self.refresh()

    def _arranged(self) -> list[w.Widget]:
        row = {"display": "flex", "flex_flow": "row wrap", "align_items": "center"}
        bar = w.Box([self.filter, self.state, self._refresh, *self._ticks], layout=row)
        over = w.Box(
            [w.HTML('<span class="sw-label">over</span>'), self.axis, self.band], layout=row
        )
        over.add_class("sw-over")
        title = w.HTML('<div class="sw-title">Compare</div>')
        parts = {"filter": bar, "deed": self.deed, "axis": over, "study": self.studies}
        shown = {key: [] if key in self.hide else [part] for key, part in parts.items()}
        top = [stylesheet(), self.guard.card, title, *shown["filter"], self._found]
        below = [*shown["axis"], self._remarks, self._picture]
        return [*top, self.table, *shown["deed"], *shown["study"], *below]

    def _listen(self) -> None:
        guard = self.guard
        self._refresh.on_click(guard("reading the runs", lambda _: self.refresh()))
        every, none = self._ticks
        every.on_click(guard("ticking all runs", lambda _: self._tick_all()))
        none.on_click(guard("ticking no run", lambda _: self._tick([])))
        for field in (self.filter, self.state):
            field.observe(guard("filtering the runs", lambda _: self._list()), "value")
        for field in (self.axis, self.band):
            field.observe(guard("drawing the runs", lambda _: self._draw()), "value")
        self.table.observe(guard("reading the runs", lambda _: self._lay()), "selected")
        self.table.observe(guard("opening a run", lambda _: self._open()), "current")

    # What a notebook asks for

    @property
    def runs(self) -> list[sw.Run]:
        """All that were found, damaged folders left out."""
        self.wait()
        return [one.brief.run for one in self._all if one.brief.run is not None]

    @property
    def selected(self) -> list[sw.Run]:
        """Those that are ticked."""
        self.wait()
        return [one.brief.run for one in self._ticked() if one.brief.run is not None]

    @property
    def errors(self) -> list[PanelError]:
        """What went wrong in it; empty if nothing did."""
        return self.guard.errors

    def select(self, *names: str | sw.Run) -> None:
        """Tick these runs and no others: by id, the beginning of one, or name.

        Raises:
            ValueError: If a name is that of none, or of several.
        """
        self.wait()
        self._tick([self._called(name) for name in names])

    def refresh(self) -> None:
        """Read the folders again."""
        self.guard.clear()
        self._found.value = '<div class="sw-said sw-quiet">reading the runs …</div>'
        self._lists.ask(
            "reading the runs", lambda: (listed(self._where), studies_in(self._where)), self._got
        )

    def data(self) -> pd.DataFrame:
        """The table of the runs that are listed, as `charts.runs_table` has it."""
        self.wait()
        return runs_table([one.brief for one in self._listed()])

    def curves(self) -> pd.DataFrame:
        """The numbers behind the picture, as `charts.overlay_data` has them."""
        self.wait()
        return self._laid.data

    @property
    def remarks(self) -> list[str]:
        """Why the runs that are ticked cannot be set against each other; empty if they can."""
        self.wait()
        return list(self._laid.remarks)

    def figure(self) -> PaperFigure:
        """The picture for a paper."""
        self.wait()
        laid = self._laid
        return overlay_still(laid.data, self.axis.value, self.band.value, laid.remarks)

    def chart(self) -> go.Figure:
        """The picture as a plotly figure, which can be zoomed."""
        from stackwise_widgets.charts.overlay import drawn

        self.wait()
        return drawn(self._laid.data, self.axis.value, self.band.value)

    def code(self) -> str:
        """The Python that does the same."""
        paths = ",\n".join(f"    sw.attach({str(one.brief.path)!r})" for one in self._ticked())
        band = "" if self.band.value else ", seeds_band=False"
        return (
            "import stackwise as sw\n"
            "from stackwise_widgets.charts import comparable, overlay, runs_table\n\n"
            f"runs = [\n{paths},\n]\n"
            'print("\\n".join(comparable(runs)))\n'
            f"overlay(runs, x={self.axis.value!r}{band})\n"
        )

    def wait(self, timeout: float | None = None) -> bool:
        """Until all that was asked for is read and shown."""
        parts = (self._lists, self.studies, self._draws)
        return all(part.wait(timeout) for part in parts)

    # What is shown

    def _got(self, seen: tuple[list[Listed], dict[str, Path]]) -> None:
        """A new list of runs, and of studies."""
        found, studies = seen
        self._all = found
        self.studies.show(studies)
        states = states_in(found)
        options = [("all states", "all"), *((f"{clean(s)} ({n})", s) for s, n in states.items())]
        if list(self.state.options) != options:
            kept = self.state.value if self.state.value in states else "all"
            self.state.options = options
            self.state.value = kept
        if not self._begun:
            self._begun = True
            good = [one.key for one in found if one.brief.state == "finished"]
            self.table.selected = good[:FIRST]
        else:
            known = {one.key for one in found}
            self.table.selected = [key for key in self.table.selected if key in known]
        self._list()
        self._open()
        self._lay()

    def _listed(self) -> list[Listed]:
        return chosen_by(self._all, self.filter.value, self.state.value or "all")

    def _list(self) -> None:
        found = self._listed()
        bad = sum(one.brief.state == "damaged" for one in found)
        self._found.value = f'<div class="sw-said">{escaped(self._said(len(found), bad))}</div>'
        self.table.show(shown(found), "Runs, with a tick for each that is compared")

    def _said(self, count: int, bad: int) -> str:
        where = ", ".join(map(place_said, self._where))
        if not self._all:
            return f"No runs in {where}. Launch one, or name another folder: Compare('data/runs')."
        some = f"{count} of {len(self._all)}" if count < len(self._all) else str(count)
        said = f"{some} run{'s' * (len(self._all) != 1)} in {where}; "
        said += "columns at the right show the settings in which they differ; press a name to "
        said += "rename, tag, share or delete a run"
        return said + (f"; {bad} damaged, with what is wrong below the name" if bad else "")

    def _ticked(self) -> list[Listed]:
        by_key = {one.key: one for one in self._all}
        return [by_key[key] for key in self.table.selected if key in by_key]

    def _tick(self, keys: list[str]) -> None:
        self.table.selected = keys

    def _tick_all(self) -> None:
        self._tick([one.key for one in self._listed() if one.brief.state != "damaged"])

    def _tick_runs(self, runs: Sequence[sw.Run]) -> None:
        """Tick some runs that are listed."""
        wanted = {run.path.resolve() for run in runs}
        self._tick([one.key for one in self._all if one.brief.path.resolve() in wanted])

    def _called(self, name: str | sw.Run) -> str:
        if isinstance(name, sw.Run):
            name = name.id
        name = clean(name)
        good = [one for one in self._all if one.brief.state != "damaged"]
        for same in (
            [one.key for one in good if name in (one.key, one.brief.name)],
            [one.key for one in good if one.key.startswith(name)],
        ):
            if len(same) == 1:
                return same[0]
        known = ", ".join(one.key for one in good) or "none"
        raise ValueError(f"run {name!r}: is none of those that can be ticked, or several: {known}")

    def _open(self) -> None:
        one = {one.key: one for one in self._all}.get(self.table.current)
        if one is None and self.table.current:
            self.table.current = ""  # it is gone; this is called again
            return
        self.deed.show(one)

    def _lay(self) -> None:
        ticked = self._ticked()
        keys, briefs = tuple(one.key for one in ticked), [one.brief for one in ticked]
        self._draws.ask(
            "reading the runs",
            lambda: _Laid(keys, overlay_data(briefs), comparable(briefs)),
            self._take,
        )

    def _take(self, laid: _Laid) -> None:
        self._laid = laid
        self._draw()

    def _draw(self) -> None:
        x: Over = self.axis.value
        assert x in OVER
        self._picture.value = overlay_html(self._laid.data, x, self.band.value)
        self._remarks.value = remarks_html(self._laid.remarks, len(self._laid.keys))


def remarks_html(remarks: Sequence[str], runs: int) -> str:
    """Whether runs may be set against each other, in words."""
    if runs < 2:
        return ""
    if not remarks:
        said = "Comparable: the same data and held-out text, equal compute."
        return f'<div class="sw-said"><span class="sw-fits"></span>{said}</div>'
    lines = "".join(f"<li>{escaped(_sentence(remark))}</li>" for remark in remarks)
    return (
        '<div class="sw-remarks" role="note"><b>Not comparable as they are</b>'
        f"<ul>{lines}</ul></div>"
    )


def _sentence(remark: Any) -> str:
    text = str(remark)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def place_said(place: str | Path | sw.Run) -> str:
    """A run by its id, a folder as it is seen from here if that is shorter."""
    if isinstance(place, sw.Run):
        return place.id
    return min(str(place), os.path.relpath(place), key=len)
