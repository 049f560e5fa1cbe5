"""Studies: experiments x seeds, compared at equal compute.

A study is a base experiment, the keys that vary, and the seeds. Every arm gets the same FLOPs,
head included (or the same tokens, if asked), the same data in the same order, and a learning rate
that decays to zero, so that the end-to-end control is a fair one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from stackwise.asked import a_placement, an_experiment, arms_named, seeds_of, varied
from stackwise.by_stage import step_tokens
from stackwise.config import Experiment, Placement
from stackwise.curriculum import stages
from stackwise.errors import ExperimentError
from stackwise.memory.bytes import training_bytes
from stackwise.memory.flops import stage_flops_per_token
from stackwise.model.shape import total_blocks
from stackwise.report import study_text
from stackwise.runs import Run
from stackwise.training.run import OnStep, Stopped, train
from stackwise.training.start import settled

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("bits_per_byte", "stderr", "parameters", "epochs", "flops", "peak_bytes", "seconds")


@dataclass(frozen=True)
class Arm:
    """One experiment of a study, under the name that tables and figures show."""

    name: str
    experiment: Experiment


class Study:
    """Experiments x seeds at equal compute.

    Learning rates that do not decay are told in the verdict, and not refused: a study may be about
    them.

    Args:
        base: What all arms share; an experiment, or a preset's name.
        vary: Keys to lists of values; every combination is an arm. Dotted keys reach inside.
        seeds: Each arm runs once per seed; seed k of one arm is paired with seed k of another,
            since both see the same samples in the same order.
        equal: What all arms spend alike. The base's budget, if it is in the other unit, is
            converted by what the base itself would spend.
        more: Arms that `vary` cannot express: name to experiment.
        name: What the base is called when nothing varies.
        placement: How runs are carried out; never varied.

    Raises:
        ExperimentError: If an argument is not as above, two arms have one name, an arm cannot be
            planned, or what its stages spend is further from the budget than one step of its
            dearest stage.
    """

    def __init__(
        self,
        base: Experiment | str,
        *,
        vary: Mapping[str, Sequence[Any]] | None = None,
        seeds: Iterable[int] = (0,),
        equal: Literal["flops", "tokens"] = "flops",
        more: Mapping[str, Experiment] | None = None,
        name: str = "base",
        placement: Placement | None = None,
    ) -> None:
        if equal not in ("flops", "tokens"):
            raise ExperimentError(f"equal: {equal!r} is neither 'flops' nor 'tokens'")
        base, keys, added = an_experiment(base, "base"), varied(vary), arms_named(more)
        self.seeds = seeds_of(seeds)
        self.placement = a_placement(placement) or Placement()
        asked = getattr(base.budget, equal)
        budget = asked if asked is not None else spent(settled(base, self.placement)[0])[equal]
        named = [names_of(values) for values in keys.values()]
        arms = [
            Arm(", ".join(names) or name, base.replace(**dict(zip(keys, values, strict=True))))
            for names, values in zip(product(*named), product(*keys.values()), strict=True)
        ]
        arms += [Arm(name, exp) for name, exp in added.items()]
        self.arms = [Arm(arm.name, arm.experiment.replace(budget={equal: budget})) for arm in arms]
        self.equal = equal
        self._check(budget)

    def _check(self, budget: float) -> None:
        """Raise ExperimentError unless every arm has its own name and spends the budget."""
        names = [arm.name for arm in self.arms]
        problems = [
            f"arm {name!r}: names two arms; give each a name of its own"
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        ]
        for arm in self.arms:
            try:
                exp, _ = settled(arm.experiment, self.placement)
                problems += [f"arm {arm.name!r}: {x}" for x in _unequal(exp, self.equal, budget)]
            except ExperimentError as error:
                problems += [f"arm {arm.name!r}: {problem}" for problem in error.problems]
        if problems:
            raise ExperimentError("\n".join(problems))

    def run(
        self, *, on_step: OnStep | None = None, on_arm: Callable[[Arm, int], None] | None = None
    ) -> StudyResult:
        """Train every arm with every seed, in this process; finished runs are not run again.

        Raises:
            Stopped: If the user stopped an arm; it is saved, and the same call goes on.
        """
        runs = []
        for seed in self.seeds:
            for arm in self.arms:
                if on_arm is not None:
                    on_arm(arm, seed)
                exp = arm.experiment.replace(seed=seed)
                run = train(exp, self.placement, on_step=on_step)
                if run.state != "finished":
                    raise Stopped(
                        f"{arm.name} stopped and saved; the same study goes on from there"
                    )
                runs.append((arm, seed, run))
        return StudyResult(self.equal, tuple(runs))


@dataclass(frozen=True)
class StudyResult:
    """The runs of a study, and what they say."""

    equal: str
    runs: tuple[tuple[Arm, int, Run], ...]

    def __str__(self) -> str:
        return study_text(self)

    def to_frame(self) -> pd.DataFrame:
        """One row per run: arm, seed, run id, held-out bits per byte, costs."""
        import pandas as pd

        rows = []
        for arm, seed, run in self.runs:
            result = run.result()
            row = {key: result.get(key) for key in COLUMNS}
            tokens = result.get("trained_tokens")
            rows.append({"arm": arm.name, "seed": seed, "run": run.id, "tokens": tokens, **row})
        return pd.DataFrame(rows)

    def verdict(self) -> str:
        """What may be said of a winner: nothing with one seed, paired differences with more.

        Arms whose learning rate does not decay to zero are named: they are no fair control.
        """
        said = self._ranking()
        flat = [arm.name for arm, _, _ in self.runs if arm.experiment.optim.schedule == "constant"]
        if flat:
            said += (
                f" Not a fair control: {', '.join(dict.fromkeys(flat))} trained at "
                "optim.schedule=constant, whose learning rate does not decay to zero."
            )
        return said

    def _ranking(self) -> str:
        frame = self.to_frame()
        seeds = frame["seed"].nunique()
        means = frame.groupby("arm", sort=False)["bits_per_byte"].mean().sort_values()
        kinds = {arm.name: run.result().get("note") for arm, _, run in self.runs}
        if frame["bits_per_byte"].isna().any():
            return "Some runs hold no result, so nothing is ranked."
        if len(set(kinds.values())) > 1:
            said = "; ".join(f"{name}: {note}" for name, note in kinds.items())
            return f"The figures are of different kinds, so nothing is ranked. {said}."
        best = str(means.index[0])
        if len(means) < 2:
            over = f", mean of {seeds} seeds" if seeds > 1 else ""
            alone = "One arm has nothing to win against."
            return f"{best}: {means.iloc[0]:.3f} bits per byte{over}. {alone}"
        if seeds < 2:
            return (
                f"Lowest here: {best} at {means.iloc[0]:.3f} bits per byte. "
                "One seed names no winner: repeat with three or more."
            )
        wide = frame.pivot(index="seed", columns="arm", values="bits_per_byte")
        difference = wide[means.index[1]] - wide[best]
        error = difference.std(ddof=1) / seeds**0.5
        return (
            f"Lowest mean: {best} at {means.iloc[0]:.3f} bits per byte; {means.index[1]} is "
            f"{difference.mean():+.3f} ± {error:.3f} (paired over {seeds} seeds)"
            + (", too few to claim." if seeds < 3 else ".")
        )


def spent(exp: Experiment) -> dict[str, float]:
    """What an experiment's stages spend: `tokens` and `flops`."""
    made = stages(exp)
    return {
        "tokens": sum(stage.tokens or 0 for stage in made),
        "flops": sum(
            (stage.tokens or 0) * stage_flops_per_token(exp, stage).total for stage in made
        ),
    }


