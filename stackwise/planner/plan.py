"""What an experiment will take on a machine, before anything is made: memory, disk, FLOPs, time.

    plan = sw.plan("llama-2-70b", hardware="h200")
    print(plan)                    # a table of stages, what fits, and what it costs
    plan.fits, plan.peak_bytes, plan.days

Bytes and FLOPs are those of `memory/`, seconds those of `seconds.py` and `stage_seconds.py`, put
together for every stage and compared with the machine. What to change where it does not fit is in
`advice.py`, how it is printed in `shown.py`, how far such plans were off in `bars.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise.asked import a_placement, an_experiment, usual_placement
from stackwise.budget import steps_of
from stackwise.completion import packing
from stackwise.config import Experiment, Placement
from stackwise.curriculum import stages
from stackwise.end_to_end import in_one_stage
from stackwise.memory.bytes import plan_rows
from stackwise.memory.disk import ENDLESS
from stackwise.memory.stored import stack_bytes
from stackwise.planner.bars import ErrorBars, bars_for
from stackwise.planner.hardware import Hardware, hardware_called
from stackwise.planner.needs import Needs, needs, placed_on, with_disk
from stackwise.planner.stage_seconds import stage_seconds
from stackwise.planner.timed import FILES_KEPT, in_tokens
from stackwise.planner.units import DAY
from stackwise.probing import Probes, as_probed, asked_probes, bounded_probes
from stackwise.stage import Stage, parts_trained

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Plan:
    """What an experiment takes on a machine.

    Attributes:
        asked: What is trained.
        experiment: The same; where its budget is a time, with the tokens of it.
        placement: How it is carried out.
        hardware: On what.
        needs: The most of memory and disk that it takes at a time.
        epoch_samples: Samples of the training text; `ENDLESS` where that is not known.
        rows: One mapping per stage: what `plan_rows` gives, and `trains`, `steps`, and seconds by
            part, of a step in `step_seconds`, of the whole stage in `seconds`.
    """

    asked: Experiment
    experiment: Experiment
    placement: Placement
    hardware: Hardware
    needs: Needs
    epoch_samples: int
    rows: tuple[Mapping[str, Any], ...]

    @property
    def peak_bytes(self) -> int:
        """The most that a stage takes on the device, at its highest moment."""
        return self.needs.peak_bytes

    @property
    def host_bytes(self) -> int:
        """The most of the host's memory, beside a card; on a CPU all is in `peak_bytes`."""
        return self.needs.host_bytes

    @property
    def disk_bytes(self) -> int:
        """The most on disk: checkpoints, masters and cached outputs."""
        return self.needs.disk_bytes

    @property
    def tokens(self) -> int:
        """Tokens read, over all stages."""
        return sum(int(row["tokens"] or 0) for row in self.rows)

    @property
    def flops(self) -> float:
        """FLOPs of training, over all stages."""
        return float(sum(row["flops"] for row in self.rows))

    @property
    def seconds(self) -> float:
        """All stages, with what they take beside their steps; NaN on a machine without rates."""
        if self.hardware.origin == "unknown":
            return math.nan
        return float(sum(sum(row["seconds"].values()) for row in self.rows))

    @property
    def days(self) -> float:
        """The same in days."""
        return self.seconds / DAY

    @property
    def tokens_per_day(self) -> float:
        """Of the whole run, in the mean."""
        return self.tokens / self.days

    @cached_property
    def probes(self) -> Probes:
        """How the run is looked at, and what that takes; where it is over, less than is asked."""
        return bounded_probes(self.experiment, self.needs.made)

    @cached_property
    def asked_probes(self) -> Probes:
        """The same as the experiment asks for it."""
        return asked_probes(self.experiment, self.needs.made)

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """Why it does not fit; nothing if it does."""
        return tuple(self.needs.problems(self.hardware))

    @property
    def fits(self) -> bool:
        """Whether the machine holds it."""
        return not self.problems

    @cached_property
    def advice(self) -> tuple[str, ...]:
        """What to change so that it fits, each with what it takes then; nothing if it fits."""
        from stackwise.planner.advice import advice_for

        return () if self.fits else tuple(advice_for(self))

    @cached_property
    def bars(self) -> ErrorBars:
        """How far such plans were off."""
        return bars_for(self.hardware)

    @cached_property
    def end_to_end(self) -> Mapping[str, Any]:
        """The same rack trained end to end on the same budget: bytes and FLOPs, for comparison."""
        exp = in_one_stage(self.experiment)
        place, card = self.placement.replace(trunk="recompute"), self.hardware.kind == "cuda"
        (row,) = plan_rows(exp, place, stages(exp), card=card)
        return row

    def to_frame(self) -> pd.DataFrame:
        """One row per stage; bytes by category and seconds by part are columns of their own."""
        import pandas as pd

        return pd.DataFrame([flat(row) for row in self.rows])

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "experiment": self.asked.model_dump(mode="json"),
            "placement": self.placement.model_dump(mode="json"),
            "hardware": asdict(self.hardware),
            "peak_bytes": self.peak_bytes,
            "host_bytes": self.host_bytes,
            "cache_bytes": self.needs.cache_bytes,
            "epoch_samples": None if self.epoch_samples == ENDLESS else self.epoch_samples,
            "checkpoint_bytes": self.needs.checkpoint_bytes,
            "tokens": self.tokens,
            "flops": self.flops,
            "seconds": self.seconds,
            "days": self.days,
            "tokens_per_day": self.tokens_per_day,
            "fits": self.fits,
            "probes": {**asdict(self.probes), "frac": self.probes.frac},
            "problems": list(self.problems),
            "advice": list(self.advice),
            "end_to_end": {
                key: self.end_to_end[key]
                for key in ("peak_bytes", "bytes", "flops_per_token", "tokens", "flops")
            },
            "stages": [dict(row) for row in self.rows],
        }

    def __str__(self) -> str:
        from stackwise.planner.shown import plan_text

        return plan_text(self)


