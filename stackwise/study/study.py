"""A study: experiments x seeds, compared fairly.

    study = sw.Study("toy", vary={"curriculum": ["end_to_end", "grow"]}, seeds=range(3))
    print(study.plan())            # what it will take
    result = study.run()           # goes on where it stopped
    print(result), result.summary()

What makes it fair: every arm gets the same budget, the same data in the same order and the same
grid of learning rates; there is a control that is trained end to end and decayed fully, and an
end-to-end rack that takes no more memory than the arm that saves most. The pieces are `arms.py`,
`controls.py`, `budgets.py`, `grid.py` and `sharing.py`; how runs are carried out, `jobs.py` and
`pool.py`; what they say, `result.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from stackwise.asked import a_placement, an_experiment, arms_named, seeds_of, varied
from stackwise.config import Experiment, Placement
from stackwise.curriculum import stages
from stackwise.errors import ExperimentError, short
from stackwise.own_code import Paths, carried_by_all
from stackwise.planner.hardware import Hardware
from stackwise.runs import Run
from stackwise.runs.carried import facts_of, write_code
from stackwise.study.arms import Arm, arms_of, check_data, check_names
from stackwise.study.budgets import EQUALS, Calibrated, Equal, budget_of, in_seconds, unequal
from stackwise.study.controls import control_of, new_control, same_bytes_arm
from stackwise.study.folder import (
    RECORD,
    arguments_of,
    code_of,
    frozen_in,
    plain,
    read_result,
    study_id,
    write_record,
    write_results,
    write_runs,
)
from stackwise.study.grid import MOST, Tried, best_rates, rates_of, seed_for_tuning
from stackwise.study.jobs import ARM, TUNING, Done, Job, OnArm, carry_out
from stackwise.study.plan import StudyPlan, plan_study
from stackwise.study.pool import Workers, carry_out_in_pool, workers_of
from stackwise.study.result import StudyResult
from stackwise.study.sharing import flops_saved
from stackwise.training.run import OnStep
from stackwise.training.start import settled


class Study:
    """Experiments x seeds at equal compute, with the arms that make the comparison fair.

    An arm that trains the base's rack end to end, under a schedule that decays to zero, is the
    control; where there is none, one called `control` is added. Learning rates of other arms that
    do not decay are told in the verdict, and not refused: a study may be about them.

    Args:
        base: What all arms share; an experiment, or a preset's name.
        vary: Keys to lists of values; every combination is an arm. Dotted keys reach inside.
        seeds: Each arm runs once per seed; seed k of one arm is paired with seed k of another,
            since both see the same samples in the same order. Three at least say something; a
            headline needs eight.
        equal: What all arms spend alike: `flops` (head included), `tokens`, or `seconds`, which are
            turned into tokens for each arm by one calibration and frozen in the study's folder.
            The base's budget, if it is in another unit, is converted by what the base would spend;
            one that is a time is what `seconds` gives each arm, and goes with no other.
        more: Arms that `vary` cannot express: name to experiment.
        name: What the base is called when nothing varies.
        placement: How runs are carried out; never varied.
        lr_grid: Learning rates that every arm is tuned over: a list, or `{"times": (0.5, 1, 2)}`
            for multiples of the rates that the arms name, which is the default. None: no tuning;
            so it is, too, where `optim.lr` is what varies.
        tuning_seed: The seed of the grid's runs; None: 1000, which no usual study has.
        same_bytes: Add the end-to-end rack shrunk to the training bytes of the arm that saves most;
            None: where such a rack fits; False: do not.
        both: Train every arm at the equal FLOPs or tokens that are not `equal`, too; else they are
            read off curves, and marked where the learning rate had not decayed there.
        effect: The smallest difference that matters, in bits per byte, by which the seeds that are
            asked for are worked out; None: the one that is measured.
        hardware: For `seconds`: a measured machine (`this`), a name, a file or a `Hardware`.
        code: Files of your own that bring kinds of its arms; its runs carry them.
        folder: Of the study itself; None: in `placement.runs_dir`, named by what decides its arms.

    Attributes:
        arms: All arms, those that were added last.
        control: The arm that the others are compared with.
        rates: The grid; empty for none.
        notes: What a reader should know of how the arms came about.
        calibrated: Equal seconds as they were worked out; None for other studies.

    Raises:
        ExperimentError: If an argument is not as above, two arms have one name or see different
            data, an arm cannot be planned, or what its stages spend is further from the budget
            than one step of its dearest stage.
    """

    def __init__(
        self,
        base: Experiment | str,
        *,
        vary: Mapping[str, Sequence[Any]] | None = None,
        seeds: Iterable[int] = (0,),
        equal: Equal = "flops",
        more: Mapping[str, Experiment] | None = None,
        name: str = "base",
        placement: Placement | None = None,
        lr_grid: Any = "default",
        tuning_seed: int | None = None,
        same_bytes: bool | None = None,
        both: bool = False,
        effect: float | None = None,
        hardware: Hardware | str | Path = "this",
        code: Paths = (),
        folder: str | Path | None = None,
    ) -> None:
        if equal not in EQUALS:
            raise ExperimentError(f"equal: {short(equal)} is neither 'flops', 'tokens' nor "
                                  "'seconds'")  # fmt: skip
        base, keys, added = an_experiment(base, "base"), varied(vary), arms_named(more)
        self.base, self.equal, self.both, self.hardware = base, equal, both, hardware
        check_time(base, equal, both)
        self.effect = an_effect(effect)
        self.seeds = seeds_of(seeds)
        self.placement = a_placement(placement) or Placement()
        given = arms_of(base, keys, added, name)
        self.code = carried_by_all([arm.experiment for arm in given], code)
        self.rates = rates_of(lr_grid, given, list(keys))
        self.tuning_seed = seed_of_tuning(tuning_seed, self.seeds)
        self.asked = {
            "base": plain(base),
            "vary": plain(keys),
            "seeds": list(self.seeds),
            "equal": equal,
            "more": plain(added),
            "name": name,
            "lr_grid": plain(lr_grid),
            "tuning_seed": tuning_seed,
            "same_bytes": same_bytes,
            "both": both,
            "effect": effect,
            "hardware": hardware.name if isinstance(hardware, Hardware) else str(hardware),
        }
        self.asked |= facts_of(self.code)
        self.folder = Path(folder or Path(self.placement.runs_dir, study_id(self.asked)))
        self.calibrated: Calibrated | None = frozen_in(self.folder, self.asked)
        self.arms = self._spending(given)
        self._check(self.arms)
        self.control, self.notes = self._add_controls(same_bytes)
        self._check(self.arms)

    def _add_controls(self, same_bytes: bool | None) -> tuple[Arm, tuple[str, ...]]:
        """Add the control and the arm of equal bytes where they are not there."""
        control = control_of(self.base, self.arms)
        if control is None:
            (control,) = self._spending([new_control(self.base)])
            self.arms = [*self.arms, control]
        if same_bytes is False:
            return control, ()
        small, why = same_bytes_arm(control.experiment, self.arms, self.placement)
        if small is not None:
            self.arms = [*self.arms, *self._spending([small])]
        elif same_bytes and why:
            raise ExperimentError(f"same_bytes: {why}; leave it empty, or give same_bytes=False")
        return control, (why,) if why else ()

    def _spending(self, arms: Sequence[Arm]) -> list[Arm]:
        """The arms, each with the study's budget."""
        if self.equal != "seconds":
            budget = budget_of(self.base, self.placement, self.equal)
            return [Arm(a.name, a.experiment.replace(budget={self.equal: budget})) for a in arms]
        self.calibrated = in_seconds(
            self.base, arms, self.placement, self.hardware, self.calibrated
        )
        tokens = self.calibrated.tokens
        return [
            Arm(arm.name, arm.experiment.replace(budget={"tokens": tokens[arm.name]}))
            for arm in arms
        ]

    def _check(self, arms: Sequence[Arm]) -> None:
        """Raise ExperimentError unless every arm can be told apart, compared and carried out."""
        problems = [*check_names(arms), *check_data(arms, self.placement)]
        for arm in arms:
            try:
                exp, _ = settled(arm.experiment, self.placement)
                unit = "tokens" if self.equal == "seconds" else self.equal
                budget = getattr(exp.budget, unit)
                problems += [f"arm {arm.name!r}: {x}" for x in unequal(exp, unit, budget)]
            except ExperimentError as error:
                problems += [f"arm {arm.name!r}: {problem}" for problem in error.problems]
        if problems:
            raise ExperimentError("\n".join(problems))

    @classmethod
    def load(cls, path: str | Path, *, trust: bool = False, **changes: Any) -> Self:
        """A study of a file's, or of a study's own folder; it goes on where that stopped.

        Args:
            path: A YAML file with the arguments above as keys, or a folder that a study wrote.
            trust: Import the code that the folder carries: it runs as you, so read it first.
            changes: Arguments that are otherwise.

        Raises:
            TrustError: If the folder carries code that is neither known here nor trusted.
            ExperimentError: If anything of it is wrong.
        """
        path = Path(path)
        file = path / RECORD if path.is_dir() else path
        code = code_of(file, trust)
        return cls(**{**arguments_of(file), **code, **changes})

    def plan(self, hardware: Hardware | str | Path | None = None) -> StudyPlan:
        """What it will take, before anything is trained.

        Args:
            hardware: On what; None: as for `seconds`.

        Raises:
            ExperimentError: If there is no such hardware.
        """
        return plan_study(self, self.hardware if hardware is None else hardware)

    def tuning_jobs(self) -> list[Job]:
        """The runs of the grid."""
        seed = self.tuning_seed
        return [Job(arm, seed, TUNING, rate) for rate in self.rates for arm in self.arms]

    def jobs(self, rates: Mapping[str, float]) -> list[Job]:
        """The runs that are compared, at the rate of each arm, or else at its own."""
        return [
            Job(Arm(arm.name, self._at(arm, unit)), seed, unit or ARM, rates.get(arm.name))
            for unit in (None, *self._other_units())
            for seed in self.seeds
            for arm in self.arms
        ]

    def _other_units(self) -> list[str]:
        return [unit for unit in ("flops", "tokens") if self.both and unit != self.equal]

    def _at(self, arm: Arm, unit: str | None) -> Experiment:
        """An arm at another unit's budget; as it is where that makes no other stages."""
        own = arm.experiment
        if unit is None:
            return own
        other = own.replace(budget={unit: budget_of(self.base, self.placement, unit)})
        made = [stages(settled(exp, self.placement)[0]) for exp in (own, other)]
        return own if made[0] == made[1] else other

    def run(
        self,
        *,
        workers: Workers | None = None,
        threads: int | None = None,
        on_step: OnStep | None = None,
        on_arm: OnArm | None = None,
    ) -> StudyResult:
        """Train every arm with every seed; finished runs are not run again.

        Args:
            workers: How many runs at a time, each in a process of its own; `auto`: as many as the
                machine has cores for, on a card one. None: one after the other in this process.
            threads: Of the CPU for each run; None: the placement's, or as many as torch has in
                this process. It decides last bits, and is recorded.
            on_step: Called after every step, in this process alone.
            on_arm: Called as a run begins, with its arm and its seed.

        Returns:
            What came of it. A run that failed, or whose process died, is named under `failures`;
            the same call takes it up again.

        Raises:
            ExperimentError: If an argument is wrong, or the runs turn out to have seen other data.
            Stopped: If the user stopped it; what ran is saved, and the same call goes on.
        """
        if workers is not None and on_step is not None:
            raise ExperimentError("on_step: is called in this process alone; leave workers out")
        place = self.placement if threads is None else self.placement.replace(threads=threads)
        count = None if workers is None else workers_of(workers, place)
        self.save()

        def carried(jobs: Sequence[Job]) -> list[Done]:
            if count is None:
                return carry_out(jobs, place, code=self.code, on_step=on_step, on_arm=on_arm)
            return carry_out_in_pool(jobs, place, count, code=self.code, on_arm=on_arm)

        done = carried(self.tuning_jobs())
        self._write(done)
        done += carried(self.jobs(best_rates(tried_in(done))))
        self._write(done)
        result = self._result(done)
        result.check()
        write_results(self.folder, result)
        return result

    def save(self) -> Path:
        """Write study.yaml, with equal seconds as they were worked out; returns the folder."""
        write_code(self.folder, self.code)  # before what lists it
        write_record(self.folder, self.asked, self.placement, self.calibrated)
        return self.folder

    def result(self) -> StudyResult:
        """What its folder holds by now, without training.

        Raises:
            ExperimentError: If it has not run yet.
        """
        return read_result(StudyResult, self.folder)

    def _write(self, done: Sequence[Done]) -> None:
        facts = {"equal": self.equal, "control": self.control.name, "notes": list(self.notes)}
        write_runs(self.folder, done, {**facts, "effect": self.effect})

    def _result(self, done: Sequence[Done]) -> StudyResult:
        def of(role: str) -> tuple[tuple[Arm, int, Run], ...]:
            return tuple((d.job.arm, d.job.seed, d.run) for d in done if d.job.role == role)

        return StudyResult(
            self.equal,
            tuple((Arm(arm.name, run.experiment), seed, run) for arm, seed, run in of(ARM)),
            self.control.name,
            tuple(tried_in(done)),
            {unit: of(unit) for unit in self._other_units()},
            flops_saved([each.run for each in done]),
            tuple(f"{each.job} ({each.run.id}): {each.error}" for each in done if each.error),
            self.notes,
            self.effect,
        )


