"""The form: every knob of an experiment and its placement, drawn from their schema.

    form = Form(sw.Experiment.preset("toy"), sw.Placement.preset("toy"))
    form.on_change(lambda reading: print(reading.problems or reading.experiment))

What is filled in stays as it was typed. While something is wrong, `experiment` and `placement` are
the last ones that could be, and `problems` says everything that is wrong now. The texts are kept
in a `Sheet`, read by `reading.read`, and drawn by a `Board` of rows below a `Top`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import ipywidgets as w

import stackwise as sw
from stackwise_widgets.form.board import Board
from stackwise_widgets.form.cells import after_each_cell
from stackwise_widgets.form.fields import Looks
from stackwise_widgets.form.hiding import hidden_paths, top_specs
from stackwise_widgets.form.reading import Reading, read
from stackwise_widgets.form.sheet import Sheet, Texts
from stackwise_widgets.form.top import Top

if TYPE_CHECKING:
    from stackwise.errors import Problem

Handler = Callable[..., Any]


def as_it_is(handler: Handler) -> Handler:
    """A wrapper of handlers that does nothing."""
    return handler


class Form(w.VBox):
    """Every knob of an experiment and its placement, each with what is wrong with it.

    Args:
        value: The experiment to begin with.
        placement: How it is carried out; None for its preset's, or the usual one.
        hide: Keys that are not shown, sections included: `rack`, `optim.lr`; also `preset` and
            `find`, the lines above the knobs. They keep their values.
        wrap: Put around every function that a widget calls.

    Raises:
        ValueError: If a key to hide is unknown.
    """

    _held: tuple[Top | Board | Looks, ...] = ()  # a form that could not be made is closed, too
    _stop: Callable[[], None] = staticmethod(lambda: None)

    def __init__(
        self,
        value: sw.Experiment,
        placement: sw.Placement | None = None,
        *,
        hide: Iterable[str] = (),
        wrap: Callable[[Handler], Handler] = as_it_is,
    ) -> None:
        self._sheet = Sheet(top_specs())
        hidden = hidden_paths(self._sheet.specs, hide)
        self._wrap, self._looks = wrap, Looks()
        self._heard: list[Callable[[Reading], Any]] = []
        self._shown: tuple[Problem, ...] = ()
        self._put(value, placement or _usual_placement(value))
        redraw, reset = wrap(self._draw), wrap(self.reset)
        self._top = Top(self._looks, hidden, wrap(self.use), reset, redraw)
        self._board = Board(self._sheet, self._looks, hidden, wrap(self.write), reset, redraw)
        super().__init__([self._top, self._board], layout=self._looks.column)
        self.add_class("sw-form")
        self._draw()
        self._held = (self._top, self._board, self._looks)
        self._stop = after_each_cell(self._look_again)

    @property
    def experiment(self) -> sw.Experiment:
        """The last experiment that could be."""
        return self._experiment

    @experiment.setter
    def experiment(self, value: sw.Experiment) -> None:
        self.fill(value)

    @property
    def placement(self) -> sw.Placement:
        """The last placement that could be."""
        return self._placement

    @placement.setter
    def placement(self, value: sw.Placement) -> None:
        self._put(None, value)
        self._draw()
        self._tell()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All that is wrong with what the fields say now; empty if nothing is."""
        return self._reading.problems

    @property
    def reading(self) -> Reading:
        """What the fields say now."""
        return self._reading

    @property
    def text(self) -> Texts:
        """What stands in each field, hidden ones included, by path; ticks are true or false."""
        return dict(self._sheet.texts)

    def values(self) -> dict[str, Any]:
        """What the fields say as a mapping, with a section `placement`; nothing is checked."""
        return self._sheet.values()

    @property
    def preset(self) -> str:
        """The preset with which the knobs are compared; empty if it is the value given."""
        return self._preset

    @property
    def changed(self) -> list[str]:
        """Paths of the knobs that are not as the preset, or the value given, has them."""
        return self._sheet.changed()

    def fill(self, experiment: sw.Experiment, placement: sw.Placement | None = None) -> None:
        """Fill every field; without a placement those of it stay. One change is told."""
        self._put(experiment, placement)
        self._draw()
        self._tell()

    def use(self, preset: str) -> None:
        """Fill every field from a preset.

        Raises:
            ExperimentError: If there is none of that name.
        """
        self.fill(sw.Experiment.preset(preset), sw.Placement.preset(preset))

    def write(self, path: str, text: str | bool) -> None:
        """Fill in one field, as if it had been typed.

        Raises:
            KeyError: If there is no such field now.
            TypeError: If it holds a tick and gets text, or the other way round.
        """
        self._sheet.write(path, text)
        self._changed()

    def reset(self, path: str | None = None) -> None:
        """Put back one field, or all of them, as the preset has them."""
        for each in self.changed if path is None else [path]:
            if path is not None or each in self._sheet.texts:
                self._sheet.reset(each)
        self._changed()

    def refresh(self) -> None:
        """Look the kinds up again. If that changes what the fields mean, it is told."""
        before = self._reading
        self._sheet.refresh()
        self._read()
        self._draw()
        if before != self._reading:
            self._tell()

    def on_change(self, function: Callable[[Reading], Any]) -> Callable[[], None]:
        """Call a function with what the fields say, after each change; returns what ends it."""
        self._heard.append(function)
        return lambda: self._heard.remove(function) if function in self._heard else None

    def show(self, problems: Iterable[Problem]) -> None:
        """Show problems that were found elsewhere at their fields, until the next change."""
        self._shown = tuple(problems)
        self._draw()

    def field(self, path: str) -> w.ValueWidget:
        """The widget in which a knob is filled in.

        Raises:
            KeyError: If there is none now, or it is hidden.
        """
        if self._board.unfold(path):
            self._draw()
        return self._board.rows[path].control

    def message(self, path: str) -> str:
        """The HTML at a field, at the head of a section, or, for an empty path, at the top.

        Raises:
            KeyError: If nothing is shown there.
        """
        return self._board.message(path) if path else self._top.message

    def close(self) -> None:
        """Take the form from the browser."""
        self._stop()
        for each in self._held:
            each.close()
        super().close()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        self._look_again()
        return super()._repr_mimebundle_(**kwargs)

    def _look_again(self) -> None:
        self._wrap(self.refresh)()

    def _put(self, experiment: sw.Experiment | None, placement: sw.Placement | None) -> None:
        """Write what is given into its fields; what is not given stays as it was typed."""
        stays = {
            path: text
            for path, text in self._sheet.texts.items()
            if (placement if path.startswith("placement.") else experiment) is None
        }
        if experiment is not None:
            if not isinstance(experiment, sw.Experiment):
                raise TypeError(f"{experiment!r} is no experiment; give a sw.Experiment")
            self._experiment = experiment
            self._preset = experiment.title if experiment.title in sw.presets() else ""
            self._base = sw.Experiment.preset(self._preset) if self._preset else experiment
        self._placement = placement or self._placement
        usual = sw.Placement.preset(self._preset) if self._preset else self._placement
        values = _mapping(self._experiment, self._placement)
        self._sheet.fill(values, _mapping(self._base, usual), stays)
        self._shown = ()
        self._read()

    def _changed(self) -> None:
        self._shown = ()
        self._sheet.refresh()
        self._read()
        self._draw()
        self._tell()

    def _read(self) -> None:
        self._reading = read(self._sheet.values())
        if not self._reading.problems:
            self._experiment, self._placement = self._reading.experiment, self._reading.placement

    def _draw(self) -> None:
        problems = (*self.problems, *self._shown)
        lines, found = self._board.draw(problems, self._top.words, self._top.explains)
        self._top.draw(self._preset, self.changed, problems, lines, found)

    def _tell(self) -> None:
        for function in tuple(self._heard):
            function(self._reading)


def _usual_placement(experiment: sw.Experiment) -> sw.Placement:
    known = experiment.title in sw.presets()
    return sw.Placement.preset(experiment.title) if known else sw.Placement()


def _mapping(experiment: sw.Experiment, placement: sw.Placement) -> dict[str, Any]:
    values = experiment.model_dump(mode="json")
    return {**values, "placement": placement.model_dump(mode="json")}