def plan(
    exp: Experiment | str,
    placement: Placement | Mapping[str, Any] | str | None = None,
    *,
    hardware: Hardware | str | Path = "this",
    epoch_samples: int = ENDLESS,
) -> Plan:
    """Work out what an experiment will take on a machine.

    Nothing is built or read, not even the text.

    Args:
        exp: What to train: an experiment, or a preset's name.
        placement: How to carry it out; None for the defaults, a preset's own if it has any.
        hardware: A name that `HARDWARE` knows, `this` for the machine at hand (measured by
            `stackwise calibrate`), a YAML file of a card, or a `Hardware`.
        epoch_samples: Samples of the training text, which bound what a cache holds where
            `data.distinct_epochs` lets rows repeat.

    Raises:
        ExperimentError: If the experiment has no stages, there is no such hardware, or the
            placement names a device that it is not; of a budget that is a time, as `timed`.
    """
    asked, place = an_experiment(exp), a_placement(placement) or usual_placement(exp)
    machine = hardware if isinstance(hardware, Hardware) else hardware_called(hardware)
    machine, place = with_disk(machine, place), placed_on(place, machine)
    made_of = in_tokens(asked, place, machine, epoch_samples=epoch_samples)
    needed = needs(made_of, place, machine=machine, epoch_samples=epoch_samples)
    made = needed.made
    looked = as_probed(made_of, made)
    return Plan(
        asked=asked,
        experiment=made_of,
        placement=place,
        hardware=machine,
        needs=needed,
        epoch_samples=epoch_samples,
        rows=tuple(
            {
                **row,
                "trains": sorted(parts_trained(stage)),
                "steps": steps_of(made_of, stage),
                **seconds_of(looked, place, made, number, machine, epoch_samples),
            }
            for number, (row, stage) in enumerate(zip(needed.rows, made, strict=True))
        ),
    )


def seconds_of(
    exp: Experiment,
    placement: Placement,
    made: Sequence[Stage],
    number: int,
    machine: Hardware,
    epoch_samples: int,
) -> dict[str, dict[str, float]]:
    """Seconds of a stage, by part, and of one of its steps; none of a machine without rates."""
    if machine.origin == "unknown":
        return {"step_seconds": {}, "seconds": {}}
    lent = len(made[number].path) * stack_bytes(exp, packing(exp.precision))
    found = stage_seconds(
        exp,
        placement,
        made,
        number,
        machine,
        epoch_samples=epoch_samples,
        from_disk=lent > FILES_KEPT * machine.host_bytes,
    )
    whole = asdict(found)
    return {"step_seconds": whole.pop("step"), "seconds": whole}


def flat(row: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A stage's mapping without what it says of parts and blocks; nested names with a dot."""
    out: dict[str, Any] = {}
    for key, value in row.items():
        if key in ("bytes_by_part", "block_bytes", "block_flops_per_token"):
            continue
        if isinstance(value, Mapping):
            out |= flat(value, f"{before}{key}.")
        else:
            out[f"{before}{key}"] = value
    return out
