"""What stands above the knobs: the preset, the search, and how things stand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as w

import stackwise as sw
from stackwise_widgets.form.fields import MOST, Looks, labelled, offer, problem_html
from stackwise_widgets.views.markup import escaped

if TYPE_CHECKING:
    from stackwise.errors import Problem

OWN = "(the experiment given)"


class Top(w.VBox):
    """The lines above the knobs.

    Args:
        looks: The form's.
        hidden: Which of the lines are not shown: `preset`, `find`.
        use: Called with a preset's name.
        reset: Puts all knobs back.
        redraw: Called when other knobs are to be seen.
    """

    def __init__(
        self,
        looks: Looks,
        hidden: Collection[str],
        use: Callable[[str], Any],
        reset: Callable[[], Any],
        redraw: Callable[[], Any],
    ) -> None:
        self._use, self._redraw, self._quiet = use, redraw, False
        said = {"layout": looks.field, "style": looks.list}
        names = [(OWN, ""), *((name, name) for name in sw.presets())]
        tip = "a shipped experiment; choosing one fills every field"
        self.preset = w.Dropdown(options=names, value="", **labelled("preset", tip), **said)
        self.reset = w.Button(description="reset all", layout=looks.button, style=looks.press)
        self.find = w.Text(
            placeholder="part of a name or description",
            layout=looks.field,
            style=looks.text,
            **labelled("find a knob", "show only the knobs that speak of these words"),
        )
        self.explain = w.Checkbox(
            indent=False,
            layout=looks.button,
            style=looks.tick,
            **labelled("explain", "say at each knob what it is for"),
        )
        self._state = w.HTML(layout=looks.column, style=looks.html)
        self.preset.observe(self._chosen, "value")
        self.reset.on_click(lambda _: reset())
        for each in (self.find, self.explain):
            each.observe(lambda _: redraw(), "value")
        first = w.HBox([self.preset, self.reset], layout=looks.row)
        second = w.HBox([self.find, self.explain], layout=looks.row)
        lines = {"preset": first, "find": second}
        self._lines = (first, second)
        shown = [line for name, line in lines.items() if name not in hidden]
        super().__init__([*shown, self._state], layout=looks.column)
        self.add_class("sw-top")

    def _chosen(self, change: dict[str, str]) -> None:
        if not self._quiet and change["new"]:
            self._use(change["new"])

    @property
    def words(self) -> tuple[str, ...]:
        """What is searched for."""
        return tuple(self.find.value.split())

    @property
    def explains(self) -> bool:
        """Whether each knob says what it is for."""
        return self.explain.value

    @property
    def message(self) -> str:
        """The HTML that says how things stand."""
        return self._state.value

    def draw(
        self,
        preset: str,
        changed: Sequence[str],
        problems: Sequence[Problem],
        lines: Sequence[str],
        found: bool,
    ) -> None:
        """Say how things stand.

        Args:
            preset: The one that the knobs are compared with, or none.
            changed: Paths of those that differ.
            problems: All that is wrong.
            lines: Problems that are shown nowhere else.
            found: Whether anything is to be seen of what is searched for.
        """
        self._quiet = True
        try:
            own = [] if preset else [(OWN, "")]
            names = [(name, name) for name in sw.presets()]
            offer(self.preset, [*own, *names], preset)
        finally:
            self._quiet = False
        self.reset.disabled = not changed
        said = "" if found else f"No knob speaks of {' '.join(self.words)!r}."
        state = " ".join(
            part for part in (standing(preset, changed), counted(problems), said) if part
        )
        told = f'<div class="sw-state" role="status">{escaped(state)}</div>{problem_html(lines)}'
        if self._state.value != told:
            self._state.value = told

    def close(self) -> None:
        """Take it and all that it holds from the browser."""
        held = (self.preset, self.reset, self.find, self.explain, self._state, *self._lines)
        for each in held:
            each.close()
        super().close()


def standing(preset: str, changed: Sequence[str]) -> str:
    """How many knobs differ from what."""
    source = f"preset {preset}" if preset else "the experiment given"
    count = f"{len(changed)} knob{'s' * (len(changed) != 1)} changed"
    return f"{count} from {source}." if changed else f"As {source}."


def counted(problems: Sequence[Problem]) -> str:
    """How many problems there are, and where."""
    if not problems:
        return ""
    places = list(dict.fromkeys(problem.path or "the whole" for problem in problems))
    many = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    more = [f"{len(places) - MOST} more places"] if len(places) > MOST else []
    return f"Not valid: {many}, at {', '.join([*places[:MOST], *more])}."
