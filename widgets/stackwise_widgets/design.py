"""The Design panel: choose an experiment, and see what it means and costs as it changes.

    design = Design("toy")
    design            # in a cell
    design.experiment, design.placement, design.plan

Left the form, right its pictures (`worked_out.py`), which a thread works out anew after each
change. `code`, `command` and `yaml` are what one takes away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import ipywidgets as w

import stackwise as sw
from stackwise_widgets.form import Form, Reading
from stackwise_widgets.hiding import left_over
from stackwise_widgets.latest import Latest
from stackwise_widgets.panel import Guard
from stackwise_widgets.said import as_command, as_python, as_yaml
from stackwise_widgets.theme import stylesheet
from stackwise_widgets.views.markup import apart, escaped
from stackwise_widgets.worked_out import PICTURES, Answer, Question, answer

if TYPE_CHECKING:
    import pandas as pd

    from stackwise_widgets.paper import PaperFigure

TEXT = (
    "In the beginning God created the heaven and the earth. And the earth was without form, and "
    "void; and darkness was upon the face of the deep."
)
PARTS = ("hardware", "text", "take_away", *PICTURES)
WAYS: dict[str, Callable[[sw.Experiment, sw.Placement], str]] = {
    "Python": as_python,
    "Command line": as_command,
    "YAML": as_yaml,
}


class Design(w.VBox):
    """A form of every knob, and beside it stages, plan, masks and attention.

    Args:
        experiment: What to begin with: an experiment, or a preset's name.
        placement: How it is carried out; None for its preset's, or the usual one.
        hardware: The machine that is planned for, as for `sw.plan`.
        text: The text that is masked.
        hide: Keys of the form, `hardware`, `text`, `take_away`, or names of pictures: `Stages`,
            `Plan`, `Masks`, `Attention`.

    Raises:
        ValueError: If a name to hide is unknown.
        ExperimentError: If there is no such preset or machine.
    """

    def __init__(
        self,
        experiment: sw.Experiment | str = "toy",
        placement: sw.Placement | None = None,
        *,
        hardware: str = "this",
        text: str = TEXT,
        hide: Iterable[str] = (),
    ) -> None:
        self.guard = Guard()
        if isinstance(experiment, str):
            placement = placement or sw.Placement.preset(experiment)
            experiment = sw.Experiment.preset(experiment)
        sw.hardware_called(hardware)
        hidden, keys = left_over(hide, PARTS)
        wrap = self._wrapped("reading the form")
        self.form = Form(experiment, placement, hide=keys, wrap=wrap)
        self._heard: list[Callable[[Design], Any]] = []
        self.answer: Answer | None = None
        self._latest = Latest(self.guard)
        known = dict.fromkeys([*sw.HARDWARE, hardware])
        self.hardware = w.Dropdown(
            options=[("this machine", "this"), *((name, name) for name in known if name != "this")],
            value=hardware,
            description="planned for",
            style={"description_width": "initial"},
        )
        self.text = w.Textarea(
            value=text,
            description="your text",
            continuous_update=False,
            style={"description_width": "initial"},
            layout={"width": "auto", "height": "64px"},
        )
        self.summary = w.HTML()
        self.pictures = {name: w.HTML() for name in PICTURES}
        self.taken = {name: _readable(name) for name in WAYS}
        self.form.on_change(wrap(self._on_form))
        for widget in (self.hardware, self.text):
            widget.observe(wrap(lambda _: self._ask()), "value")
        super().__init__([stylesheet(), self.guard.card, self._columns(hidden)])
        self.add_class("sw-panel")
        self._on_form(self.form.reading)

    @property
    def experiment(self) -> sw.Experiment:
        """The last experiment that could be; setting it fills the form."""
        return self.form.experiment

    @experiment.setter
    def experiment(self, value: sw.Experiment) -> None:
        self.form.fill(value)

    @property
    def placement(self) -> sw.Placement:
        """How it is carried out; setting it fills the form."""
        return self.form.placement

    @placement.setter
    def placement(self, value: sw.Placement) -> None:
        self.form.placement = value

    @property
    def errors(self) -> list[Any]:
        """What went wrong in the panel itself."""
        return self.guard.errors

    @property
    def problems(self) -> tuple[Any, ...]:
        """All that is wrong with what the form says, as far as it is known by now."""
        found = self.answer
        current = found is not None and found.question == self._question()
        return self.form.problems or (found.problems if found is not None and current else ())

    @property
    def plan(self) -> sw.Plan:
        """The plan of what the form says; waits for it.

        Raises:
            ExperimentError: If there is none.
        """
        self.settle()
        if self.answer is None or self.answer.plan is None or self.form.problems:
            raise sw.ExperimentError(self.problems)
        return self.answer.plan

    def code(self) -> str:
        """Python that launches the same."""
        return as_python(self.experiment, self.placement)

    def command(self) -> str:
        """A command line that launches the same."""
        return as_command(self.experiment, self.placement)

    def yaml(self) -> str:
        """The same as a file."""
        return as_yaml(self.experiment, self.placement)

    def data(self) -> pd.DataFrame:
        """The plan, one row per stage."""
        return self.plan.to_frame()

    def figure(self) -> PaperFigure:
        """The plan's memory by stage, for a paper."""
        from stackwise_widgets.plan_figure import plan_figure

        return plan_figure(self.plan)

    def on_change(self, function: Callable[[Design], Any]) -> None:
        """Call a function whenever the form has changed, and again as its plan is there."""
        self._heard.append(function)

    def settle(self, timeout: float = 60.0) -> bool:
        """Wait until all pictures are those of what the form says; whether they are."""
        return self._latest.wait(timeout)

    def close(self) -> None:
        """Take the panel from the browser."""
        if "form" in vars(self):  # one that could not be made is closed, too
            self.form.close()
        super().close()

    def _wrapped(self, doing: str) -> Callable[..., Any]:
        return lambda function: self.guard(doing, function)

    def _columns(self, hidden: set[str]) -> w.Box:
        shown = [self.summary]
        above = {"Masks": ("text", self.text), "Plan": ("hardware", self.hardware)}
        for name, picture in self.pictures.items():
            if name in hidden:
                continue
            key, control = above.get(name, ("", None))
            shown += [_title(name), *([control] if control and key not in hidden else []), picture]
        if "take_away" not in hidden:
            tab = w.Tab([*self.taken.values()], titles=[*WAYS])
            shown += [_title("Take it away"), tab]
        right = w.VBox(shown, layout={"flex": "1 1 460px", "min_width": "0"})
        left = w.VBox([self.form], layout={"flex": "0 0 416px", "max_width": "100%"})
        columns = w.Box([left, right])
        columns.add_class("sw-columns")
        return columns

    def _question(self) -> Question:
        return Question(
            self.form.experiment, self.form.placement, self.hardware.value, self.text.value
        )

    def _on_form(self, reading: Reading) -> None:
        if reading.problems:
            count = len(reading.problems)
            said = f"{count} problem{'s' * (count > 1)} in the form, each said at its field"
            self.summary.value = said_html(said)
        else:
            for name, widget in self.taken.items():
                widget.value = WAYS[name](self.experiment, self.placement)
            self._ask()
        self._tell()

    def _ask(self) -> None:
        question = self._question()
        self._latest.ask("working out the plan", lambda: self._work_out(question))

    def _work_out(self, question: Question) -> None:
        """In a thread: the plan, then the pictures, as long as nothing newer is asked."""
        found = answer(question)
        self.answer = found
        if found.problems and not self.form.problems:
            self.form.show(found.problems)
        self.summary.value = "" if found.plan is not None else said_html(found.summary)
        self._tell()
        for name, picture in PICTURES.items():
            if self._latest.is_overtaken():
                return
            if found.plan is not None:
                self.pictures[name].value = apart(picture(found), "d")

    def _tell(self) -> None:
        for function in tuple(self._heard):
            function(self)


def _title(text: str) -> w.HTML:
    return w.HTML(f'<h3 class="sw-title">{text}</h3>')


def _readable(name: str) -> w.Textarea:
    return w.Textarea(
        disabled=False,
        layout={"width": "auto", "height": "180px"},
        description=name,
        style={"description_width": "0px"},
    )


def said_html(text: str) -> str:
    """A line that a screen reader says when it changes."""
    return f'<p class="sw-said" role="status">{escaped(text)}</p>'