def shrunk_to(exp: Experiment, limit_bytes: int) -> Experiment:
    """The deepest end-to-end experiment whose training bytes are at most `limit_bytes`.

    Width and all else stay; blocks are left out, in one stack. It answers: given this much memory,
    which wins?

    Raises:
        ExperimentError: If not even one block fits.
    """
    for blocks in range(total_blocks(exp.rack), 0, -1):
        rack = {"stacks": 1, "blocks_per_stack": blocks}
        small = exp.replace(rack=rack, curriculum="end_to_end", masking={"bands": None})
        if training_bytes(small, Placement()) <= limit_bytes:
            return small
    raise ExperimentError(
        f"no end-to-end rack of this width trains in {limit_bytes} bytes; lower rack.d_model"
    )


def _unequal(exp: Experiment, equal: str, budget: float) -> Iterator[str]:
    """How an arm misses the budget by over a step of its dearest stage, as with tokens of its own.

    Raises:
        ExperimentError: If its stages cannot be made.
    """
    made, found = stages(exp), spent(exp)[equal]
    step = max(
        step_tokens(exp, stage)
        * (stage_flops_per_token(exp, stage).total if equal == "flops" else 1.0)
        for stage in made
    )
    if abs(found - budget) > step:
        yield (
            f"spends {found:.4g} {equal} where every arm is to spend {budget:.4g}, to within a "
            f"step of {step:.4g}; leave tokens of its stages empty, or give them the whole budget"
        )


def names_of(values: Sequence[Any]) -> list[str]:
    """What to call the values of a key that varies: by kind, and by what differs within a kind."""
    short = [_kind(value) for value in values]
    named = []
    for value, name in zip(values, short, strict=True):
        alike = [_keys(v) for v, other in zip(values, short, strict=True) if other == name]
        keys = dict.fromkeys(key for other in alike for key in other)
        differing = [key for key in keys if any(o.get(key) != alike[0].get(key) for o in alike)]
        own = _keys(value)
        named.append(" ".join([name, *(f"{key}={own[key]}" for key in differing if key in own)]))
    return named


def _kind(value: Any) -> str:
    """A value's selector, or all of it."""
    keys = value.model_dump() if isinstance(value, BaseModel) else value
    if not isinstance(keys, Mapping):
        return str(value)
    selected = keys.get("name", keys.get("kind"))
    return " ".join(f"{k}={v}" for k, v in keys.items()) if selected is None else str(selected)


def _keys(value: Any) -> dict[str, Any]:
    """What a value says beside its selector."""
    keys = value.model_dump() if isinstance(value, BaseModel) else value
    if not isinstance(keys, Mapping):
        return {}
    return {key: item for key, item in keys.items() if key not in ("name", "kind")}
