"""What holds rows: a choice or section with its own knobs below it, and a section that folds.

A fold makes its rows when it is first opened, and a choice those of the kind that is chosen, so
that a form begins with a few dozen widgets and not with hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ipywidgets as w

from stackwise_widgets.form.arrangement import Part
from stackwise_widgets.form.fields import Looks, Row, problem_html
from stackwise_widgets.form.schema import Spec
from stackwise_widgets.views.markup import escaped

Make = Callable[[Spec], w.DOMWidget]


class Branch(w.VBox):
    """A knob that holds others: its own row, if it has one, and theirs below it.

    Args:
        spec: A choice or a section.
        row: Its own field.
        make: Makes what shows a spec.
        looks: The form's.
    """

    def __init__(self, spec: Spec, row: Row | None, make: Make, looks: Looks) -> None:
        self.spec, self.row, self._make, self._looks = spec, row, make, looks
        self._specs: tuple[Spec, ...] = ()
        self._head = None if row else w.HTML(layout=looks.column, style=looks.html)
        self._inside: w.VBox | None = None
        super().__init__([row or self._head], layout=looks.column)
        self.add_class("sw-branch")
        self.tell([])

    def grow(self, specs: Sequence[Spec]) -> None:
        """Show these knobs below; those that are shown already stay as they are."""
        if tuple(specs) == self._specs:
            return
        self._specs, before = tuple(specs), self._inside
        self._inside = w.VBox([*map(self._make, specs)], layout=self._looks.column)
        self._inside.add_class("sw-inside")
        top = self.children[0]
        self.children = (top, self._inside) if specs else (top,)
        close_all([before])

    def tell(self, wrong: Sequence[str]) -> None:
        """Say at its head what is wrong with a section that has no field of its own."""
        if self._head is not None:
            rule = "exactly one of these" if self.spec.either else ""
            said = ": ".join(part for part in (self.spec.key, self.spec.description) if part)
            head = escaped("; ".join(part for part in (said, rule) if part))
            told = f'<div class="sw-head">{head}</div>{problem_html(wrong)}'
            if self._head.value != told:
                self._head.value = told

    @property
    def message(self) -> str:
        """The HTML at its head."""
        return "" if self._head is None else self._head.value

    def close(self) -> None:
        """Take it and all that it holds from the browser."""
        close_all([self.row, self._head, self._inside])
        super().close()


class Fold(w.VBox):
    """A section that opens and closes by a button, so that keys reach it.

    Args:
        part: The section.
        make: Makes what shows a spec.
        looks: The form's.
        turned: Called when it has been opened or closed by hand.

    Attributes:
        part: The section.
        wrong: Where something in it was wrong when it was last drawn.
    """

    def __init__(self, part: Part, make: Make, looks: Looks, turned: Callable[[], Any]) -> None:
        self.part, self._make, self._looks, self._turned = part, make, looks, turned
        self.wrong: set[str] = set()
        self._told: w.HTML | None = None
        self._quiet = False
        self._body = w.VBox(layout=looks.gone)
        self._body.add_class("sw-inside")
        look = {"layout": looks.column, "style": looks.toggle}
        tip = part.description
        self.button = w.ToggleButton(description=part.title, tooltip=tip, **look)
        self.button.icon = "chevron-right"
        self.button.observe(self._pressed, "value")
        super().__init__([self.button, self._body], layout=looks.column)
        self.add_class("sw-fold")

    def _pressed(self, change: dict[str, bool]) -> None:
        self.build()
        self._body.layout = self._looks.column if change["new"] else self._looks.gone
        self.button.icon = "chevron-down" if change["new"] else "chevron-right"
        if not self._quiet:
            self._turned()

    @property
    def is_open(self) -> bool:
        """Whether its rows are to be seen."""
        return bool(self.button.value)

    def turn(self, opened: bool) -> None:
        """Open or close it without telling."""
        self._quiet = True
        try:
            self.button.value = opened
        finally:
            self._quiet = False

    def holds(self, path: str) -> bool:
        """Whether a knob is one of its own, or below one."""
        own = [spec.path for spec in self.part.specs]
        return any(path == each or path.startswith(f"{each}.") for each in own)

    def build(self) -> None:
        """Make its rows, if they are not there yet."""
        if not self._body.children:
            self._told = w.HTML(layout=self._looks.gone, style=self._looks.html)
            self._body.children = (self._told, *map(self._make, self.part.specs))

    def tell(self, wrong: Sequence[str], problems: int, changed: int) -> None:
        """Say what is wrong with the section itself, and count what is in it."""
        counts = [f"{changed} changed"] if changed else []
        counts += [f"{problems} problem{'s' * (problems > 1)}"] if problems else []
        title = f"{self.part.title} ({', '.join(counts)})" if counts else self.part.title
        if self.button.description != title:
            self.button.description = title
        if self._told is not None:
            self._told.value = problem_html(wrong)
            self._told.layout = self._looks.column if wrong else self._looks.gone

    @property
    def message(self) -> str:
        """The HTML at its head."""
        return "" if self._told is None else self._told.value

    def close(self) -> None:
        """Take it and all that it holds from the browser."""
        close_all([self.button, self._body])
        super().close()


def close_all(widgets: Iterable[w.Widget | None]) -> None:
    """Take widgets and what is in them from the browser."""
    for each in widgets:
        if each is not None:
            close_all(each.children if type(each) is w.VBox else ())
            each.close()