def tried_in(done: Sequence[Done]) -> list[Tried]:
    """The runs of the grid; one that failed came to nothing."""
    return [
        Tried(each.job.arm.name, float(each.job.rate or 0), each.job.seed, each.run)
        for each in done
        if each.job.role == TUNING
    ]


def check_time(base: Experiment, equal: str, both: bool) -> None:
    """Raise if the base's budget is a time, and arms are to be equal in something else.

    Raises:
        ExperimentError: If so.
    """
    if base.budget.seconds is None or (equal == "seconds" and not both):
        return
    asked = "both=True" if both else f"equal={equal!r}"
    raise ExperimentError(
        f"budget.{base.budget.unit}: is a time, and {asked} counts what arms spend in it, which "
        "depends on the machine; use equal='seconds' alone, or give the base tokens or flops"
    )


def an_effect(value: Any) -> float | None:
    """A difference in bits per byte.

    Raises:
        ExperimentError: If it is none over 0.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MOST:
        raise ExperimentError(f"effect: {short(value)} must be over 0, in bits per byte")
    return float(value)


def seed_of_tuning(value: Any, seeds: Sequence[int]) -> int:
    """The seed of the grid's runs.

    Raises:
        ExperimentError: If it is no seed.
    """
    if value is None:
        return seed_for_tuning(seeds)
    try:
        return seeds_of((value,))[0]
    except ExperimentError as error:
        raise ExperimentError(str(error).replace("seeds:", "tuning_seed:")) from None
