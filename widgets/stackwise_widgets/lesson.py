"""A lesson: the phases of a training step that have been seen, and which of them is looked at.

What was seen is kept, so that one can go back; going forward again shows it again, and only past
the last one is anything computed. It holds no widget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stackwise.errors import ExperimentError
from stackwise.stepping import Phase, Stepper
from stackwise_widgets.teach_room import room_said

if TYPE_CHECKING:
    import stackwise as sw

MOST = 400  # phases that one can go back; what each said stays in `rows`
FULL_FLOPS = (
    3e10  # what earlier stages may take, so that a stage begins with its true weights: some
)
FULL_STEPS = 400  # seconds on two cores; else each is trained for
SHORT_STEPS = 20  # so many steps, which is said


class Lesson:
    """Steps of a stage, seen one phase at a time. Used from one thread at a time.

    Args:
        source: A run, an experiment, or a preset's name.
        placement: How steps are carried out, as for `Stepper`.

    Attributes:
        seen: The phases that one can go back to.
        at: Which of them is looked at; -1 before the first.
        losses: Number and loss of each step of the stage so far.
        rows: One mapping of plain numbers for each phase so far, in the order they came.
        recorded: What the run has recorded: (stage, step from 0) to loss.
    """

    def __init__(
        self, source: sw.Run | sw.Experiment | str, placement: sw.Placement | None = None
    ) -> None:
        self.source, self.placement = source, placement
        self.stepper: Stepper | None = None
        self.seed: int | None = None
        self.recorded: dict[tuple[int, int], float] = {}
        self.seen: list[Phase] = []
        self.at = -1
        self.losses: list[tuple[int, float]] = []
        self.rows: list[dict[str, Any]] = []

    @property
    def phase(self) -> Phase | None:
        """The phase that is looked at."""
        return self.seen[self.at] if self.at >= 0 else None

    @property
    def finished(self) -> bool:
        """Whether the stage has no further phase."""
        ends = self.stepper is not None and self.stepper.finished
        return ends and self.at == len(self.seen) - 1

    @property
    def is_record(self) -> bool:
        """Whether these steps are those that the run has recorded, weights and all."""
        young = any("younger" in note for note in self.stepper.notes) if self.stepper else True
        return self.seed is None and not young

    def begin(self, stage: int, seed: int | None, on_lead: Callable[[int, int], Any]) -> None:
        """Stand before the first phase of a stage.

        Args:
            stage: Its number.
            seed: Another seed than the experiment's; None for its own.
            on_lead: As for `Stepper`.

        Raises:
            ExperimentError: If it cannot be carried out here; for want of memory, with what counts.
        """
        if self.stepper is None or seed != self.seed:
            self.close()
            self.stepper = self._stepper(seed)
            self.seed = seed
            self._read_record()
        self._clear()
        self.stepper.begin(stage, lead_steps=self._lead(stage), on_lead=on_lead)

    def forward(self) -> Phase | None:
        """The next phase: seen before, or carried out now; None at the end of the stage."""
        if self.at < len(self.seen) - 1:
            self.at += 1
            return self.phase
        phase = None if self.stepper is None else next(self.stepper, None)
        if phase is None:
            return None
        self._take(phase)
        return phase

    def back(self) -> None:
        """Look at the phase before, or at the beginning."""
        self.at = max(-1 if len(self.seen) < MOST else 0, self.at - 1)

    def to_end_of_step(self) -> None:
        """Go on until a step is complete: the one in hand, or the next."""
        while (phase := self.forward()) is not None and not phase.is_last:
            pass

    def close(self) -> None:
        """Give back what a stepper holds."""
        if self.stepper is not None:
            self.stepper.close()
        self.stepper = None

    def record_of(self, phase: Phase) -> float | None:
        """The loss that the run has recorded for a phase's step, if it is that very step."""
        if not self.is_record:
            return None
        return self.recorded.get((phase.stage, phase.step))

    def _stepper(self, seed: int | None) -> Stepper:
        try:
            return Stepper(self.source, 0, self.placement, seed=seed)
        except ExperimentError as error:
            if said := room_said(self.source, self.placement):
                raise ExperimentError(said) from error
            raise

    def _clear(self) -> None:
        self.at = -1  # first: it may be looked at meanwhile
        self.seen, self.losses = [], []

    def _take(self, phase: Phase) -> None:
        self.seen = [*self.seen, phase][-MOST:]
        self.at = len(self.seen) - 1
        self.rows.append(row_of(phase))
        if phase.name == "loss" and phase.loss is not None:
            self.losses.append((phase.step, phase.loss))

    def _lead(self, stage: int) -> int | None:
        """How many steps earlier stages get if nobody has kept their ends; None for all."""
        assert self.stepper is not None
        found = self.stepper.beginning(stage)
        quick = found.flops <= FULL_FLOPS and found.steps <= FULL_STEPS
        return None if quick else SHORT_STEPS

    def _read_record(self) -> None:
        if self.recorded or not hasattr(self.source, "metrics"):
            return
        found = self.source.metrics()
        keys = zip(found["stage"].tolist(), (found["stage_step"] - 1).tolist(), strict=True)
        self.recorded = dict(zip(keys, found["loss"].tolist(), strict=True))


def row_of(phase: Phase) -> dict[str, Any]:
    """A phase as one line of a table; what it does not know is None."""
    blocks = {
        f"{what}.{name}": value
        for what, values in (
            ("activation", phase.activations),
            ("arriving", phase.flow),
            ("gradient", phase.grad_norms),
            ("change", phase.changes),
        )
        for name, value in values.items()
    }
    return {
        "stage": phase.stage,
        "step": phase.step,
        "phase": phase.name,
        "parts": ", ".join(phase.parts),
        "words": phase.words,
        "lr": phase.rate,
        "counted": phase.counted,
        "kept_bytes": phase.kept_bytes,
        "loss": phase.loss,
        "grad_norm": phase.grad_norm,
        **phase.preserved,
        **{f"{name}_bytes": size for name, size in phase.memory.items()},
        **blocks,
    }
