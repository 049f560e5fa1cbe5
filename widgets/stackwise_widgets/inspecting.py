"""The panel that looks into a run's rack: parts, attention, depth, drift, a sample in the making.

    panel = Inspect("shipped-grow", runs_dir="data/runs")
    panel.text.value = "And God said"
    panel.tab = "attention"; panel.data()

Every probe runs the real rack of the last checkpoint on a text of one's own, in a thread, with its
costs said before. One rack at most is in memory, whichever panel asks; one that does not fit is
read block by block, or refused with what it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import pandas as pd

import stackwise as sw
from stackwise_widgets.hiding import INSPECT, hidden
from stackwise_widgets.inspection import fields
from stackwise_widgets.inspection.attention_tab import AttentionTab
from stackwise_widgets.inspection.beside import beside, found_at, newest_and_beside
from stackwise_widgets.inspection.denoise_tab import DenoiseTab
from stackwise_widgets.inspection.depth_tab import DepthTab
from stackwise_widgets.inspection.drift_tab import DriftTab
from stackwise_widgets.inspection.rack_tab import RackTab
from stackwise_widgets.inspection.subject import Subject, heldout_text
from stackwise_widgets.latest import Latest
from stackwise_widgets.panel import Guard
from stackwise_widgets.theme import stylesheet
from stackwise_widgets.views.markup import clean, escaped

if TYPE_CHECKING:
    from stackwise_widgets.panel import PanelError
    from stackwise_widgets.paper import PaperFigure

TABS = {
    "rack": "Rack",
    "attention": "Attention",
    "depth": "Loss by depth",
    "drift": "Drift",
    "denoise": "Denoising",
}
Tab = RackTab | AttentionTab | DepthTab | DriftTab | DenoiseTab
NOTHING = "No run to look into. Launch one, or name one: Inspect('data/runs/...')."


class Inspect(w.VBox):
    """Looks into the rack of one run.

    Args:
        run: The run, its id or its folder; None for the newest one with weights in `runs_dir`.
        runs_dir: Folder of the runs that can be chosen.
        hide: Parts that are not shown: `choice`, `text`, or probes: `attention`, `depth`, ...

    Raises:
        RunError: If there is no such run.
        ValueError: If a name to hide is unknown.

    Attributes:
        guard: Its handlers run through it.
        choice: The run that is looked into, among those of the folder.
        text, hidden: What the rack reads, and the part of it that reads [MASK].
        attention, depth, drift, denoise: The probes.
    """

    def __init__(
        self,
        run: sw.Run | str | Path | None = None,
        runs_dir: str | Path = "runs",
        *,
        hide: Iterable[str] = (),
    ) -> None:
        self.hide = hidden(hide, INSPECT)
        self.names = [name for name in TABS if name not in self.hide]
        self.guard = Guard()
        self._heldout = Latest(self.guard)
        if run is None:
            self._run, self._known = newest_and_beside(runs_dir)
        else:
            self._run = found_at(run, runs_dir)
            self._known = beside(self._run)
        self._filling, self._wrong = False, ""
        self._number = -1
        self.choice = fields.choice_field(
            [clean(one.id) for one in self._known], clean(self._run.id) if self._run else None
        )
        self.text, self.hidden = fields.text_field(), fields.hidden_field()
        self._fetch = fields.fetch_button()
        self.attention, self.depth = AttentionTab(self.guard), DepthTab(self.guard)
        self.drift, self.denoise = DriftTab(self.guard), DenoiseTab(self.guard)
        self._rack, self._labels = RackTab(self.guard), w.HTML()
        tabs = self._tabs
        self.tabs = w.Tab(
            [tabs[name] for name in self.names],
            titles=[TABS[name] for name in self.names],
            selected_index=0,
        )
        super().__init__(self._arranged())
        self.add_class("sw-panel")
        self.add_class("sw-inspect")
        self._listen()
        self._use_run()

    def _arranged(self) -> list[w.Widget]:
        row = {"display": "flex", "flex_flow": "row wrap", "align_items": "flex-start"}
        title = w.HTML('<div class="sw-title">Inspect</div>')
        text = w.Box([self.text, w.VBox([self.hidden, self._fetch])], layout=row)
        which = w.Box([self.choice, self._labels], layout={**row, "align_items": "center"})
        shown = [box for key, box in (("choice", which), ("text", text)) if key not in self.hide]
        return [stylesheet(), self.guard.card, title, *shown, self.tabs]

    def _listen(self) -> None:
        guard = self.guard
        self.choice.observe(guard("opening the run", lambda _: self._chosen()), "value")
        for field in (self.text, self.hidden):
            field.observe(guard("reading the text", lambda _: self._use_text()), "value")
        self.tabs.observe(guard("opening a probe", lambda _: self._open()), "selected_index")
        self._fetch.on_click(guard("fetching held-out text", lambda _: self._ask_text()))

    @property
    def run(self) -> sw.Run | None:
        """The run that is looked into."""
        return self._run

    @run.setter
    def run(self, run: sw.Run | str | Path) -> None:
        now = [] if self._run is None else [self._run]
        found = found_at(run, now[0].path.parent if now else "runs")
        self.guard("opening the run", self._take_run)(found, beside(found, [*now, *self._known]))

    def _take_run(self, run: sw.Run, known: list[sw.Run]) -> None:
        """Show a run and offer those that are known; no handler takes it for a choice."""
        self._run, self._known, self._filling = run, known, True
        try:
            with self.choice.hold_sync():  # the page hears of both at once
                self.choice.options = [clean(other.id) for other in known]
                self.choice.value = clean(run.id)
        finally:
            self._filling = False
        self._use_run()

    @property
    def errors(self) -> list[PanelError]:
        """What went wrong in it; empty if nothing did."""
        return self.guard.errors

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The parts of the rack, as `views.rack_parts` has them."""
        self._rack.wait()
        return self._rack.parts

    @property
    def tab(self) -> str:
        """The probe that is seen: a key of `TABS`."""
        return self.names[self.tabs.selected_index or 0]

    @tab.setter
    def tab(self, name: str) -> None:
        """Show a probe; it runs at once if it costs little.

        Raises:
            ValueError: If there is none of that name.
        """
        if name not in self.names:
            raise ValueError(f"tab {name!r}: is none of {', '.join(self.names)}")
        self.tabs.selected_index = self.names.index(name)

    def wait(self, timeout: float | None = None) -> bool:
        """Until all that was asked for is shown."""
        shown = [tab.wait(timeout) for tab in self._tabs.values()]
        return self._heldout.wait(timeout) and all(shown)

    def data(self) -> pd.DataFrame:
        """The numbers of the probe that is seen."""
        self.wait()
        return self._seen().data()

    def figure(self) -> PaperFigure:
        """The probe that is seen, for a paper."""
        self.wait()
        return self._seen().figure()

    def code(self) -> str:
        """The Python that does what the probe that is seen does."""
        if self._run is None:
            return f"# {NOTHING}\n"
        head = f"import stackwise as sw\n\nrun = sw.attach({str(self._run.path)!r})\n"
        return head + self._seen().code()

    def _seen(self) -> Tab:
        return self._tabs[self.tab]

    @property
    def _tabs(self) -> dict[str, Tab]:
        found = (self._rack, self.attention, self.depth, self.drift, self.denoise)
        return dict(zip(TABS, found, strict=True))

    def _chosen(self) -> None:
        if self._filling:
            return
        found = next((run for run in self._known if clean(run.id) == self.choice.value), None)
        if found is not None and (self._run is None or found.path != self._run.path):
            self._run = found
            self._use_run()

    def _use_run(self) -> None:
        """Another run: its picture is read in a thread, and the probes begin anew."""
        self.guard.clear()
        self._clear()
        if self._run is None:
            self._rack.clear(NOTHING)
            return
        try:
            self._say_labels(self._run)
            self._rack.use(self._run)
            self._use_text()
        except Exception as error:  # a folder that is damaged, whichever file of it
            self._clear(f"This run cannot be looked into: {error}")
            self.guard.take("opening the run", error)

    def _clear(self, wrong: str = "") -> None:
        """Nothing is shown of any run any more, or what is wrong with the one that is chosen."""
        self._wrong, self._labels.value = wrong, ""
        for tab in self._tabs.values():
            tab.clear(wrong)

    def _say_labels(self, run: sw.Run) -> None:
        self.hidden.disabled = Subject(run).causal
        labels = run.labels
        said = " · ".join(filter(None, [labels.name, *labels.tags, run.state]))
        self._labels.value = f'<div class="sw-said sw-quiet">{escaped(said)}</div>'

    def _use_text(self) -> None:
        if self._run is None or self._wrong:
            return
        subject = Subject(self._run, self.text.value, self.hidden.value)
        self.attention.probe.use(subject)
        for tab in (self.depth, self.drift, self.denoise):
            tab.use(subject)
        self._open()

    def _open(self) -> None:
        """Let the probe that is seen begin."""
        begin: dict[str, Callable[[], Any]] = {
            "attention": self.attention.probe.begin,
            "depth": self.depth.probe.begin,
            "drift": self.drift.begin,
            "denoise": self.denoise.probe.begin,
        }
        if self.tab in begin:
            begin[self.tab]()

    def _ask_text(self) -> None:
        """The next held-out window, read in a thread: the corpus may have to be opened."""
        if self._run is None:
            return
        self.guard.clear()
        run, number = self._run, self._number + 1
        self._fetch.disabled = True

        def take(text: str) -> None:
            self._number, self._fetch.disabled = number, False
            self.text.value = text

        def failed() -> None:
            self._fetch.disabled = False

        self._heldout.ask("fetching held-out text", lambda: heldout_text(run, number), take, failed)
