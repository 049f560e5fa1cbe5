"""The stages of a run as a grid, and a button after each finished one: go on otherwise."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as w

import stackwise as sw
from stackwise.changes import nested
from stackwise.cli.settings import said
from stackwise.runs.damage import RunError
from stackwise.training.kept_stages import kept_stages
from stackwise.training.start import stages_of
from stackwise_widgets.panel import Guard
from stackwise_widgets.views import grid_html
from stackwise_widgets.views.markup import apart

if TYPE_CHECKING:
    from stackwise_widgets.charts import RunView

MOST_BUTTONS = 16


class Branching(w.VBox):
    """The grid of a run, and where it can be branched.

    Args:
        branch: Is called with a stage's number and what changes; makes the new run.

    Attributes:
        guard: Its handlers run through it; its card is below the field.
    """

    def __init__(self, branch: Callable[[int, dict[str, Any]], Any]) -> None:
        self.branch, self.after, self.guard = branch, 0, Guard()
        self.grid = w.HTML()
        self.row = w.HBox(layout={"flex_flow": "row wrap"})
        self.changes = w.Text(
            description="with",
            placeholder="optim.lr=3e-4 seed=1",
            continuous_update=False,
            layout={"width": "320px"},
            style={"description_width": "initial"},
        )
        self.go = w.Button(button_style="primary", layout={"width": "auto"})
        self.go.on_click(self.guard("branching the run", lambda _: self.press()))
        self.box = w.HBox(
            [self.changes, self.go], layout={"display": "none", "flex_flow": "row wrap"}
        )
        self._drawn: tuple[Any, ...] = ()
        super().__init__([self.grid, self.row, self.box, self.guard.card])

    def press(self) -> None:
        """Make the branch that is asked for."""
        self.guard.clear()
        self.branch(self.after, nested(said(shlex.split(self.changes.value))))

    def choose(self, number: int) -> None:
        """Ask for a branch after a stage."""
        self.after = number
        self.go.description = f"Branch after stage {number}"
        self.box.layout.display = "flex"

    def show(self, run: sw.Run, view: RunView) -> None:
        """Draw the stages as they stand; nothing is sent if nothing changed."""
        states = {stage.number: stage.state for stage in view.stages}
        now = (run.path, view.state, tuple(states.items()))
        if now == self._drawn:
            return
        self._drawn = now
        try:
            placement = sw.Placement.load(run.path / "placement.yaml")
            exp, made, plan = run.experiment, stages_of(run), run.plan()
        except (RunError, ValueError, OSError):
            self.grid.value, self.row.children = "", ()
            return
        done = {n: said_of(state, view.state) for n, state in states.items() if state != "waiting"}
        self.grid.value = apart(grid_html(exp, placement, made, plan, done=done), "r")
        self._offer([n for n in kept_stages(run.path) if n + 1 < len(made)], len(made))

    def _offer(self, stages: list[int], count: int) -> None:
        """A button after each kept stage; of very many, a list."""
        self.box.layout.display = "none"
        if not stages:
            self.row.children = ()
        elif len(stages) > MOST_BUTTONS:
            choice = w.Dropdown(
                options=[("branch after stage ...", -1), *((str(n), n) for n in stages)], value=-1
            )
            choose = self.guard("branching the run", lambda change: self.choose(change["new"]))
            choice.observe(choose, "value")
            self.row.children = (choice,)
        else:
            self.row.children = tuple(map(self._button, stages))

    def _button(self, number: int) -> w.Button:
        button = w.Button(
            description=f"Branch after stage {number}",
            tooltip="Go on from the end of this stage under other settings, as another run",
            layout={"width": "auto"},
        )
        button.on_click(self.guard("branching the run", lambda _: self.choose(number)))
        return button


def said_of(stage: str, run: str) -> str:
    """How a stage stands, as the grid says it: the one in hand as its run does."""
    return "finished" if stage == "done" else run
