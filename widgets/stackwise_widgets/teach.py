"""The Teach panel: one training step at a time, on a real run.

    teach = Teach(sw.attach("data/runs/shipped-left_to_right-454956c5"), stage=1)
    teach            # in a cell

Left the way of the tokens down and of the gradient up, right what happens in words, the tokens, and
the numbers. The step is the real one (`stackwise.stepping`), taken in a thread beside the kernel's
main one; what was seen is in `lesson.py`, playing in `player.py`, the pictures in `views/step*.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import ipywidgets as w

import stackwise as sw
from stackwise.stage import Stage
from stackwise.stepping import why_of
from stackwise.stepping.phases import phase_names
from stackwise_widgets.hiding import hidden
from stackwise_widgets.lesson import Lesson
from stackwise_widgets.panel import Guard
from stackwise_widgets.player import Player
from stackwise_widgets.said import as_python
from stackwise_widgets.theme import stylesheet
from stackwise_widgets.views.markup import escaped, shortened
from stackwise_widgets.views.step import step_html
from stackwise_widgets.views.step_numbers import (
    bars_html,
    losses_html,
    memory_html,
    phases_html,
    why_html,
)
from stackwise_widgets.views.step_style import STEP_CSS
from stackwise_widgets.views.step_tokens import step_tokens_html

if TYPE_CHECKING:
    import pandas as pd

    from stackwise_widgets.paper import PaperFigure

BUTTONS = ("play", "back", "step", "next", "reset")
CONTROLS = (*BUTTONS, "stage", "seed", "speed", "sample")
SHOWN = ("picture", "tokens", "bars", "losses", "memory", "why", "notes")
PARTS = (*CONTROLS, *SHOWN)
LABELS = {
    "play": ("Play", "go on by itself; press again to pause"),
    "back": ("Back", "look at the phase before; nothing is undone"),
    "step": ("Next phase", "carry out the next phase"),
    "next": ("Next step", "finish this step, or take the next one whole"),
    "reset": ("Reset", "back to the start of the stage"),
}
SAID_EVERY_SECONDS = 0.2


class Overtaken(Exception):
    """Another beginning is wanted by now."""


class Teach(w.VBox):
    """A stage's training steps, phase by phase.

    Args:
        source: What is taught: a run, an experiment, or a preset's name. A run is only read.
        stage: The stage to begin with.
        placement: How steps are carried out, as for `Stepper`; None for the run's own.
        sample: Which sample of the batch is shown, from 0.
        seconds: From one phase to the next while it plays.
        hide: Controls (`play`, `back`, `step`, `next`, `reset`, `stage`, `seed`, `speed`,
            `sample`) and parts (`picture`, `tokens`, `bars`, `losses`, `memory`, `why`, `notes`)
            that are not shown.

    Raises:
        ValueError: If a name to hide is unknown, or `stage` or `sample` is none.
        ExperimentError: If there is no such preset.
    """

    def __init__(
        self,
        source: sw.Run | sw.Experiment | str,
        stage: int = 0,
        placement: sw.Placement | None = None,
        *,
        sample: int = 0,
        seconds: float = 2.0,
        hide: Iterable[str] = (),
    ) -> None:
        self.guard = Guard()
        gone = hidden(hide, PARTS)
        self.source = source
        self.run = source if isinstance(source, sw.Run) else None
        self.experiment, self.stages = _read(source)
        if not 0 <= stage < len(self.stages):
            raise ValueError(f"stage: {stage} is no stage; there are 0 to {len(self.stages) - 1}")
        if not 0 <= sample < self.experiment.optim.batch:
            most = self.experiment.optim.batch - 1
            raise ValueError(f"sample: {sample} is no sample of a batch; there are 0 to {most}")
        self.placement = placement
        self.lesson = Lesson(source, placement)
        self.player = Player(
            "taking a step", self._tick, lambda: self.speed.value, self.guard, self._show_playing
        )
        self._begun = 0
        self._controls(stage, sample, seconds)
        self.parts = {name: w.HTML() for name in SHOWN}
        self.phases, self.told = w.HTML(), w.HTML()
        super().__init__([stylesheet(), _style(), self.guard.card, *self._rows(gone)])
        self.add_class("sw-panel")
        self.add_class("sw-teach")
        self._begin()

    # What the panel gives

    @property
    def errors(self) -> list[Any]:
        """What went wrong in the panel."""
        return self.guard.errors

    @property
    def phase(self) -> Any:
        """The phase that is looked at; None before the first."""
        return self.lesson.phase

    def settle(self, timeout: float | None = 60.0) -> bool:
        """Wait until all that was asked is done and shown; whether it is."""
        return self.player.settle(timeout)

    def code(self) -> str:
        """Python that carries out the same steps, as far as they are looked at."""
        lines = ["import stackwise as sw", "from stackwise.stepping import Stepper", ""]
        if self.run is not None:
            lines.append(f"source = sw.attach({str(self.run.path)!r})")
        else:
            made = as_python(self.experiment, sw.Placement()).splitlines()
            first = next(n for n, line in enumerate(made) if line.startswith("exp = "))
            last = next(n for n, line in enumerate(made) if line.startswith("placement = "))
            lines += [*made[first:last], "source = exp"]
        seed = "" if self._seed() is None else f", seed={self._seed()}"
        lines.append(f"with Stepper(source, {self.stage.value}{seed}) as stepper:")
        phase = self.phase
        lines += ["    for phase in stepper:", '        print(f"{phase.name}: {phase.words}")']
        if phase is not None:
            lines.append(f"        if (phase.step, phase.name) == ({phase.step}, {phase.name!r}):")
            lines.append("            break")
        return "\n".join(lines) + "\n"

    def data(self) -> pd.DataFrame:
        """All phases so far, a row each; a column for each block, NaN where nothing is known."""
        import pandas as pd

        return pd.DataFrame(self.lesson.rows)

    def figure(self) -> PaperFigure:
        """The last whole step up to the present phase, for a paper.

        Raises:
            ValueError: If there is none yet.
        """
        from stackwise_widgets.step_figure import step_figure

        whole = [phase for phase in self.lesson.seen[: self.lesson.at + 1] if phase.is_last]
        if not whole:
            raise ValueError("no step is whole yet; press Next step, or call next_step()")
        losses = [pair for pair in self.lesson.losses if pair[0] <= whole[-1].step]
        return step_figure(whole[-1], losses)

    # What is clicked; each returns at once

    def play(self) -> None:
        """Go on by itself, or stand still if it does."""
        if self.player.playing:
            self.player.pause()
        else:
            self.player.play()

    def pause(self) -> None:
        """Stand still."""
        self.player.pause()

    def back(self) -> None:
        """Look at the phase before."""
        self.player.pause()
        self.player.ask(self._shown(self.lesson.back))

    def step(self) -> None:
        """The next phase."""
        self.player.ask(self._shown(self.lesson.forward))

    def next_step(self) -> None:
        """On to the end of a step."""
        self.player.ask(self._shown(self.lesson.to_end_of_step))

    def reset(self) -> None:
        """Back to the start of the stage."""
        self.player.pause()
        self._begin()

    def close(self) -> None:
        """Stop, take the panel from the browser, and give back what the steps held."""
        self._begun += 1
        if self.player.close():
            self.lesson.close()
        super().close()

    # How it is put together

    def _controls(self, stage: int, sample: int, seconds: float) -> None:
        self.buttons = {}
        doing = {"play": self.play, "back": self.back, "step": self.step, "next": self.next_step,
                 "reset": self.reset}  # fmt: skip
        for name, (label, tip) in LABELS.items():
            button = w.Button(description=label, tooltip=tip, layout={"width": "auto"})
            button.on_click(self._handler(LABELS[name][0].lower(), doing[name]))
            self.buttons[name] = button
        self.stage = w.Dropdown(
            options=[(_stage_said(n, each), n) for n, each in enumerate(self.stages)],
            value=stage,
            description="stage",
            layout={"width": "210px"},
            style={"description_width": "38px"},
        )
        self.seed = w.BoundedIntText(
            value=self.experiment.seed,
            min=0,
            max=(1 << 31) - 1,
            description="seed",
            layout={"width": "120px"},
            style={"description_width": "34px"},
        )
        self.speed = w.BoundedFloatText(
            value=seconds,
            min=0.05,
            max=60,
            step=0.5,
            description="seconds a phase",
            layout={"width": "180px"},
            style={"description_width": "initial"},
        )
        self.sample = w.BoundedIntText(
            value=sample + 1,
            min=1,
            max=self.experiment.optim.batch,
            description=f"sample (of {self.experiment.optim.batch:,})",
            layout={"width": "160px"},
            style={"description_width": "initial"},
        )
        for name, widget in (("stage", self.stage), ("seed", self.seed)):
            widget.observe(self._handler(f"choosing the {name}", self.reset), "value")
        self.sample.observe(self._handler("showing a sample", self._show_tokens), "value")

    def _rows(self, gone: set[str]) -> list[w.Widget]:
        buttons = [self.buttons[name] for name in BUTTONS if name not in gone]
        fields = [getattr(self, n) for n in ("stage", "seed", "speed", "sample") if n not in gone]
        row = w.Box([*buttons, *fields])
        row.add_class("sw-teach-controls")
        left = [self.parts[name] for name in ("picture", "notes") if name not in gone]
        tokens = [self.parts["tokens"]] if "tokens" not in gone else []
        small = w.Box([self.parts[n] for n in ("bars", "memory", "losses") if n not in gone])
        small.add_class("sw-teach-numbers")
        below = [self.parts["why"]] if "why" not in gone else []
        right = w.VBox(
            [self.phases, self.told, *tokens, small, *below],
            layout={"flex": "1 1 360px", "min_width": "0"},
        )
        first = w.VBox(left, layout={"flex": "0 1 348px", "min_width": "300px"})
        columns = w.Box([*([first] if left else []), right])
        columns.add_class("sw-columns")
        return [row, columns]

    def _handler(self, doing: str, function: Callable[[], Any]) -> Callable[..., Any]:
        return self.guard(doing, lambda *_: function())

    def _shown(self, job: Callable[[], Any]) -> Callable[[], None]:
        def both() -> None:
            job()
            self._show()

        return both

    # In the player's thread

    def _begin(self) -> None:
        """Ask for the start of the chosen stage under the chosen seed; the newest counts."""
        self._begun += 1
        number = self._begun
        stage, seed = self.stage.value, self._seed()
        self._show_frame(stage)
        self._say("Getting the start of the stage ready …")
        self.player.ask(lambda: self._stand_at(number, stage, seed), first=True)

    def _stand_at(self, number: int, stage: int, seed: int | None) -> None:
        said_at = 0.0

        def on_lead(done: int, of: int) -> None:
            nonlocal said_at
            if number != self._begun:
                raise Overtaken
            if time.monotonic() - said_at > SAID_EVERY_SECONDS or done == of:
                said_at = time.monotonic()
                self._say(f"Training the stages before, to begin here: step {done:,} of {of:,} …")

        try:
            self.lesson.begin(stage, seed, on_lead)
        except Overtaken:
            self.lesson.close()
            return
        self.guard.clear()
        self._show()

    def _tick(self) -> bool:
        """One phase of playing."""
        if self.lesson.forward() is None:
            self._show()
            return False
        self._show()
        return True

    # What is shown

    def _seed(self) -> int | None:
        return None if self.seed.value == self.experiment.seed else self.seed.value

    def _say(self, words: str) -> None:
        self.told.value = f'<p class="sw-told" role="status">{escaped(words)}</p>'

    def _show_frame(self, number: int) -> None:
        """A stage before any step of it."""
        stage = self.stages[number]
        self.phases.value = phases_html(None, phase_names(stage))
        self.parts["picture"].value = step_html(self.experiment, stage)
        self.parts["why"].value = why_html(why_of(self.experiment, self.stages, number))
        for name in ("tokens", "notes"):
            self.parts[name].value = ""
        self._show_numbers(stage, None)

    def _show(self) -> None:
        """The phase that is looked at."""
        stage, phase = self.stages[self.stage.value], self.lesson.phase
        if self.lesson.stepper is None:
            return
        self.phases.value = phases_html(phase, phase_names(stage))
        self.parts["picture"].value = step_html(self.experiment, stage, phase)
        self.parts["notes"].value = self._notes()
        self._show_tokens()
        self._show_numbers(stage, phase)
        end = " The stage ends here; choose the next one to go on." if self.lesson.finished else ""
        ready = "Ready: Next phase takes the first one, Play goes on by itself."
        self._say(ready if phase is None else phase.words + end)

    def _show_numbers(self, stage: Stage, phase: Any) -> None:
        self.parts["bars"].value = bars_html(self.experiment, stage, phase)
        self.parts["memory"].value = memory_html(phase)
        until = -1 if phase is None else phase.step
        known = phase is not None and phase.loss is not None
        losses = [p for p in self.lesson.losses if p[0] < until or (p[0] == until and known)]
        self.parts["losses"].value = losses_html(losses, self._recorded(phase) if known else "")

    def _show_tokens(self) -> None:
        phase = self.lesson.phase
        made = "" if phase is None else step_tokens_html(phase, self.sample.value - 1)
        self.parts["tokens"].value = made

    def _show_playing(self) -> None:
        self.buttons["play"].description = "Pause" if self.player.playing else "Play"

    def _recorded(self, phase: Any) -> str:
        """How a step's loss compares with what the run has recorded."""
        known = self.lesson.record_of(phase)
        if known is None:
            return ""
        if known == phase.loss:
            return f"The run recorded {known:.4f} for this step: the same to the last bit."
        off = abs(known - phase.loss)
        return (
            f"The run recorded {known:.6g} for this step, {off:.1e} off: on another machine, or "
            "with other threads, last bits differ, and grow."
        )

    def _notes(self) -> str:
        stepper = self.lesson.stepper
        notes = [] if stepper is None else [*stepper.notes]
        if self._seed() is not None:
            notes.append(f"The seed is {self._seed()}, not {self.experiment.seed} as asked.")
        return "".join(f'<p class="sw-quiet">{escaped(note)}</p>' for note in notes)


def _read(source: sw.Run | sw.Experiment | str) -> tuple[sw.Experiment, tuple[Stage, ...]]:
    """What is taught, and its stages as they are executed."""
    if isinstance(source, sw.Run):
        return source.experiment, tuple(map(Stage.model_validate, source.stages()))
    exp = sw.Experiment.preset(source) if isinstance(source, str) else source
    return exp, sw.stages(exp)


def _stage_said(number: int, stage: Stage) -> str:
    trains = ", ".join(stage.active or ()) or "the ends"
    return shortened(f"{number}: {trains} train{'s' * (len(stage.active or ()) == 1)}", 34)


def _style() -> w.HTML:
    return w.HTML(f"<style>{STEP_CSS}</style>", layout={"height": "0px", "margin": "0"})
