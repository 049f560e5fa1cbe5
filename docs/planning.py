"""Writes docs/planning.md: `python docs/planning.py`. All its figures come from the code.

The text is in `planning.txt`; what stands in braces there is filled in here.
`tests/unit/planner/test_the_planning_page_is_current.py` makes the page again and compares.
"""

from __future__ import annotations

from pathlib import Path

import stackwise as sw
from stackwise.memory.stored import part_tensors, stack_bytes
from stackwise.planner.bars import shipped
from stackwise.planner.hardware import HARDWARE
from stackwise.planner.units import days_text, gb, gib, percent
from stackwise.report import count_text

TEXT = Path(__file__).with_suffix(".txt")
CARD = "h200"
LARGE = {"llama-2-70b": ("recompute", "streamed"), "llama-3-70b": ("recompute", "streamed")}
LARGE |= {"405b": ("streamed",)}
SHAPE = "llama-3-70b"


def page() -> str:
    """The whole text."""
    plans = {
        (name, trunk): sw.plan(name, sw.Placement.preset(name).replace(trunk=trunk), hardware=CARD)
        for name, trunks in LARGE.items()
        for trunk in trunks
    }
    one = plans[SHAPE, "recompute"]
    exp = one.experiment
    block = sum(count for count, _ in part_tensors(exp, "s0"))
    filled = {
        "large": large(plans),
        "shape": SHAPE,
        "block": count_text(block),
        "trunk_blocks": str(exp.rack.stacks - 1),
        "vocab": f"{sw.vocab_size(exp):,}",
        "width": f"{exp.rack.d_model:,}",
        "hand": by_hand(one),
        "cards": cards(),
        "bars": bars(),
    }
    text = TEXT.read_text("utf-8")
    for key, value in filled.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def table(head: list[str], rows: list[list[str]]) -> str:
    """As Markdown."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def large(plans: dict[tuple[str, str], sw.Plan]) -> str:
    """One row per preset and trunk source, on one card."""
    rows = []
    for (name, trunk), plan in plans.items():
        whole = plan.end_to_end
        rows.append(
            [
                f"`{name}`, {trunk}",
                gib(plan.peak_bytes),
                gb(plan.host_bytes),
                gb(plan.disk_bytes),
                days_text(plan.days),
                count_text(plan.tokens),
                gib(whole["peak_bytes"]),
                count_text(plan.flops / whole["flops_per_token"]["total"]),
            ]
        )
    head = [f"on an {CARD}", "card", "host", "disk", "time", "tokens"]
    return table([*head, "end to end: card", "end to end: tokens"], rows)


def by_hand(plan: sw.Plan) -> str:
    """What makes up the highest moment of the last stage."""
    exp, row = plan.experiment, plan.rows[-1]
    trunk = (exp.rack.stacks - 1) * stack_bytes(exp, "nf4")
    peak = row["peak"]
    ends = sum(row["bytes_by_part"][part]["weights"] for part in ("embedding", "head"))
    rows = [
        ["frozen blocks", gib(trunk)],
        ["the block that trains", gib(row["bytes_by_part"][f"s{row['stage']}"]["weights"])],
        ["embedding and head", gib(ends)],
        *([key, gib(value)] for key, value in peak.items() if key != "weights" and value),
        [f"**together**, at the {row['peak_at']}", f"**{gib(row['peak_bytes'])}**"],
    ]
    return table(["", "bytes"], rows)


def cards() -> str:
    """The table of machines."""
    rows = []
    for name, each in HARDWARE.items():
        rates = {dtype: curve[-1][1] / 1e12 for dtype, curve in each.matmul.items()}
        rows.append(
            [
                f"`{name}`",
                gib(each.memory_bytes),
                f"{rates['bfloat16']:.0f}",
                f"{rates['float32']:.0f}",
                f"{each.memory_rate / 1e12:.2f}",
                f"{(each.link_rate or 0) / 1e9:.0f}",
                f"{each.origin}: {each.said}",
            ]
        )
    head = ["card", "memory", "bfloat16 TFLOP/s", "float32", "memory TB/s", "link GB/s", "from"]
    return table(head, rows)


def bars() -> str:
    """What plans were off by."""
    found = shipped()
    rows = [
        [name, percent(bar.over_frac), percent(bar.under_frac), str(bar.figures)]
        for name, bar in (("memory peak", found.peak), ("seconds of a step", found.time))
        if bar is not None
    ]
    if not rows:
        return "There are no error bars yet."
    head = [f"on {found.where}", "planned too much, at worst", "too little", "plans"]
    return table(head, rows)


if __name__ == "__main__":
    TEXT.with_suffix(".md").write_text(page(), "utf-8")
