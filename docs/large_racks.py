"""Writes docs/large_racks.md: `python docs/large_racks.py`. All its figures come from the code.

The text is in `large_racks.txt`; what stands in braces there is filled in here, all of it by
`stackwise.memory`. `tests/unit/test_the_large_racks_page_is_current.py` makes the page again and
compares; `tests/integration/test_the_examples_of_large_racks_run.py` carries both examples out at
a small width.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

import stackwise as sw
from stackwise.memory.bytes import plan_rows, stage_bytes
from stackwise.memory.disk import checkpoint_bytes, layout_of
from stackwise.memory.stored import (
    block_linears,
    lent_bytes,
    part_tensors,
    stack_bytes,
    state_of,
    trained_bytes,
)
from stackwise.model.formats import FORMATS
from stackwise.report import bytes_text, count_text
from stackwise.stage import trunk_of
from stackwise.training.optim_costs import gradient_bytes

TEXT = Path(__file__).with_suffix(".txt")
SHAPE = "llama-3-70b"
CATEGORIES = ("weights", "gradients", "optimizer", "activations", "total")  # no average is kept
LOW = {"compute": "bfloat16", "weights": "bfloat16"}
LEAN = {**LOW, "rounding": "stochastic"}
BACKWARD = {"grads": "in_backward", "clip": None}
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "`adamw`, float32": ({}, {}),
    "`adamw`, bfloat16, `master`": ({}, LOW),
    "`adamw8bit`, bfloat16, `master`": ({"name": "adamw8bit"}, LOW),
    "`adamw8bit`, bfloat16, `master`, in backward": ({"name": "adamw8bit", **BACKWARD}, LOW),
    "`adamw8bit`, bfloat16, `stochastic`, in backward": ({"name": "adamw8bit", **BACKWARD}, LEAN),
    "`lion8bit`, bfloat16, `stochastic`, in backward": ({"name": "lion8bit", **BACKWARD}, LEAN),
}


def page() -> str:
    """The whole text."""
    exp = plain()
    text = TEXT.read_text("utf-8")
    eight, seventy = (settings(example) for example in examples(text))
    filled = {
        "block": count_text(numbers_of(exp, "s0")),
        "blocks": str(exp.rack.stacks),
        "head": count_text(numbers_of(exp, "head")),
        "training": training(exp),
        "frozen": frozen(exp),
        "sources": sources(*seventy),
        "per_token": f"{layout_of(seventy[0], 1, 1).row_bytes // seventy[0].data.seq_len:,}",
        "eight": plan(*eight, "recompute", "streamed"),
        "seventy": plan(*seventy, "streamed", "recompute"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match[1]], text)


def plain() -> sw.Experiment:
    """The rack whose sizes the page shows, trained in float32 and frozen as it trained."""
    preset = sw.Experiment.preset(SHAPE)
    return preset.replace(optim="adamw", precision=sw.Experiment().precision)


def examples(text: str) -> list[str]:
    """The two experiments of the page, as YAML."""
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def settings(text: str) -> tuple[sw.Experiment, sw.Placement]:
    """The experiment and placement of a file."""
    values = yaml.safe_load(text)
    placement = sw.Placement(**values.pop("placement"))
    return sw.Experiment(**values), placement


def numbers_of(exp: sw.Experiment, part: str) -> int:
    """Numbers of a part's tensors."""
    return sum(count for count, _ in part_tensors(exp, part))


def training(exp: sw.Experiment) -> str:
    """One row per setting: what one block takes while it trains, without its average."""
    rows = []
    for name, (optim, precision) in SETTINGS.items():
        made = exp.replace(optim={"ema": None, **optim}, precision=precision)
        tensors = part_tensors(made, "s0")
        weights = trained_bytes(made, tensors)
        state = state_of(made, "s0")
        linears = [rows * columns for rows, columns in block_linears(made.rack, made.attention)]
        vectors = [tensor for tensor in tensors if tensor[1] < 2]
        gradients = gradient_bytes(made.optim, made.precision, linears, vectors)
        whole = weights + state + gradients
        each = whole / sum(count for count, _ in tensors)
        rows.append([name, *map(bytes_text, (weights, gradients, state, whole)), f"{each:.1f}"])
    head = ["setting", "weights", "gradients", "state", "together", "bytes per parameter"]
    return table(head, rows)


def frozen(exp: sw.Experiment) -> str:
    """One row per format: a block, and all of them."""
    rows = []
    for name in FORMATS:
        each = stack_bytes(exp, None if name == "fp32" else name)
        rows.append([f"`{name}`", bytes_text(each), bytes_text(each * exp.rack.stacks)])
    return table(["frozen to", "one block", f"{exp.rack.stacks} blocks"], rows)


def sources(exp: sw.Experiment, placement: sw.Placement) -> str:
    """One row per trunk source, in the last stage of an experiment."""
    made = sw.stages(exp)
    last, held = made[-1], {*made[-1].path}
    form, trunk = exp.precision.frozen, trunk_of(made[-1])
    lent = len(trunk) * exp.rack.blocks_per_stack * lent_bytes(exp, form)
    width = layout_of(exp, 1, 1).row_bytes * exp.optim.batch
    rows = []
    for name, more, read in (
        ("recompute", 0, 0),
        ("streamed, from disk", 0, lent),
        ("streamed, from host memory", lent, lent),
        ("cached", 0, width),
    ):
        where = placement.replace(trunk=name.partition(",")[0])
        parts = stage_bytes(exp, where, last, held)
        kept = sum(part.weights for key, part in parts.items() if key in trunk or key == "slots")
        rows.append([name, bytes_text(kept), bytes_text(more), bytes_text(read)])
    return table(["source", "trunk on the device", "in host memory", "read per step"], rows)


def plan(exp: sw.Experiment, placement: sw.Placement, *trunks: str) -> str:
    """What the largest stage takes by category, one row per trunk source, and the run on disk."""
    made = sw.stages(exp)
    disk = bytes_text(checkpoint_bytes(exp, made))
    found = []
    for trunk in trunks:
        rows = plan_rows(exp, placement.replace(trunk=trunk), made)
        most = max(rows, key=lambda row: row["bytes"]["total"])["bytes"]
        found.append([f"`{trunk}`", *(bytes_text(most[key]) for key in CATEGORIES), disk])
    head = [f"the largest of {len(made)} stages", *CATEGORIES, "checkpoints on disk"]
    return table(head, found)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), "utf-8")
