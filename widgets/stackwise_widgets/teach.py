"""The Teach panel: one training step at a time, on a real run.

    teach = Teach(sw.attach("shipped-left", "data/runs"), stage=1)
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
from stackwise.stepping import Phase
from stackwise_widgets import teach_controls as controls
from stackwise_widgets.hiding import hidden
from stackwise_widgets.lesson import Lesson
from stackwise_widgets.panel import Guard
from stackwise_widgets.player import Player
from stackwise_widgets.said import as_python
from stackwise_widgets.teach_controls import CONTROLS as CONTROLS
from stackwise_widgets.teach_controls import FIELDS, LABELS
from stackwise_widgets.teach_parts import SHOWN as SHOWN
from stackwise_widgets.teach_parts import Parts
from stackwise_widgets.teach_room import taught
from stackwise_widgets.theme import stylesheet

if TYPE_CHECKING:
    import pandas as pd

    from stackwise_widgets.paper import PaperFigure

PARTS = (*CONTROLS, *SHOWN)
SAID_EVERY_SECONDS = 0.2
NOT_HERE = "No step of it can be taken here; why stands above."


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

    _begun = 0  # beginnings that were asked for

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
        self.experiment, self.stages = taught(source)
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
        self.shown = Parts(self.experiment, self.lesson)
        self.parts, self.told = self.shown.named, self.shown.told
        self._make_controls(stage, sample, seconds)
        super().__init__([stylesheet(), self.guard.card, *self._rows(gone)])
        self.add_class("sw-panel")
        self.add_class("sw-teach")
        self._begin()

    # What the panel gives

    @property
    def errors(self) -> list[Any]:
        """What went wrong in the panel."""
        return self.guard.errors

    @property
    def phase(self) -> Phase | None:
        """The phase that is looked at; None before the first."""
        return self.lesson.phase

    def settle(self, timeout: float | None = 60.0) -> bool:
        """Wait until all that was asked is done and shown; whether it is."""
        return self.player.settle(timeout)

    def code(self) -> str:
        """Python that carries out the same steps, as far as they are looked at."""
        exp, place = _lines_of(self.experiment, self.placement)
        lines = ["import stackwise as sw", "from stackwise.stepping import Stepper", "", *place]
        if self.run is not None:
            lines.append(f"source = sw.attach({str(self.run.path)!r})")
        else:
            lines += [*exp, "source = exp"]
        more = ", placement" if place else ""
        more += "" if self._seed() is None else f", seed={self._seed()}"
        lines.append(f"with Stepper(source, {self.stage.value}{more}) as stepper:")
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
        if self._begun:  # else it was refused while it was made
            self._begun += 1
            self.player.close(self.lesson.close)
        super().close()

    # How it is put together

    def _make_controls(self, stage: int, sample: int, seconds: float) -> None:
        doing = (self.play, self.back, self.step, self.next_step, self.reset)
        self.buttons = controls.buttons()
        for (name, button), function in zip(self.buttons.items(), doing, strict=True):
            button.on_click(self._handler(LABELS[name][0].lower(), function))
        self.stage = controls.stage_field(self.stages, stage)
        self.seed = controls.seed_field(self.experiment.seed)
        self.speed = controls.speed_field(seconds)
        self.sample = controls.sample_field(sample, self.experiment.optim.batch)
        for name, field in (("stage", self.stage), ("seed", self.seed)):
            field.observe(self._handler(f"choosing the {name}", self.reset), "value")
        tokens = self._handler("showing a sample", self._show_tokens)
        self.sample.observe(tokens, "value")

    def _rows(self, gone: set[str]) -> list[w.Widget]:
        def some(*names: str) -> list[w.Widget]:
            return [self.parts[name] for name in names if name not in gone]

        pressed = [button for name, button in self.buttons.items() if name not in gone]
        filled = [getattr(self, name) for name in FIELDS if name not in gone]
        row, numbers = w.Box([*pressed, *filled]), w.Box(some("bars", "memory", "losses"))
        row.add_class("sw-teach-controls")
        numbers.add_class("sw-teach-numbers")
        told = [self.shown.phases, self.told, *some("tokens"), numbers, *some("why")]
        right = w.VBox(told, layout={"flex": "1 1 360px", "min_width": "0"})
        left = w.VBox(some("picture", "notes"), layout={"flex": "0 1 348px", "min_width": "300px"})
        columns = w.Box([*([left] if left.children else []), right])
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
        self.shown.show_frame(self.stages, stage)
        self.shown.say("Getting the start of the stage ready …")
        self.player.ask(lambda: self._stand_at(number, stage, seed), first=True)

    def _stand_at(self, number: int, stage: int, seed: int | None) -> None:
        said_at = 0.0

        def on_lead(done: int, of: int) -> None:
            nonlocal said_at
            if number != self._begun:
                raise Overtaken
            if time.monotonic() - said_at > SAID_EVERY_SECONDS or done == of:
                said_at = time.monotonic()
                self.shown.say(
                    f"Training the stages before, to begin here: step {done:,} of {of:,} …"
                )

        try:
            self.lesson.begin(stage, seed, on_lead)
        except Overtaken:
            self.lesson.close()
            return
        except Exception:
            self.shown.say(NOT_HERE)
            raise
        self.guard.clear()
        assert self.lesson.stepper is not None
        self.shown.show_frame(self.lesson.stepper.stages, stage)  # a seed may change their order
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

    def _show(self) -> None:
        self.shown.show(self.sample.value - 1)

    def _show_tokens(self) -> None:
        self.shown.show_tokens(self.sample.value - 1)

    def _show_playing(self) -> None:
        self.buttons["play"].description = "Pause" if self.player.playing else "Play"


def _lines_of(exp: sw.Experiment, placement: sw.Placement | None) -> tuple[list[str], list[str]]:
    """Python that makes an experiment, and a placement; nothing for the usual one."""
    made = as_python(exp, placement or sw.Placement()).splitlines()
    first, second, last = (
        next(n for n, line in enumerate(made) if line.startswith(name))
        for name in ("exp = ", "placement = ", "run = ")
    )
    return made[first:second], made[second:last] if placement is not None else []
