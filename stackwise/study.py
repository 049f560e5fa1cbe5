"""Studies: experiments x seeds, compared at equal compute.

A study is a base experiment, the keys that vary, and the seeds. Every arm gets the same FLOPs,
head included (or the same tokens, if asked), the same data in the same order, and a learning rate
that decays to zero, so that the end-to-end control is a fair one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from stackwise.config import Experiment, Placement
from stackwise.curriculum import stages
from stackwise.errors import ExperimentError
from stackwise.memory.bytes import training_bytes
from stackwise.memory.flops import stage_flops_per_token
from stackwise.model.shape import total_blocks
from stackwise.report import study_text
from stackwise.runs import Run
from stackwise.training.run import OnStep, Stopped, train

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

    Args:
        base: What all arms share.
        vary: Keys to lists of values; every combination is an arm. Dotted keys reach inside.
        seeds: Each arm runs once per seed; seed k of one arm is paired with seed k of another,
            since both see the same samples in the same order.
        equal: What all arms spend alike. The base's budget, if it is in the other unit, is
            converted by what the base itself would spend.
        more: Arms that `vary` cannot express: name to experiment.
        name: What the base is called when nothing varies.
        placement: How runs are carried out; never varied.
    """

    def __init__(
        self,
        base: Experiment,
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
        self.seeds = tuple(seeds)
        if not self.seeds:
            raise ExperimentError("seeds: none given; a study needs one, and three to say anything")
        self.placement = placement or Placement()
        asked = getattr(base.budget, equal)
        budget = {equal: asked if asked is not None else spent(base)[equal]}
        keys = dict(vary or {})
        arms = [
            Arm(_name(values) or name, base.replace(**dict(zip(keys, values, strict=True))))
            for values in product(*keys.values())
        ]
        arms += [Arm(name, exp) for name, exp in (more or {}).items()]
        self.arms = [Arm(arm.name, arm.experiment.replace(budget=budget)) for arm in arms]
        self.equal = equal

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
        """What may be said of a winner: nothing with one seed, paired differences with more."""
        frame = self.to_frame()
        seeds = frame["seed"].nunique()
        means = frame.groupby("arm", sort=False)["bits_per_byte"].mean().sort_values()
        if means.isna().any():
            return "Some arms have no likelihood of their own, so nothing is ranked."
        best = str(means.index[0])
        if seeds < 2 or len(means) < 2:
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


def _name(values: Sequence[Any]) -> str:
    return ", ".join(
        str(v.get("name", v.get("kind", v))) if isinstance(v, Mapping) else str(v) for v in values
    )
