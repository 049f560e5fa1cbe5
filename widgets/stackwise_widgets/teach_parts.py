"""What the Teach panel shows of a lesson: each part is a widget that a phase fills anew."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as w

import stackwise as sw
from stackwise.stepping import Phase, phase_names, why_of
from stackwise_widgets.lesson import Lesson
from stackwise_widgets.views.markup import escaped
from stackwise_widgets.views.step import step_html
from stackwise_widgets.views.step_numbers import (
    bars_html,
    losses_html,
    memory_html,
    phases_html,
    why_html,
)
from stackwise_widgets.views.step_tokens import step_tokens_html

SHOWN = ("picture", "tokens", "bars", "losses", "memory", "why", "notes")
READY = "Ready: Next phase takes the first one, Play goes on by itself."
END = " The stage ends here; choose the next one to go on."


class Parts:
    """The parts of the panel, by name; widgets are told from whichever thread calls.

    Args:
        exp: The experiment under its own seed.
        lesson: What is shown.

    Attributes:
        named: The widget of each part.
        phases: The row of phases.
        told: The sentence.
    """

    def __init__(self, exp: sw.Experiment, lesson: Lesson) -> None:
        self.exp, self.lesson = exp, lesson
        self.named = {name: w.HTML() for name in SHOWN}
        self.phases, self.told = w.HTML(), w.HTML()

    def say(self, words: str) -> None:
        """Show a sentence, which screen readers say as well."""
        self.told.value = f'<p class="sw-told" role="status">{escaped(words)}</p>'

    def show_frame(self, stages: Sequence[sw.Stage], number: int) -> None:
        """A stage before any step of it."""
        self.phases.value = phases_html(None, phase_names(stages[number]))
        self.named["picture"].value = step_html(self.exp, stages[number])
        self.named["why"].value = why_html(why_of(self.exp, stages, number))
        for name in ("tokens", "notes"):
            self.named[name].value = ""
        self._show_numbers(stages[number], None)

    def show(self, sample: int) -> None:
        """The phase that is looked at.

        Args:
            sample: Whose tokens, from 0.
        """
        stepper, phase = self.lesson.stepper, self.lesson.phase
        if stepper is None:
            return
        self.phases.value = phases_html(phase, phase_names(stepper.stage))
        self.named["picture"].value = step_html(self.exp, stepper.stage, phase)
        self.named["notes"].value = self._notes()
        self.show_tokens(sample)
        self._show_numbers(stepper.stage, phase)
        said = READY if phase is None else phase.words
        self.say(said + END if self.lesson.finished else said)

    def show_tokens(self, sample: int) -> None:
        """The tokens of a sample, from 0."""
        phase = self.lesson.phase
        self.named["tokens"].value = "" if phase is None else step_tokens_html(phase, sample)

    def _show_numbers(self, stage: sw.Stage, phase: Phase | None) -> None:
        self.named["bars"].value = bars_html(self.exp, stage, phase)
        self.named["memory"].value = memory_html(phase)
        shown, recorded = [], ""
        if phase is not None:
            known = phase.step if phase.loss is not None else phase.step - 1
            shown = [(step, loss) for step, loss in self.lesson.losses if step <= known]
            recorded = recorded_said(self.lesson, phase)
        self.named["losses"].value = losses_html(shown, recorded)

    def _notes(self) -> str:
        lesson = self.lesson
        notes = [] if lesson.stepper is None else [*lesson.stepper.notes]
        if lesson.seed is not None:
            notes.append(f"The seed is {lesson.seed}; that of the experiment is {self.exp.seed}.")
        return "".join(f'<p class="sw-quiet">{escaped(note)}</p>' for note in notes)


def recorded_said(lesson: Lesson, phase: Phase) -> str:
    """How a step's loss compares with what the run has recorded; empty if it has nothing."""
    known = lesson.record_of(phase)
    if known is None or phase.loss is None:
        return ""
    if known == phase.loss:
        return f"The run recorded {known:.4f} for this step: the same to the last bit."
    return (
        f"The run recorded {known:.6g} for this step, {abs(known - phase.loss):.1e} off: on "
        "another machine, or with other threads, last bits differ, and grow."
    )
