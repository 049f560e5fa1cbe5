"""A plan as it is printed: a table of stages, then what it all comes to."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from stackwise.adapters import SUFFIX
from stackwise.memory.disk import ENDLESS
from stackwise.planner.bars import between, shipped
from stackwise.planner.doctor.record import SMALL
from stackwise.planner.units import DAY, days_text, gb, gib
from stackwise.report import count_text, program, table
from stackwise.stage import left_out, not_run

if TYPE_CHECKING:
    from stackwise.config import Experiment
    from stackwise.planner.doctor.record import Bar
    from stackwise.planner.fit import Fit
    from stackwise.planner.hardware import Hardware
    from stackwise.planner.plan import Plan
    from stackwise.probing import Probes

ENDS = {"embedding", "head"}
FEW = 12  # stages of which each is shown
KINDS = ("weights", "gradients", "optimizer", "activations")
HEAD = ("stage", "trains", "tokens", "peak GiB", "weights", "grads", "optim", "acts", "rest", "at")
TIMES = ("step s", "hours", "FLOPs")


def plan_text(found: Plan, *, every: bool = False) -> str:
    """The whole plan.

    Args:
        found: The plan.
        every: All stages, not only those that tell the others.
    """
    machine = found.hardware
    lines = [
        str(found.asked),
        f"on {machine.name}: {gib(machine.memory_bytes)}, {machine.said}",
        "",
        stages_table(found, every),
        "",
        *summary(found),
        "",
        *verdict(found),
    ]
    return "\n".join(lines)


def stages_table(found: Plan, every: bool) -> str:
    """One line per stage; of many, the first, the last, the largest and some in between."""
    rows, shown = list(found.rows), range(len(found.rows))
    if not every and len(rows) > FEW:
        step = len(rows) / (FEW - 2)
        some = {int(i * step) for i in range(FEW - 2)}
        chosen = sorted({*some, len(rows) - 1, int(found.needs.worst["stage"])})
    else:
        chosen = list(shown)
    text = table(
        [*HEAD, *TIMES], [stage_row(rows[n], n == found.needs.worst["stage"]) for n in chosen]
    )
    left = len(rows) - len(chosen)
    return text + (f"\n({left} more stages between them: --all)" if left else "")


def stage_row(row: Mapping[str, Any], worst: bool) -> list[str]:
    """One stage: its peak, and what there is at that moment."""
    found = [row["peak"][kind] for kind in KINDS]
    found.append(row["peak_bytes"] - sum(found))
    return [
        f"{row['stage']}{' *' if worst else ''}",
        parts_text(row["trains"]),
        count_text(row["tokens"]),
        f"{row['peak_bytes'] / 2**30:.2f}",
        *(f"{count / 2**30:.2f}" for count in found),
        row["peak_at"],
        f"{sum(row['step_seconds'].values()):.3g}" if row["seconds"] else "-",
        f"{sum(row['seconds'].values()) / 3600:.3g}" if row["seconds"] else "-",
        f"{row['flops']:.3g}",
    ]


def fits_text(found: Sequence[Fit], exp: Experiment, machine: Hardware) -> str:
    """What fits of an experiment: for each size of stack, the largest micro-batch, as typed."""
    head = f"{exp}\non {machine.name}: {gib(machine.memory_bytes)}, {machine.said}\n"
    if not found:
        return head + (
            "\nnothing fits: no size of stack with any micro-batch; without --fit the figures are "
            "shown, and what to change"
        )
    rows = [
        [
            " ".join(f"{key}={value}" for key, value in each.changes.items()),
            gib(each.needs.peak_bytes),
            gb(each.needs.disk_bytes),
        ]
        for each in found
    ]
    return f"{head}\n{table(['what fits, largest stacks first', 'memory', 'disk'], rows)}"


def parts_text(parts: Collection[str]) -> str:
    """Names of parts, stacks that follow each other as one range: `embedding s0-s7 head`.

    Adapters that train stand last: `s8 head +s0-s7` are those of s0 to s7.
    """
    beside = {part.removesuffix(SUFFIX) for part in parts if part.endswith(SUFFIX)}
    whole = {part for part in parts if not part.endswith(SUFFIX)}
    carried = [f"+{span}" for span in spans_text(beside)]
    first = ["embedding"] if "embedding" in whole else []
    last = ["head"] if "head" in whole else []
    return " ".join([*first, *spans_text(whole - ENDS), *last, *carried])


def spans_text(stacks: Collection[str]) -> list[str]:
    """Stacks in order, those that follow each other as one: `s0`, `s2-s7`."""
    numbers = sorted(int(stack[1:]) for stack in stacks)
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return [f"s{a}" if a == b else f"s{a}-s{b}" for a, b in spans]


def summary(found: Plan) -> Iterator[str]:
    """What it all comes to, a line each."""
    yield from ("  ".join((name.ljust(10), said)) for name, said in totals(found))


def totals(found: Plan) -> Iterator[tuple[str, str]]:
    """Names and figures of what a plan comes to."""
    machine, bars, need = found.hardware, found.bars, found.needs
    around = bracket(need.peak_bytes, bars.of_peak(need.peak_bytes), gib)
    yield (
        "card" if machine.kind == "cuda" else "memory",
        f"{gib(need.peak_bytes)}{around} of {gib(machine.memory_bytes)}, in stage "
        f"{need.worst['stage']} at its {need.worst['peak_at']}",
    )
    if machine.kind == "cuda":
        yield "host", f"{gb(need.host_bytes)} of {gb(machine.host_bytes)}"
    free = "" if machine.disk_bytes is None else f" of {gb(machine.disk_bytes)} free"
    parts = f"checkpoints {gb(need.checkpoint_bytes)}, cached outputs {gb(need.cache_bytes)}"
    if found.epoch_samples != ENDLESS:
        tokens = found.epoch_samples * found.experiment.data.seq_len
        parts += f" of a text of {count_text(tokens)} tokens"
    yield "disk", f"{gb(need.disk_bytes)}{free}: {parts}"
    if math.isnan(found.days):
        yield "time", f"not known: {program()} calibrate measures how fast this machine is"
    else:
        other = other_threads(found)
        around = bracket(found.days, None if other else bars.time, days_text)
        a_day = f"{count_text(found.tokens_per_day)} tokens a day"
        yield "time", f"{days_text(found.days)}{around}, {a_day}"
        if other:
            yield "threads", other
    if (given := found.asked.budget.seconds) is not None:
        yield (
            "budget",
            f"{days_text(given / DAY)} of work, looks and saving included; as it trains, the "
            "lengths of its stages follow the clock",
        )
    each = found.flops / max(found.tokens, 1)
    yield (
        "compute",
        f"{found.flops:.3g} FLOPs, {count_text(found.tokens)} tokens, {each:.3g} FLOPs a token",
    )
    if left := left_out(found.experiment.rack, found.needs.made):
        yield "left out", not_run(left)
    if found.probes != found.asked_probes:
        yield "probes", probes_text(found.probes, found.asked_probes)
    if found.experiment.curriculum.choice != "end_to_end":
        yield "end to end", price(found.end_to_end, found.flops)
    card = "; none was measured on a card" if machine.kind == "cuda" and shipped() == bars else ""
    small = bars.of_peak(need.peak_bytes) != bars.peak
    unknown = f"; how far off is not known under {gib(SMALL)}" if small else ""
    yield "accuracy", f"plans were off by {bars}{card}{unknown}"


def probes_text(done: Probes, asked: Probes) -> str:
    """What looks and drift take beside training, and what of them is left out."""
    said = f"{done.flops:.3g} FLOPs, {100 * done.frac:.2g} % of training"
    cut = [
        f"{key} {getattr(done, key)} and not {getattr(asked, key)}"
        for key in ("points", "depths", "drift")
        if getattr(done, key) != getattr(asked, key)
    ]
    over = "" if done.fits else "; it is over that still, since each stage ends in a look"
    return (
        f"{said}; asked for were {100 * asked.frac:.2g} %, over the bound of "
        f"{100 * done.bound:.2g} % (eval.probe_frac): {', '.join(cut)}{over}"
    )


def other_threads(found: Plan) -> str:
    """That a machine was measured with other threads than a run takes, and the way out."""
    asked = found.placement.threads or torch.get_num_threads()
    measured = found.hardware.threads
    if found.hardware.kind != "cpu" or asked == measured:
        return ""
    return (
        f"the time is that of {measured}, with which this machine was measured, and the run takes "
        f"{asked}; measure again: {program()} calibrate --threads {asked}"
    )


def bracket(planned: float, bar: Bar | None, text: Callable[[float], str]) -> str:
    """What may be measured instead; nothing where that is not known."""
    if bar is None:
        return ""
    low, high = between(planned, bar)
    return f" ({text(low)} to {text(high)})"


def price(whole: Mapping[str, Any], flops: float) -> str:
    """What end-to-end training of the same rack takes, and what it makes of the same FLOPs."""
    each = whole["flops_per_token"]["total"]
    return (
        f"the same rack takes {gib(whole['peak_bytes'])} and {each:.3g} FLOPs a token, each of "
        f"which trains every block; these FLOPs are {count_text(flops / each)} of them"
    )


def verdict(found: Plan) -> Iterator[str]:
    """Whether it fits; if not, why, and what to change."""
    if found.fits:
        yield "fits"
        return
    yield "does not fit"
    for problem in found.problems:
        yield f"  {problem}"
    yield from (f"  change: {advice}" for advice in found.advice)
    if not found.advice:
        yield "  no settings that are known here make it fit: take a smaller rack"
