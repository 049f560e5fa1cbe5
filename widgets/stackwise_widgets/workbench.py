"""The workbench: the five panels as one, over the same experiment and the same run.

    from stackwise_widgets import Workbench
    Workbench()

Design says what is launched, the bar on top launches it, Run shows it; Compare, Inspect and Teach
are made as they are first opened. What opens prepared is a file (`workbench_state.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

import stackwise as sw
from stackwise.detached.foreign import check_known_elsewhere
from stackwise.memory.room import check_room
from stackwise_widgets.design import TEXT, Design
from stackwise_widgets.hiding import check_name
from stackwise_widgets.panel import Guard
from stackwise_widgets.run_panel import RunPanel
from stackwise_widgets.shipped import SHIPPED, first_run
from stackwise_widgets.theme import stylesheet
from stackwise_widgets.views import plan_summary
from stackwise_widgets.views.markup import escaped
from stackwise_widgets.workbench_state import (
    PANELS,
    State,
    opened,
    panel_called,
    read_state,
    write_state,
)

if TYPE_CHECKING:
    import pandas as pd


class Workbench(w.VBox):
    """Design, Run, Compare, Inspect and Teach.

    Args:
        experiment: What to begin with: an experiment, or a preset's name.
        placement: How it is carried out; None for its preset's, or the usual one.
        state: A file that says what to open with, instead of both.
        hide: Names of panels; keys of the form; or parts of a panel, as `run.sample`,
            `design.Plan`, `teach.stage`.
        hardware: The machine that is planned for.
        warm: Keep a process ready for the first launch.

    Raises:
        ValueError: If a name to hide is unknown.
        ExperimentError: If the state cannot be read.
    """

    def __init__(
        self,
        experiment: sw.Experiment | str = "toy",
        placement: sw.Placement | None = None,
        *,
        state: str | Path | None = None,
        hide: Iterable[str] = (),
        hardware: str = "this",
        warm: bool = True,
    ) -> None:
        self.guard = Guard()
        text, panel, run = TEXT, PANELS[0], None
        if state is not None:
            said = read_state(state)
            experiment, placement = opened(said)
            text, panel, hardware = said.text or TEXT, said.panel, said.hardware
            run, hide = said.run, (*said.hide, *hide)
        self.hide = {name: tuple(keys) for name, keys in by_panel(hide).items()}
        if warm:
            sw.warm()
        self.design = Design(
            experiment, placement, hardware=hardware, text=text, hide=self.hide["Design"]
        )
        self.run_panel = RunPanel(
            self.design.experiment,
            self.design.placement,
            hide=("controls", *self.hide["Run"]),
        )
        card = self.run_panel.guard.card  # beside the buttons
        self.run_panel.children = [part for part in self.run_panel.children if part is not card]
        self.offered = w.HTML()
        self.made: dict[str, w.Widget] = {"Design": self.design, "Run": self.run_panel}
        self.shown = [name for name in PANELS if name not in self.hide[""]]
        self.boxes = {
            name: w.VBox([self.made[name]] if name in self.made else []) for name in self.shown
        }
        self.tab = w.Tab([*self.boxes.values()], titles=self.shown)
        self.design.on_change(self.guard("offering the experiment", self._offer))
        self.run_panel.on_change(self.guard("showing the run", self._on_run))
        self.tab.observe(self.guard("opening the panel", lambda _: self._open()), "selected_index")
        bar = w.VBox([self.run_panel.controls, self.offered, self.run_panel.standing])
        bar.add_class("sw-bar")
        super().__init__([stylesheet(), self.guard.card, card, bar, self.tab])
        self.add_class("sw-panel")
        self.go_to(panel if panel in self.shown else self.shown[0])
        first = sw.attach(run) if run else first_run(self.design.placement.runs_dir)
        if first is not None:
            self.run_panel.run = first
        self._offer(self.design)

    @property
    def experiment(self) -> sw.Experiment:
        """What Launch trains; setting it fills the form."""
        return self.design.experiment

    @experiment.setter
    def experiment(self, value: sw.Experiment) -> None:
        self.design.experiment = value

    @property
    def run(self) -> sw.Run | None:
        """The run that is shown; setting it shows another one."""
        return self.run_panel.run

    @run.setter
    def run(self, run: sw.Run) -> None:
        self.run_panel.run = run
        self._on_run(self.run_panel)

    @property
    def panel(self) -> Any:
        """The panel that is open."""
        return self.made[self.shown[self.tab.selected_index or 0]]

    @property
    def errors(self) -> list[Any]:
        """What went wrong in the workbench and its panels."""
        found = [*self.guard.errors]
        for panel in self.made.values():
            found += panel.errors
        return found

    def go_to(self, name: str) -> None:
        """Open a panel.

        Raises:
            ValueError: If there is none of that name, or it is hidden.
        """
        if name not in self.shown:
            raise ValueError(f"panel: {name!r} is not one of {', '.join(self.shown)}")
        self.tab.selected_index = self.shown.index(name)
        self._open()

    def save_state(self, path: str | Path, *, hide: Iterable[str] = ()) -> None:
        """Write what is designed and shown into a file, for `Workbench(state=...)`.

        Args:
            path: The file.
            hide: What is to be hidden then.

        Raises:
            ValueError: If a name to hide is unknown.
        """
        by_panel(hide)
        run = self.run_panel.run
        write_state(
            path,
            State(
                experiment=self.design.experiment.model_dump(mode="json"),
                placement=self.design.placement.model_dump(mode="json"),
                hardware=self.design.hardware.value,
                text=self.design.text.value,
                panel=self.shown[self.tab.selected_index or 0],
                run=None if run is None else str(run.path),
                hide=tuple(hide),
            ),
        )

    def code(self) -> str:
        """Python of the panel that is open."""
        return str(self.panel.code())

    def data(self) -> pd.DataFrame:
        """The numbers of the panel that is open."""
        return self.panel.data()

    def figure(self) -> Any:
        """The figure of the panel that is open."""
        return self.panel.figure()

    def _offer(self, design: Design) -> None:
        problems = design.problems
        plan = design.answer.plan if design.answer is not None and not problems else None
        why_not = why_no_launch(design, plan)
        ready = f"Launch trains {design.experiment}" + (f": {plan_summary(plan)}" if plan else "")
        said = f'<div class="sw-said" role="status">{escaped(why_not or ready)}</div>'
        if self.offered.value != said:
            self.offered.value = said
        self.run_panel.offer(design.experiment, design.placement, why_not)

    def _on_run(self, panel: RunPanel) -> None:
        """Show the run that has been launched, here and wherever else runs are shown."""
        if "Run" in self.shown:
            self.go_to("Run")
        for name in ("Compare", "Inspect"):
            if name in self.made:
                MAKERS[name](self, self.made[name])

    def _open(self) -> None:
        """Make the panel that is open, if it has not been; Teach, if another step is designed."""
        name = self.shown[self.tab.selected_index or 0]
        if name not in self.made or name == "Teach":
            self.made[name] = MAKERS[name](self, self.made.get(name))
            self.boxes[name].children = (self.made[name],)


def why_no_launch(design: Design, plan: sw.Plan | None) -> str:
    """Why what is designed cannot be launched, in words; empty if it can, as far as is known."""
    if design.problems:
        return f"Launch waits until the form is right: {design.problems[0]}"
    try:
        check_known_elsewhere(design.experiment)
        if plan is not None and design.hardware.value == "this":
            check_room(plan.rows, design.placement)
    except sw.ExperimentError as error:
        return f"It cannot be launched: {error}"
    return ""


def by_panel(hide: Iterable[str]) -> dict[str, list[str]]:
    """What is to be hidden, by the panel that knows its name; whole panels under an empty name.

    Raises:
        ValueError: If a name is unknown, or all panels are named.
    """
    found: dict[str, list[str]] = {"": [], **{name: [] for name in PANELS}}
    for name in [hide] if isinstance(hide, str) else hide:
        panel, dot, part = name.partition(".")
        whole = panel_called(panel)
        if whole is None:
            check_name(name, PANELS)
            found["Design"].append(name)
        elif dot:
            check_name(part, PANELS, whole)
            found[whole].append(part)
        else:
            found[""].append(whole)
    if len(found[""]) == len(PANELS):
        raise ValueError("hide: names every panel; leave one")
    return found


def _compare(bench: Workbench, made: Any) -> Any:
    """Compare over the runs that ship and those of the runs folder."""
    from stackwise_widgets.compare import Compare

    if made is not None:
        made.refresh()
        return made
    folders = [SHIPPED, bench.design.placement.runs_dir]
    return Compare(folders, hide=bench.hide["Compare"])


def _inspect(bench: Workbench, made: Any) -> Any:
    """Inspect the run that is shown."""
    from stackwise_widgets.inspecting import Inspect

    run = bench.run_panel.run
    if made is None:
        return Inspect(run, hide=bench.hide["Inspect"])
    made.run = run
    return made


def _teach(bench: Workbench, made: Any) -> Any:
    """Teach a step of what is designed."""
    from stackwise_widgets.teach import Teach

    designed = bench.design.experiment, bench.design.placement
    if made is not None:
        if (made.experiment, made.placement) == designed:
            return made
        made.close()
    return Teach(designed[0], placement=designed[1], hide=bench.hide["Teach"])


MAKERS: dict[str, Callable[[Workbench, Any], Any]] = {
    "Compare": _compare,
    "Inspect": _inspect,
    "Teach": _teach,
}
