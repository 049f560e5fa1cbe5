"""The runs of a study, and what they say.

Everything is read from the run folders, so that a result can be made of any runs, without training:
`StudyResult.from_runs({"a": [...], "b": [...]})`, or `StudyResult.load(folder)` of a study's. What
is worked out per arm is in `summary.py`; how it is said, in `words.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stackwise.errors import ExperimentError
from stackwise.report import study_text
from stackwise.runs import Run
from stackwise.study.arms import Arm
from stackwise.study.controls import control_of
from stackwise.study.grid import Tried, loss_of
from stackwise.study.samedata import check_same_data

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("bits_per_byte", "stderr", "parameters", "epochs", "flops", "peak_bytes", "seconds")
Runs = tuple[tuple[Arm, int, Run], ...]


@dataclass(frozen=True)
class StudyResult:
    """The runs of a study, and what they say.

    Attributes:
        equal: What all arms spent alike: `flops`, `tokens` or `seconds`.
        runs: Every run with its arm and its seed.
        control: The name of the arm that the others are compared with; None for none.
        tuning: The runs of the learning-rate grid.
        others: Runs of the same arms at another budget, by what is equal there.
        saved_flops: What shared first stages saved; every ledger holds its full cost all the same.
        failures: Runs that came to nothing, each with the reason.
        notes: What a reader should know beside.
        effect: The smallest difference that matters, in bits per byte; None: the measured one.
    """

    equal: str
    runs: Runs
    control: str | None = None
    tuning: tuple[Tried, ...] = ()
    others: Mapping[str, Runs] = field(default_factory=dict)
    saved_flops: float = 0.0
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    effect: float | None = None

    def __str__(self) -> str:
        return study_text(self)

    @classmethod
    def from_runs(
        cls,
        runs: Mapping[str, Sequence[Run | str | Path]],
        *,
        equal: str = "flops",
        control: str | None = None,
        effect: float | None = None,
    ) -> Self:
        """A result of runs that are there, paired by their seeds.

        Args:
            runs: The runs of each arm, or their folders.
            equal: What they spent alike.
            control: The arm to compare with; None for the first that trains its whole rack end to
                end under a schedule that decays, if there is one.
            effect: As in the class.

        Raises:
            ExperimentError: If they saw different data, an arm has a seed twice, or there is no
                such control.
            RunError: If one is no run.
        """
        found: list[tuple[Arm, int, Run]] = []
        for name, folders in runs.items():
            for folder in folders:
                run = folder if isinstance(folder, Run) else Run(folder)
                if any(a.name == name and s == run.experiment.seed for a, s, _ in found):
                    raise ExperimentError(
                        f"arm {name!r}: run {run.id} is the second one of seed "
                        f"{run.experiment.seed}; give one run for each seed"
                    )
                found.append((Arm(name, run.experiment), run.experiment.seed, run))
        if not found:
            raise ExperimentError("runs: none given; name the runs of each arm")
        if control is not None and control not in runs:
            raise ExperimentError(f"control: {control!r} is no arm; there are: {', '.join(runs)}")
        if control is None:
            arms = {arm.name: arm for arm, _, _ in reversed(found)}
            chosen = control_of(found[0][0].experiment, [arms[name] for name in runs])
            control = None if chosen is None else chosen.name
        made = cls(equal, tuple(found), control, effect=effect)
        made.check()
        return made

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The result of a study's folder: of the runs that it has by now, without training.

        Raises:
            ExperimentError: If the folder holds no study, or its runs saw different data.
        """
        from stackwise.study.folder import read_result

        return read_result(cls, Path(folder))

    def check(self) -> None:
        """Raise if the runs saw different data.

        Raises:
            ExperimentError: If so.
        """
        check_same_data([entry for entry in self.runs if isinstance(entry[2], Run)])
        for runs in self.others.values():
            check_same_data(runs)

    def to_frame(self) -> pd.DataFrame:
        """One row per run: arm, seed, run id, held-out bits per byte, costs."""
        import pandas as pd

        return pd.DataFrame([row_of(*entry) for entry in self.runs])

    def summary(self) -> pd.DataFrame:
        """One row per arm: losses, paired differences from the control, costs, flags.

        Columns: arm, is_control, n (seeds with a result), mean and std (bits per byte, over seeds),
        difference (from the control, paired), low and high (its 95 % interval), judged (`control`,
        `better`, `worse`, `undecided`, `too few seeds` or `no result`), lr, flops, tokens, epochs,
        tuning_flops, flops_to_target and reached (of how many seeds), at_equal_flops and
        at_equal_tokens with flops_decayed and tokens_decayed, peak_bytes, seconds, seeds_needed,
        flags.

        Raises:
            ExperimentError: If the runs saw different data.
        """
        from stackwise.study.summary import summary_of

        self.check()
        return summary_of(self)

    def to_json(self) -> dict[str, Any]:
        """All that it says as plain values."""
        from stackwise.study.words import remarks

        return {
            "equal": self.equal,
            "control": self.control,
            "arms": self.summary().to_dict("records"),
            "runs": self.to_frame().to_dict("records"),
            "tuning": [
                {"arm": each.arm, "rate": each.rate, "seed": each.seed, "loss": loss_of(each.run)}
                for each in self.tuning
            ],
            "saved_flops": self.saved_flops,
            "failures": list(self.failures),
            "remarks": remarks(self),
            "verdict": self.verdict(),
        }

    def table(self, *, markdown: bool = False) -> str:
        """The summary as text, one line per arm: losses are said as plainly as wins."""
        from stackwise.study.words import table_of

        return table_of(self, markdown=markdown)

    def verdict(self) -> str:
        """What may be said of a winner: nothing with one seed, paired differences with more.

        Arms whose learning rate does not decay to zero are named: they are no fair control.

        Raises:
            ExperimentError: If the runs saw different data.
        """
        from stackwise.study.words import verdict_of

        self.check()
        return verdict_of(self)

    def seeds_needed(self, effect: float | None = None) -> dict[str, int | None]:
        """The seeds that the measured paired spread asks for, for each arm beside the control.

        For a two-sided paired t test at 5 % to see the effect with probability 0.8; three at least.

        Args:
            effect: The difference that matters, in bits per byte; None for the one that the study
                names, or the measured one.

        Returns:
            By arm; None where it is not known, or no number of seeds would do.
        """
        from stackwise.study.summary import seeds_by_arm

        return seeds_by_arm(self, self.effect if effect is None else effect)


def row_of(arm: Arm, seed: int, run: Run) -> dict[str, Any]:
    """One run as a row."""
    result = run.result()
    row = {key: result.get(key) for key in COLUMNS}
    tokens = result.get("trained_tokens")
    return {"arm": arm.name, "seed": seed, "run": run.id, "tokens": tokens, **row}
