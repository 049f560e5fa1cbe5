"""What every probe has: a thread, what it costs, a button, and a word on how it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as w

from stackwise_widgets.inspection.one_rack import KEPT_BYTES, Room, room_for
from stackwise_widgets.inspection.subject import Subject
from stackwise_widgets.latest import Latest
from stackwise_widgets.panel import Guard
from stackwise_widgets.views.markup import escaped, flops_said

CHEAP_FLOPS = 1e11  # up to here a probe runs as soon as it is opened: a second or two


class Probe:
    """Runs the work of one tab.

    Args:
        guard: Of the panel.
        doing: In words: "reading the attention".
        button: What its button says.
        flops: What one probe of a subject spends.
        work: In the thread, with a function for words on how it goes.
        show: What it found.

    Attributes:
        widgets: Button, costs and progress.
        done: Whether what is shown belongs to the subject and what was asked.
    """

    def __init__(
        self,
        guard: Guard,
        doing: str,
        button: str,
        *,
        flops: Callable[[Subject], float],
        work: Callable[[Subject], Any],
        show: Callable[[Any], Any],
    ) -> None:
        self._guard, self._doing = guard, doing
        self._flops, self._do, self._show = flops, work, show
        self._latest = Latest(guard)
        self.subject: Subject | None = None
        self.done = False
        self.button = w.Button(description=button, layout={"width": "auto"})
        self.cost, self.said = w.HTML(), w.HTML()
        self.button.on_click(guard(doing, lambda _: self.run()))
        row = {"display": "flex", "flex_flow": "row wrap", "align_items": "center"}
        self.widgets = w.Box([self.button, self.cost, self.said], layout=row)

    def use(self, subject: Subject) -> None:
        """Another run or another text; nothing is done yet."""
        self.subject, self.done = subject, False
        self.said.value = ""

    def clear(self, why: str = "") -> None:
        """There is no run, or none that can be looked into, and why in words."""
        self.subject, self.done = None, False
        self._latest.drop()
        self.said.value, self.cost.value = "", _cost(why) if why else ""
        self.button.disabled = bool(why)

    def begin(self) -> None:
        """The tab is seen: say the costs, and run at once if they are small."""
        if self.subject is not None and not self.done and self.say_cost():
            self.run()

    def say_cost(self) -> bool:
        """Say what it costs, or why it cannot be; whether that is so little as to run at once."""
        assert self.subject is not None
        try:
            room, flops = room_for(self.subject.run), self._flops(self.subject)
        except Exception as error:  # no checkpoint, no room, no text: the reason is shown
            self.cost.value = _cost(str(error))
            self.button.disabled = True
            return False
        self.button.disabled = False
        self.cost.value = _cost(f"about {flops_said(flops)} FLOPs; {room.said}")
        return is_cheap(room, flops)

    def run(self) -> None:
        """Ask for it; the newest request is the one that is shown."""
        if self.subject is None:
            return
        subject = self.subject
        self.said.value = '<span class="sw-quiet">· at work …</span>'
        self._latest.ask(
            self._doing,
            lambda: self._do(subject),
            lambda found: self._take(subject, found),
            self._failed,
        )

    def is_overtaken(self) -> bool:
        """Whether something newer is asked, so that `work` may end early and shows no more."""
        return self._latest.is_overtaken()

    def wait(self, timeout: float | None = None) -> bool:
        """Until what was asked for is shown."""
        return self._latest.wait(timeout)

    def _take(self, subject: Subject, found: Any) -> None:
        if self.subject is None or subject.run.path != self.subject.run.path:
            return  # of a run that is not looked at any more
        self.said.value = ""
        self.done = True
        self._show(found)

    def _failed(self) -> None:
        self.said.value = '<span class="sw-quiet">· failed; see above</span>'


def is_cheap(room: Room, flops: float) -> bool:
    """Whether a probe may run without being asked for."""
    return not room.lent and room.bytes <= KEPT_BYTES and flops <= CHEAP_FLOPS


def _cost(text: str) -> str:
    return f'<span class="sw-cost">{escaped(text)}</span>'
