"""The Run panel: launch an experiment, watch it, pause, stop, branch it.

    panel = RunPanel("toy")              # or RunPanel(sw.attach("toy-left"))
    panel                                # in a cell

All that it shows is read from the run's folder, twice a second while the run is live; closing the
page or the kernel ends no run. The chart is `charts/live.py`'s, the only one of its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ipywidgets as w

import stackwise as sw
from stackwise_widgets.block_numbers import BlockNumbers
from stackwise_widgets.branching import Branching
from stackwise_widgets.charts import LiveChart, Reader, RunView, run_still, run_table
from stackwise_widgets.hiding import hidden
from stackwise_widgets.latest import Latest
from stackwise_widgets.panel import Guard
from stackwise_widgets.run_controls import Controls
from stackwise_widgets.said import as_python
from stackwise_widgets.sample_box import SampleBox
from stackwise_widgets.standing import standing_html
from stackwise_widgets.theme import stylesheet
from stackwise_widgets.ticking import Ticking
from stackwise_widgets.views import table_html
from stackwise_widgets.views.markup import escaped

if TYPE_CHECKING:
    import pandas as pd

    from stackwise_widgets.paper import PaperFigure

PARTS = ("launch", "controls", "chart", "stages", "sample", "numbers")
Stages = Sequence[int] | Literal["next"] | None
ACTS: dict[str, Callable[[sw.Run], Any]] = {
    "pause": lambda run: run.pause(),
    "resume": lambda run: run.resume(),
    "stop": lambda run: run.stop(),
    "stop-now": lambda run: run.stop(now=True),
}
FAST_SECONDS = 0.2  # between two looks, until there is something to see
LAST_ROWS = 200


class RunPanel(w.VBox):
    """One run: its buttons, its progress, its chart, its stages, a sample.

    Args:
        source: What Launch trains: an experiment, or a preset's name; or a run to show; None for
            nothing.
        placement: How it is carried out.
        run: The run to show, or its id or folder; None for the one that is launched.
        hide: Parts that are not shown: `launch`, `controls`, `chart`, `stages`, `sample`,
            `numbers`.

    Raises:
        ValueError: If a name to hide is unknown.
    """

    def __init__(
        self,
        source: sw.Experiment | sw.Run | str | None = None,
        placement: sw.Placement | None = None,
        *,
        run: sw.Run | str | Path | None = None,
        hide: Iterable[str] = (),
    ) -> None:
        self.guard, hide = Guard(), hidden(hide, PARTS)
        self.why_not, self._heard = "", list[Callable[[RunPanel], Any]]()
        experiment = None
        if isinstance(source, sw.Run):
            run = run or source
        elif isinstance(source, str):
            placement = placement or sw.Placement.preset(source)
            experiment = sw.Experiment.preset(source)
        else:
            experiment = source
        self.experiment, self.placement = experiment, placement
        self._run: sw.Run | None = None
        self._reader: Reader | None = None
        launches = experiment is not None and "launch" not in hide
        self.controls = Controls(self.guard("the button", self.press), launches=launches)
        self.standing = w.HTML()
        self.along = w.ToggleButtons(
            options=["steps", "tokens", "flops", "seconds"],
            description="along",
            style={"button_width": "auto", "description_width": "initial"},
        )
        self.heat = w.ToggleButtons(
            options=[("exit loss", "exit_loss"), ("gradient norm", "grad_norm")],
            description="layers",
            style={"button_width": "auto", "description_width": "initial"},
        )
        self.chart: LiveChart | None = None
        self.chart_box = w.VBox()
        self.branching = Branching(self.branch)
        self.sample = SampleBox(self.guard)
        self.numbers = w.Button(description="Show the numbers", layout={"width": "auto"})
        self.table = w.HTML()
        self.blocks = BlockNumbers(self.guard)
        self._launching = Latest(self.guard)
        self._ticking = Ticking("reading the run", self.look, self.guard, FAST_SECONDS)
        for switch in (self.along, self.heat):
            switch.observe(self.guard("drawing the run", lambda _: self._switch()), "value")
        self.numbers.on_click(self.guard("listing the numbers", lambda _: self.list_numbers()))
        super().__init__(self._parts(hide))
        self.add_class("sw-panel")
        self._say("" if experiment is None else "nothing is launched yet")
        if run is not None:
            self.run = run if isinstance(run, sw.Run) else sw.attach(run)

    @property
    def run(self) -> sw.Run | None:
        """The run that is shown; setting it shows another one."""
        return self._run

    @run.setter
    def run(self, run: sw.Run) -> None:
        self._ticking.stop()
        self._run, self._reader = run, Reader(run)
        self.blocks.use(run)
        self._ticking = Ticking("reading the run", self.look, self.guard, FAST_SECONDS)
        if self.look():
            self._ticking.start()

    @property
    def errors(self) -> list[Any]:
        """What went wrong in the panel itself."""
        return [*self.guard.errors, *self.branching.guard.errors]

    def offer(self, experiment: sw.Experiment, placement: sw.Placement, why_not: str = "") -> None:
        """Say what Launch trains from here on, or why it cannot.

        Args:
            experiment: What.
            placement: How.
            why_not: Why it cannot be launched; empty if it can.
        """
        self.experiment, self.placement, self.why_not = experiment, placement, why_not
        self._enable()

    def launch(self, stages: Stages = None) -> None:
        """Launch what is offered; returns at once, and shows the run when it is there."""
        if self.experiment is None or self.why_not:
            raise sw.ExperimentError(self.why_not or "nothing is offered to launch")
        self._say("making the run; the first time its text is read and cut into tokens")
        self._launching.ask("launching the run", lambda: self._launch(stages), failed=self._refused)

    def press(self, name: str) -> None:
        """Do what a button does."""
        self.guard.clear()
        if name == "launch":
            self.launch()
        elif name == "next":
            self.launch("next")
        elif self._run is not None:
            ACTS[name](self._run)
            self._ticking.start()

    def branch(self, after_stage: int, changes: dict[str, Any]) -> None:
        """Branch the run that is shown, and show the branch."""
        self.guard.clear()
        if self._run is not None:
            self.run = self._run.fork(after_stage=after_stage, **changes)

    def look(self) -> bool:
        """Read the run and draw what is new; whether there may be more."""
        if self._run is None or self._reader is None:
            return False
        view = self._reader.read()
        self._draw(view)
        self._ticking.seconds = 0.5 if view.step else FAST_SECONDS
        return self._run.is_live

    def on_change(self, function: Callable[[RunPanel], Any]) -> None:
        """Call a function as another run is shown, and as one ends."""
        self._heard.append(function)

    def settle(self, timeout: float = 60.0) -> bool:
        """Wait until what was launched is there; whether it is."""
        return self._launching.wait(timeout)

    def code(self) -> str:
        """Python that shows the same run; without one, that launches what is offered."""
        if self._run is not None:
            return f"import stackwise as sw\n\nrun = sw.attach({str(self._run.path)!r})\n"
        if self.experiment is None:
            return "import stackwise as sw\n"
        return as_python(self.experiment, self.placement or sw.Placement())

    def data(self) -> pd.DataFrame:
        """The numbers that are drawn."""
        return run_table(self._view())

    def figure(self) -> PaperFigure:
        """The run as it stands, for a paper."""
        return run_still(self._view(), self.along.value, self.heat.value)

    def list_numbers(self) -> None:
        """Show the last rows of the numbers that are drawn."""
        frame = self.data().tail(LAST_ROWS)
        rows = [
            [f"{x:.6g}" if isinstance(x, float) else str(x) for x in row] for row in frame.values
        ]
        self.table.value = table_html(
            [str(c) for c in frame.columns], rows, "the last numbers drawn"
        )

    def _parts(self, hide: set[str]) -> list[w.Widget]:
        """The widgets from top to bottom."""
        switches = w.HBox([self.along, self.heat], layout={"flex_flow": "row wrap"})
        parts = {
            "controls": [self.controls, self.standing],
            "chart": [switches, self.chart_box],
            "stages": [self.branching],
            "sample": [self.sample],
            "numbers": [self.numbers, self.table, self.blocks],
        }
        shown = [widget for name, found in parts.items() if name not in hide for widget in found]
        return [stylesheet(), self.guard.card, *shown]

    def _launch(self, stages: Stages) -> None:
        """In a thread: make the run, hand it over, and show it."""
        assert self.experiment is not None
        self.run = sw.launch(self.experiment, self.placement, stages=stages)
        for function in tuple(self._heard):
            function(self)

    def _refused(self) -> None:
        """It could not be launched: say again how the run stands that is shown."""
        if self._run is not None:
            self.look()
        else:
            self._say("nothing is launched: what is wrong is said above")
            self._enable()

    def _draw(self, view: RunView) -> None:
        assert self._run is not None
        said = standing_html(self._run, view)
        if said != self.standing.value:
            self.standing.value = said
        self._enable()
        if self.chart is None:
            self.chart = LiveChart(view, self.along.value, self.heat.value)
            self.chart_box.children = (self.chart.figure,)
        else:
            self.chart.update(view)
        self.branching.show(self._run, view)
        self.sample.show(self._run, has_weights=self._run.has_weights())

    def _switch(self) -> None:
        if self.chart is not None:
            self.chart.x, self.chart.heat = self.along.value, self.heat.value

    def _enable(self) -> None:
        self.controls.show(None if self._run is None else self._run.state, self.why_not)

    def _say(self, text: str) -> None:
        self.standing.value = (
            f'<p class="sw-said" role="status">{escaped(text)}</p>' if text else ""
        )

    def _view(self) -> RunView:
        if self._reader is None:
            raise sw.ExperimentError("no run is shown; launch one, or set run")
        return self._reader.read()
