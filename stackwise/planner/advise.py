"""What some days of a machine buy: racks, curricula, and how many tokens each of them gets.

    print(sw.advise("h200", days=14))

Every rack of `RACKS` is planned with every curriculum of `WAYS`, frozen and trained in as few bytes
as the curriculum takes, with a budget that fills the days. From random weights a rack wants about
20 tokens for each parameter (Hoffmann et al., arXiv 2203.15556); how long that would take is said
where the days do not buy it. A model that is imported has learned from its own already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stackwise.config import Experiment, Placement
from stackwise.errors import ExperimentError
from stackwise.memory.flops import vocab_size
from stackwise.model.count import count_parameters
from stackwise.planner.curve import rate_at
from stackwise.planner.hardware import hardware_called
from stackwise.planner.needs import needs, with_disk
from stackwise.planner.plan import Plan, plan
from stackwise.planner.units import DAY, days_text, gib
from stackwise.report import count_text, program, table

if TYPE_CHECKING:
    from stackwise.planner.hardware import Hardware

RACKS = ("gpt2-small", "1b", "8b", "llama-2-70b", "405b")
WANTED = 20.0  # tokens per parameter, from random weights
Start = Literal["scratch", "imported"]
LOW = {"compute": "bfloat16", "weights": "bfloat16", "rounding": "stochastic"}
FROZEN = {**LOW, "frozen": "nf4", "master": "bf16"}
WAYS: dict[Start, dict[str, Mapping[str, Any]]] = {
    "scratch": {
        "end_to_end": {"curriculum": "end_to_end", "precision": LOW},
        "grow": {"curriculum": "grow", "precision": LOW},
        "left_to_right": {
            "curriculum": {"name": "left_to_right", "embedding": "first", "head": "always"},
            "precision": FROZEN,
        },
    },
    "imported": {
        "end_to_end": {"curriculum": "end_to_end", "precision": LOW},
        "block_coordinate": {
            "curriculum": {"name": "block_coordinate", "cycles": 1, "embedding": "never"},
            "precision": FROZEN,
        },
    },
}
LEAN = {"name": "adamw8bit", "ema": None, "clip": 1.0, "grads": "whole"}
NEAR = 0.01  # of the days, is near enough
TRUNKS = ("recompute", "streamed")


@dataclass(frozen=True)
class Bought:
    """What the days buy of one rack with one curriculum.

    Attributes:
        rack: The preset.
        start: From random weights, or from a model that is imported.
        curriculum: Its name.
        parameters: Of the whole rack.
        plan: With a budget that fills the days; None if there is none.
        needed_bytes: Of the device, at the highest moment, at least.
        fits: Whether the machine has them.
        days: The days.
    """

    rack: str
    start: Start
    curriculum: str
    parameters: int
    plan: Plan | None
    needed_bytes: int
    fits: bool
    days: float

    @property
    def tokens(self) -> int:
        """Tokens that the days buy."""
        return 0 if self.plan is None else self.plan.tokens

    @property
    def tokens_of_a_block(self) -> float:
        """Tokens that a block is trained on, in the mean over blocks."""
        if self.plan is None:
            return 0.0
        stacks = self.plan.experiment.rack.stacks
        trained = sum(
            int(row["tokens"]) * sum(part not in ("embedding", "head") for part in row["trains"])
            for row in self.plan.rows
        )
        return trained / stacks

    @property
    def per_parameter(self) -> float:
        """Tokens that a block is trained on, for each parameter of the rack."""
        return self.tokens_of_a_block / self.parameters

    @property
    def wanted_days(self) -> float:
        """Days until every block has had the tokens that the rack wants from random weights."""
        return self.days * WANTED / self.per_parameter if self.tokens else float("inf")


@dataclass(frozen=True)
class Advice:
    """What some days of a machine buy.

    Attributes:
        hardware: The machine.
        days: How many.
        bought: One for each rack, start and curriculum.
    """

    hardware: Hardware
    days: float
    bought: tuple[Bought, ...]

    def __str__(self) -> str:
        return advice_text(self)


def advise(
    hardware: Hardware | str | Path = "this",
    days: float = 14.0,
    *,
    racks: Sequence[str] = RACKS,
) -> Advice:
    """Say what racks, curricula and token counts some days of a machine buy.

    Args:
        hardware: As for `plan`.
        days: Over 0.
        racks: Presets.

    Raises:
        ExperimentError: If there is no such hardware or preset, or the days are not over 0.
    """
    if not 0 < days < 1e5:
        raise ExperimentError(f"--days: {days:g} must be over 0 and under 100000")
    machine = hardware_called(hardware) if isinstance(hardware, str | Path) else hardware
    if machine.origin == "unknown":
        raise ExperimentError(
            f"--hardware: this machine has not been measured; do it with: {program()} calibrate"
        )
    found = [
        one_bought(rack, start, name, machine, days)
        for rack in racks
        for start, ways in WAYS.items()
        for name in ways
    ]
    return Advice(machine, days, tuple(found))


def one_bought(rack: str, start: Start, name: str, machine: Hardware, days: float) -> Bought:
    """What the days buy of one rack with one curriculum."""
    preset = Experiment.preset(rack)
    exp = preset.replace(
        masking={"bands": None}, optim=LEAN, eval={"depths": "last"}, **WAYS[start][name]
    )
    parameters = count_parameters(exp.rack, exp.attention, vocab_size(exp))
    place, least = placed(exp, machine)
    found = None if place is None else filling(exp, place, machine, days)
    return Bought(rack, start, name, parameters, found, least, place is not None, days)


def placed(exp: Experiment, machine: Hardware) -> tuple[Placement | None, int]:
    """A placement that fits, if there is one: the fastest; and the fewest bytes of any."""
    least = 1 << 62
    for trunk in TRUNKS:
        place = Placement(device=machine.kind, micro_batch=1, checkpointing=True, trunk=trunk)
        taken = needs(exp, place, machine=machine)
        if taken.fits(with_disk(machine, place)):
            return place, taken.peak_bytes
        least = min(least, taken.peak_bytes)
    return None, least


def filling(exp: Experiment, place: Placement, machine: Hardware, days: float) -> Plan | None:
    """The plan whose budget fills the days; None if they are too few for a step in each stage."""
    flops = rate_at(machine.matmul["bfloat16"], exp.rack.d_model) * days * DAY
    for _ in range(3):  # what does not grow with the budget is little of many days
        try:
            found = plan(exp.replace(budget={"flops": flops}), place, hardware=machine)
        except ExperimentError:
            return None
        flops *= days / found.days
        if abs(found.days / days - 1) < NEAR:
            break
    return found


def advice_text(advice: Advice) -> str:
    """A table for each start, and what it says of each rack."""
    lines = [f"{days_text(advice.days)} of {advice.hardware.name}: {advice.hardware.said}"]
    heads = {
        "scratch": "From random weights (a rack wants about 20 tokens for each parameter):",
        "imported": "From a model that is imported, and has learned already:",
    }
    for start, head in heads.items():
        chosen = [each for each in advice.bought if each.start == start]
        lines += ["", head, "", bought_table(chosen), "", *said_of(chosen, start)]
    return "\n".join(lines)


HEAD = ["rack", "curriculum", "parameters", "memory", "tokens", "a block trains on", "a parameter"]


def bought_table(bought: Sequence[Bought]) -> str:
    """One line per rack and curriculum."""
    return table(
        HEAD,
        [
            [
                each.rack,
                each.curriculum,
                count_text(each.parameters),
                gib(each.needed_bytes) + ("" if each.fits else ", too much"),
                *told(each),
            ]
            for each in bought
        ],
    )


def told(each: Bought) -> list[str]:
    """Tokens in all, of a block, and of a block per parameter."""
    if each.plan is None:
        return ["too few days" if each.fits else "-", "-", "-"]
    return [
        count_text(each.tokens),
        count_text(each.tokens_of_a_block),
        count_text(each.per_parameter) if each.per_parameter >= 10 else f"{each.per_parameter:.2g}",
    ]


def said_of(bought: Sequence[Bought], start: str) -> Iterator[str]:
    """In words: what is worth starting, and what would take too long."""
    if start == "imported":
        able = [each for each in bought if each.plan]
        if able:
            most = max(able, key=lambda each: each.parameters)
            yield (
                f"The largest that trains: {most.rack} with {most.curriculum}, every block on "
                f"{count_text(most.tokens_of_a_block)} tokens."
            )
        return
    enough = [each for each in bought if each.plan and each.per_parameter >= WANTED]
    if enough:
        best = max(enough, key=lambda each: (each.parameters, each.per_parameter))
        yield (
            f"The largest that gets its 20: {best.rack} with {best.curriculum}, "
            f"{best.per_parameter:.3g} tokens a parameter."
        )
    for rack in dict.fromkeys(each.rack for each in bought):
        able = [each for each in bought if each.rack == rack and each.plan]
        if able and not any(each in enough for each in able):
            best = min(able, key=lambda each: each.wanted_days)
            yield (
                f"{rack} would take {days_text(best.wanted_days)} for its 20, with "
                f"{best.curriculum}: start it to study curricula or memory, not for the model."
            )
