"""The row of one knob: its field, a mark where it was changed, and what is wrong with it.

A row has two widgets while all is well; the mark and the message are made when they are needed.
All rows of a form share their layouts and styles, since each of those is a model in the browser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import ipywidgets as w
from ipywidgets.widgets.widget_bool import CheckboxStyle, ToggleButtonStyle
from ipywidgets.widgets.widget_description import DescriptionStyle
from ipywidgets.widgets.widget_string import HTMLStyle, TextStyle

from stackwise_widgets.form.schema import Spec, about
from stackwise_widgets.views.markup import escaped

LABEL_WIDTH = "11em"
LONGEST, MOST = 400, 6  # characters of a problem, and problems of a field, that are shown


class Looks:
    """The layouts and styles of one form."""

    def __init__(self) -> None:
        self.row = w.Layout(width="100%", flex="0 0 auto", flex_flow="row wrap")
        self.row.align_items = "center"
        self.column = w.Layout(width="100%", flex="0 0 auto")
        self.gone = w.Layout(display="none")
        self.field = w.Layout(width="auto", min_width="0", flex="1 1 15em")
        self.note = w.Layout(width="auto", flex="1 1 100%")
        self.button = w.Layout(width="auto")
        label = {"description_width": LABEL_WIDTH}
        self.text = TextStyle(**label)
        self.list = DescriptionStyle(**label)
        self.tick = CheckboxStyle(**label)
        self.press = w.ButtonStyle()
        self.toggle = ToggleButtonStyle()
        self.html = HTMLStyle()

    def close(self) -> None:
        """Take all of them from the browser."""
        for each in vars(self).values():
            each.close()


class Row(w.HBox):
    """One knob.

    Args:
        spec: What it is.
        text: What stands in its field.
        label: What it is called.
        looks: The form's.
        write: Called with the path and what was filled in.
        reset: Called with the path.
    """

    def __init__(
        self,
        spec: Spec,
        text: str | bool,
        label: str,
        looks: Looks,
        write: Callable[[str, str | bool], None],
        reset: Callable[[str], None],
    ) -> None:
        self.spec, self._label, self._looks = spec, label, looks
        self._write, self._reset = write, reset
        self._quiet, self._said = False, ""
        self._note: w.HTML | None = None
        self._mark: w.Button | None = None
        self.control = field_of(spec, text, label, looks)
        self.control.observe(self._filled, "value")
        super().__init__((self.control,), layout=looks.row)
        self.add_class("sw-field").add_class(f"sw-at-{re.sub(r'[^A-Za-z0-9_-]', '-', spec.path)}")

    def _filled(self, change: dict[str, str | bool]) -> None:
        if not self._quiet:
            self._write(self.spec.path, change["new"])

    def show(self, text: str | bool) -> None:
        """Put a text into the field without saying that it changed."""
        self._quiet = True
        try:
            if isinstance(self.control, w.Dropdown):
                offer(self.control, choices(self.spec, str(text)), text)
            elif self.control.value != text:
                self.control.value = text
            if self.control.tooltip != (tip := tooltip(self.spec, text)):
                for name, value in labelled(self._label, tip).items():
                    setattr(self.control, name, value)
        finally:
            self._quiet = False

    def tell(self, wrong: Sequence[str], usual: str | bool | None, explain: bool) -> None:
        """Say what is wrong, and what it was if it was changed."""
        said = problem_html(wrong)
        if explain:
            text = about(self.spec, self.control.value).replace("\n", "; ")
            said += f'<div class="sw-about">{escaped(text)}</div>'
        (self.add_class if wrong else self.remove_class)("sw-invalid")
        gone = [*self._set_note(said), *self._set_mark(usual)]
        shown = (self.control, self._mark, self._note)
        if (children := tuple(each for each in shown if each is not None)) != self.children:
            self.children = children
        for each in gone:
            each.close()

    def _set_note(self, said: str) -> list[w.Widget]:
        """Show a message; what is no longer shown."""
        before, self._said = self._note, said
        if not said:
            self._note = None
        elif self._note is None:
            self._note = w.HTML(said, layout=self._looks.note, style=self._looks.html)
        elif self._note.value != said:
            self._note.value = said
        return [before] if before is not None and not said else []

    def _set_mark(self, usual: str | bool | None) -> list[w.Widget]:
        """Mark the field as changed, or take the mark away; what is no longer shown."""
        before = self._mark
        if usual is None:
            self._mark = None
            return [before] if before is not None else []
        was = "not set" if usual in ("", False) else "set" if usual is True else usual
        tip = f"{self.spec.path} was {was}; press to put it back"
        if self._mark is None:
            self._mark = self._marking(tip)
        elif self._mark.tooltip != tip:
            self._mark.tooltip = tip
        return []

    def _marking(self, tip: str) -> w.Button:
        look = {"layout": self._looks.button, "style": self._looks.press}
        mark = w.Button(description="changed: reset", tooltip=tip, **look)
        mark.add_class("sw-changed")
        mark.on_click(lambda _: self._reset(self.spec.path))
        return mark

    @property
    def message(self) -> str:
        """The HTML under the field."""
        return self._said

    @property
    def marked(self) -> bool:
        """Whether it is marked as changed."""
        return self._mark is not None

    def close(self) -> None:
        """Take the row and what is in it from the browser."""
        for each in self.children:
            each.close()
        super().close()


def field_of(spec: Spec, text: str | bool, label: str, looks: Looks) -> w.ValueWidget:
    """The widget in which a knob is filled in. Text counts when it is left or Enter is pressed."""
    said = {**labelled(label, tooltip(spec, text)), "layout": looks.field}
    if spec.control in ("checkbox", "section"):
        return w.Checkbox(value=text is True, style=looks.tick, **said)
    if spec.control in ("dropdown", "choice"):
        return w.Dropdown(options=choices(spec, str(text)), value=text, style=looks.list, **said)
    typed = {"value": text, "continuous_update": False, "style": looks.text, **said}
    empty = f"empty{if_empty(spec)}" if spec.empty else ""
    if spec.control == "combobox":
        names = [*spec.options, "a list", *([empty] if empty else [])]
        return w.Combobox(options=spec.options, placeholder=" | ".join(names), **typed)
    return w.Text(placeholder=empty, **typed)


def labelled(label: str, tip: str) -> dict[str, str | bool]:
    """A label that says `tip` when it is pointed at; ipywidgets shows no tooltip beside a label."""
    shown = f'<span title="{escaped(tip)}">{escaped(label)}</span>'
    return {"description": shown, "description_allow_html": True, "tooltip": tip}


def choices(spec: Spec, text: str) -> list[tuple[str, str]]:
    """Labels and texts of a list. What stands there is never taken out of it."""
    found = [(f"(empty{if_empty(spec)})", "")] if spec.empty or not text else []
    found += [(name, name) for name in spec.options]
    known = text in spec.options or not text
    return found if known else [*found, (f"{text} (not known here)", text)]


def if_empty(spec: Spec) -> str:
    """What the description says about an empty field: `: as many as query heads`."""
    found = re.search(r"\bempty(: [^;]*)", spec.description)
    return found[1] if found else ""


def offer(control: w.Dropdown, options: list[tuple[str, str]], value: str | bool) -> None:
    """Give a list other entries and keep what is chosen, which ipywidgets alone would not."""
    if list(control.options) == options and control.value == value:
        return
    with control.hold_sync():
        if list(control.options) != options:
            control.options = options
        control.value = value


def tooltip(spec: Spec, text: str | bool) -> str:
    """The key, and what it is for."""
    return f"{spec.path}\n{about(spec, text)}"


def problem_html(lines: Sequence[str]) -> str:
    """Problems as HTML that a screen reader reads out when it appears."""
    more = [f"and {len(lines) - MOST} more"] if len(lines) > MOST else []
    shown = [*(f"Problem: {shortened(line)}" for line in lines[:MOST]), *more]
    said = "".join(f"<div>{escaped(line)}</div>" for line in shown)
    return f'<div class="sw-problem" role="alert">{said}</div>' if lines else ""


def shortened(line: str) -> str:
    """A line without its middle where it is long: the value begins it, the rule ends it."""
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"
