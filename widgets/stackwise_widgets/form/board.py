"""The knobs as widgets: the main ones first, then the sections; drawn anew after each change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from stackwise_widgets.form.arrangement import MAIN, Part, first_knobs, hits, parts
from stackwise_widgets.form.fields import Looks, Row
from stackwise_widgets.form.groups import Branch, Fold
from stackwise_widgets.form.hiding import covers
from stackwise_widgets.form.reading import shown_at
from stackwise_widgets.form.schema import Spec, within

if TYPE_CHECKING:
    from stackwise.errors import Problem
    from stackwise_widgets.form.sheet import Sheet


class Board(w.VBox):
    """All knobs that are not hidden. A row is made when its section is first opened.

    Args:
        sheet: What stands in the fields.
        looks: The form's.
        hidden: Keys that are not shown.
        write: Called with a path and what was filled in.
        reset: Called with the path of a field to put back.
        redraw: Called when a section was opened.

    Attributes:
        rows: Those made so far, by path.
    """

    def __init__(
        self,
        sheet: Sheet,
        looks: Looks,
        hidden: Collection[str],
        write: Callable[[str, str | bool], Any],
        reset: Callable[[str], Any],
        redraw: Callable[[], Any],
    ) -> None:
        self._sheet, self._looks, self._hidden = sheet, looks, hidden
        self._write, self._reset = write, reset
        self.rows: dict[str, Row] = {}
        self._branches: dict[str, Branch] = {}
        self._opened: dict[Fold, bool] | None = None  # before the search began
        seen = [self._seen(part) for part in parts(sheet.specs)]
        self._folds = [Fold(part, self._make, looks, redraw) for part in seen if part.specs]
        self._main = [self._make(spec) for spec in self._left(first_knobs(sheet.specs))]
        super().__init__([*self._main, *self._folds], layout=looks.column)
        self.add_class("sw-board")

    def draw(
        self, problems: Iterable[Problem], words: Sequence[str], explain: bool
    ) -> tuple[list[str], bool]:
        """Show what stands in the sheet.

        Args:
            problems: What is wrong.
            words: What is searched for.
            explain: Whether each knob says what it is for.

        Returns:
            Problems that belong to no knob shown, and whether the search found one.
        """
        self._grow()
        wrong = shown_at(problems, self._places())
        changed = set(self._sheet.changed())
        found = self._sift(words)
        for fold in self._folds:
            self._tell_fold(fold, wrong, changed)
        texts, usual = self._sheet.texts, self._sheet.usual()
        for path, row in self.rows.items():
            row.show(texts[path])
            row.tell(wrong.get(path, ()), usual[path] if path in changed else None, explain)
        for path, branch in self._branches.items():
            branch.tell(wrong.get(path, ()))
        return wrong.get("", []), found

    def unfold(self, path: str) -> bool:
        """Make the row of a knob, if its section was never opened; say whether it was made."""
        folds = [fold for fold in self._folds if path not in self.rows and fold.holds(path)]
        for fold in folds:
            fold.build()
        return bool(folds)

    def message(self, path: str) -> str:
        """The HTML at a field or at the head of a section.

        Raises:
            KeyError: If nothing is shown there.
        """
        if path in self._sheet.texts:
            return self.rows[path].message
        heads: dict[str, Fold | Branch] = {fold.part.path: fold for fold in self._folds}
        return (heads | self._branches)[path].message

    def close(self) -> None:
        """Take it and all that it holds from the browser."""
        for each in self.children:
            each.close()
        super().close()

    def _left(self, specs: Iterable[Spec]) -> list[Spec]:
        return [spec for spec in specs if not covers(self._hidden, spec.path)]

    def _seen(self, part: Part) -> Part:
        return part._replace(specs=tuple(self._left(part.specs)))

    def _make(self, spec: Spec) -> Row | Branch:
        """What shows a knob: a row, and below it the place of those that it holds."""
        row = None
        if spec.has_field:
            label = spec.path if spec.path in MAIN else spec.key
            text = self._sheet.texts[spec.path]
            row = Row(spec, text, label, self._looks, self._write, self._reset)
            self.rows[spec.path] = row
        if spec.control not in ("section", "choice"):
            assert row is not None
            return row
        self._branches[spec.path] = branch = Branch(spec, row, self._make, self._looks)
        branch.grow(self._inside(spec))
        return branch

    def _inside(self, spec: Spec) -> list[Spec]:
        return self._left(within(spec, self._sheet.texts.get(spec.path, True)))

    def _grow(self) -> None:
        """Show the knobs of the kinds that are chosen by now, and forget those of others."""
        for spec in self._sheet.present():
            if spec.path in self._branches:
                self._branches[spec.path].grow(self._inside(spec))
        there = {spec.path for spec in self._sheet.present()}
        self.rows = {path: row for path, row in self.rows.items() if path in there}
        self._branches = {path: each for path, each in self._branches.items() if path in there}

    def _places(self) -> set[str]:
        """Where a problem can be shown: at a field, made or not, and at the head of a section."""
        fields = {spec.path for spec in self._left(self._sheet.present()) if spec.has_field}
        return fields | self._branches.keys() | {fold.part.path for fold in self._folds} - {""}

    def _tell_fold(
        self, fold: Fold, wrong: Mapping[str, list[str]], changed: Collection[str]
    ) -> None:
        """Count what is in it; a section in which something is newly wrong opens."""
        own = wrong.get(fold.part.path, []) if fold.part.path else []
        places = {path for path in wrong if path and (fold.holds(path) or path == fold.part.path)}
        if places - fold.wrong:
            fold.turn(True)
            self._grow()
        fold.wrong = places
        count = sum(len(wrong[path]) for path in places)
        fold.tell(own, count, sum(fold.holds(path) for path in changed))

    def _sift(self, words: Sequence[str]) -> bool:
        """Show only the knobs that speak of these words, and what holds them."""
        present = self._left(self._sheet.present())
        hit = {spec.path for spec in present if spec.has_field and hits(spec, words)}
        self._sift_folds(hit, bool(words))
        for path, row in self.rows.items():
            kept = not words or any(each == path or each.startswith(f"{path}.") for each in hit)
            row.layout = self._looks.row if kept else self._looks.gone
        for path, branch in self._branches.items():
            kept = not words or any(each == path or each.startswith(f"{path}.") for each in hit)
            branch.layout = self._looks.column if kept else self._looks.gone
        return not words or bool(hit)

    def _sift_folds(self, hit: Collection[str], searching: bool) -> None:
        if searching and self._opened is None:
            self._opened = {fold: fold.is_open for fold in self._folds}
        elif not searching and self._opened is None:
            return
        for fold in self._folds:
            found = any(fold.holds(path) for path in hit)
            fold.layout = self._looks.column if found or not searching else self._looks.gone
            fold.turn(found if searching else (self._opened or {})[fold])
        if not searching:
            self._opened = None
