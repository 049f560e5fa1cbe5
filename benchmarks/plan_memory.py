"""How near the planned peak of memory is to the measured one, over a declared grid of runs.

    python benchmarks/plan_memory.py [--random N --seed S] [--only KIND] [--json FILE]

Each cell trains a run of two or three stages in a process of its own; what is measured is the run's
own meter (`run.events("memory")`), what is predicted stands in its plan.json. The last column is
how much more was resident in the steps between, in which malloc works as it is and keeps holes.
`--random` draws cells that are not in the grid.

It exits with 1 unless every stage's predicted / measured is within LEAST and MOST. Where less than
SMALL bytes are used, libraries and the allocator's grain are a large part of it: there the
difference is bounded in bytes instead, by SLACK, and they are left out of the bar.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bars import publish

import stackwise as sw
from stackwise.planner.doctor.record import SMALL
from stackwise.report import table

LEAST, MOST = 0.95, 1.10
SLACK = 8 << 20
MIB = 1 << 20
STEPS = 5  # of each stage: the first two and the last are measured
SECONDS = 300  # of a cell, at most
HEADINGS = ["cell", "stage", "predicted MiB", "measured", "ratio", "at", "", "resident"]

Cell = dict[str, Any]  # name, kind, experiment, placement

CHILD = """
import json, sys
import stackwise as sw
cell = json.loads(sys.argv[1])
exp = sw.Experiment(**cell["experiment"])
place = sw.Placement(device="cpu", runs_dir=sys.argv[2], **cell["placement"])
run = sw.train(exp, place)
print(json.dumps([run.plan(), list(run.events("memory"))]))
"""
BF16 = {"weights": "bfloat16", "compute": "bfloat16"}
AUTOCAST = {"compute": "bfloat16"}
IN_BACKWARD = {"grads": "in_backward", "clip": None}


def cell(
    name: str,
    kind: str,
    *,
    width: int = 512,
    length: int = 128,
    batch: int = 8,
    stacks: int = 3,
    blocks: int = 1,
    rack: dict[str, Any] | None = None,
    optim: dict[str, Any] | None = None,
    placement: dict[str, Any] | None = None,
    curriculum: Any = "left_to_right",
    **sections: Any,
) -> Cell:
    """One cell: an experiment of whole steps, `STEPS` in each stage."""
    kinds = {
        "rack": {
            "stacks": stacks,
            "blocks_per_stack": blocks,
            "d_model": width,
            "heads": max(1, width // 64),
            **(rack or {}),
        },
        "curriculum": curriculum,
        "data": {"corpus": {"kind": "markov", "size_bytes": 200_000}, "seq_len": length},
        "optim": {"batch": batch, **(optim or {})},
        "objective": "clm",
        "eval": {"points": 1, "windows": 1, "final": 1},
        **sections,
    }
    exp = sw.Experiment(**kinds, budget={"tokens": 10**9})
    made = len(sw.stages(exp))
    kinds["budget"] = {"tokens": STEPS * batch * length * made}
    return {"name": name, "kind": kind, "experiment": kinds, "placement": placement or {}}


def grid() -> Iterator[Cell]:
    """The declared cells: width x sequence x batch, then one thing after the other at one width."""
    split = {"name": "left_to_right", "split": "tokens"}
    for width, length, batch in ((256, 128, 16), (512, 512, 4), (1024, 128, 4), (2048, 64, 2)):
        name = f"{width} x {length} x {batch}"
        yield cell(name, "float32", width=width, length=length, batch=batch, curriculum=split)
        for kind, precision in (("bfloat16", BF16), ("autocast", AUTOCAST)):
            yield cell(
                f"{name} {kind}",
                kind,
                width=width,
                length=length,
                batch=batch,
                curriculum=split,
                precision=precision,
            )
    wide = {"width": 768, "length": 256, "batch": 8, "curriculum": split}
    for checkpointing in (False, True):
        for curriculum in ("left_to_right", "right_to_left", "block_coordinate"):
            options: dict[str, Any] = {"name": curriculum, "split": "tokens"}
            if curriculum == "block_coordinate":
                options["cycles"] = 1
            yield cell(
                f"{curriculum}{' checkpointed' * checkpointing}",
                "checkpointing" if checkpointing else "curriculum",
                **{**wide, "curriculum": options},
                blocks=2,
                placement={"checkpointing": checkpointing},
            )
    yield cell("end to end", "curriculum", **{**wide, "curriculum": "end_to_end"}, blocks=2)
    yield cell("grow", "curriculum", **{**wide, "curriculum": {"name": "grow"}}, stacks=4)
    for form in ("fp16", "bf16", "fp8", "int8", "nf4", "fp4"):
        for trunk in ("recompute", "streamed", "cached"):
            yield cell(
                f"{form} {trunk}",
                "storage",
                **wide,
                precision={**AUTOCAST, "frozen": form} if form != "bf16" else {"frozen": form},
                placement={"trunk": trunk},
            )
    yield cell("float32 streamed", "storage", **wide, placement={"trunk": "streamed"})
    yield cell(
        "nf4 host",
        "storage",
        **wide,
        precision={"frozen": "nf4"},
        placement={"trunk": "streamed", "stream_from": "host"},
    )
    yield cell(
        "nf4 suffix streamed",
        "storage",
        **{**wide, "curriculum": {"name": "right_to_left", "split": "tokens"}},
        precision={"frozen": "nf4"},
        placement={"trunk": "streamed"},
    )
    for name in ("adamw", "adamw8bit", "lion8bit"):
        for precision in ({}, AUTOCAST, BF16, {**BF16, "rounding": "stochastic"}):
            for grads in ({}, IN_BACKWARD):
                yield cell(
                    f"{name} {'/'.join(precision.values())} {'in backward' if grads else ''}",
                    "optimizer",
                    **{**wide, "batch": 4},
                    stacks=2,
                    precision=precision,
                    optim={"name": name, "ema": None if grads else 0.99, **grads},
                )
    for micro in (1, 2, 4):
        yield cell(f"micro-batch {micro}", "micro", **wide, placement={"micro_batch": micro})
    for attention in ("gqa", "mla", {"kind": "kernel", "features": 64}):
        rack = {"kv_heads": 3} if attention == "gqa" else {}
        for compute in ("float32", "bfloat16"):
            yield cell(
                f"{attention if isinstance(attention, str) else 'kernel'} {compute}",
                "attention",
                **wide,
                attention=attention,
                rack=rack,
                precision={"compute": compute},
            )
    for name, options in {
        "bert": {"norm": "layernorm", "norm_place": "post", "ffn": "gelu", "bias": True},
        "qk-norm": {"qk_norm": True},
        "window": {"window": 32},
        "tied": {"tied": True},
        "large head": {"vocab": 32000},
    }.items():
        yield cell(name, "rack", **wide, rack=options)
    yield cell("large head bfloat16", "rack", **wide, rack={"vocab": 32000}, precision=BF16)
    yield cell("diffusion", "objective", **wide, objective="diffusion")
    yield cell("mlm", "objective", **wide, objective="mlm")


def drawn(count: int, seed: int) -> Iterator[Cell]:
    """Cells that are not in the grid, by a seed."""
    draw = random.Random(seed)
    for number in range(count):
        heads = draw.choice([2, 3, 4, 5, 6, 7, 8, 12, 16])
        width = heads * draw.choice([32, 48, 64, 80, 96, 128])
        while not 256 <= width <= 2048:
            heads, width = (heads * 2, width * 2) if width < 256 else (heads, width // 2)
        attention = draw.choice(["mha", "mha", "gqa", "gqa", "mla", "kernel"])
        rack: dict[str, Any] = {"heads": heads, "tied": draw.random() < 0.2}
        if attention == "gqa":
            rack["kv_heads"] = draw.choice([n for n in range(1, heads + 1) if heads % n == 0])
        if draw.random() < 0.6:
            rack["d_ff"] = draw.randrange(width, 4 * width, 16)
        rack["ffn"] = draw.choice(["swiglu", "swiglu", "gelu", "gelu_tanh"])
        rack["norm"] = draw.choice(["rmsnorm", "rmsnorm", "layernorm"])
        rack["bias"] = draw.random() < 0.2
        rack["norm_place"] = draw.choice(["pre", "pre", "pre", "post"])
        if draw.random() < 0.3:
            rack["vocab"] = draw.randrange(300, 33000)
        precision: dict[str, Any] = dict(draw.choice([{}, AUTOCAST, BF16]))
        if precision.get("weights") and draw.random() < 0.4:
            precision["rounding"] = "stochastic"
        curriculum = draw.choice(["left_to_right", "right_to_left", "grow", "block_coordinate"])
        form = draw.choice([None, None, "fp16", "bf16", "fp8", "int8", "nf4", "fp4"])
        if form is not None and curriculum != "grow":
            precision["frozen"] = form
            if curriculum == "block_coordinate" and (form != "bf16" or "weights" not in precision):
                precision["master"] = draw.choice(["bf16", "fp32"])
        optim: dict[str, Any] = {"name": draw.choice(["adamw", "adamw", "adamw8bit", "lion8bit"])}
        optim["ema"] = draw.choice([None, 0.99])
        backward = draw.random() < 0.25
        if backward:
            optim |= IN_BACKWARD
        length = draw.choice([48, 64, 96, 100, 160, 192, 256, 320, 512, 777, 1024])
        batch = max(1, draw.choice([512, 1024, 2048, 3000]) // length)
        placement: dict[str, Any] = {"checkpointing": draw.random() < 0.3}
        if not backward and batch > 1 and draw.random() < 0.4:
            placement["micro_batch"] = draw.randrange(1, batch + 1)
        placement["trunk"] = draw.choice(["recompute", "recompute", "streamed", "cached"])
        if placement["trunk"] != "recompute" and draw.random() < 0.3:
            placement["stream_from"] = "host"
        options: dict[str, Any] = {"name": curriculum, "split": "tokens"}
        if curriculum == "block_coordinate":
            options["cycles"] = 1
        if placement["trunk"] == "cached":
            if curriculum == "block_coordinate":
                options["embedding"] = "with_first"
            if curriculum == "right_to_left":
                placement["trunk"] = "streamed"
        yield cell(
            f"random {seed}.{number}",
            "random",
            width=width,
            length=length,
            batch=batch,
            stacks=draw.choice([2, 3]),
            blocks=draw.choice([1, 1, 2, 3]),
            rack=rack,
            optim=optim,
            placement=placement,
            curriculum=options,
            attention=attention,
            precision=precision,
            objective=draw.choice(["clm", "clm", "diffusion"]),
        )


def measured(found: Cell) -> list[tuple[int, int, str, float]]:
    """Of each stage predicted and measured bytes, what moment is predicted, and how many times as
    much was resident.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps(found), folder],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    if done.returncode:
        raise RuntimeError(f"{found}: {done.stderr[-2000:]}")
    plan, events = json.loads(done.stdout.splitlines()[-1])
    return [
        (row["peak_bytes"], event["peak"], row["peak_at"], event["resident"] / event["peak"])
        for row, event in zip(plan, events, strict=True)
    ]


def is_right(predicted: int, found: int) -> bool:
    """Whether a stage's prediction is within the bounds."""
    if found < SMALL:
        return abs(predicted - found) <= SLACK
    return LEAST <= predicted / found <= MOST


def main() -> int:
    """Print the table; say whether every cell holds."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--random", type=int, default=0, metavar="N")
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--only", help="cells of this kind, or whose name has this in it")
    asked.add_argument("--json", type=Path)
    asked.add_argument(
        "--publish", action="store_true", help="keep the error bar that plans are shown with"
    )
    given = asked.parse_args()
    if given.publish and (given.random or given.only):
        asked.error("--publish: is for the whole grid")
    cells = list(drawn(given.random, given.seed) if given.random else grid())
    if given.only:
        cells = [c for c in cells if given.only == c["kind"] or given.only in c["name"]]
    rows, worst, wrong, ratios = [], {}, 0, []
    for each in cells:
        for stage, (predicted, found, moment, resident) in enumerate(measured(each)):
            ratio, right = predicted / found, is_right(predicted, found)
            wrong += not right
            ratios += [ratio] if found >= SMALL else []
            mib = [f"{predicted / MIB:.1f}", f"{found / MIB:.1f}"]
            mark = "" if right else "*"
            rows.append(
                [each["name"], str(stage), *mib, f"{ratio:.3f}", moment, mark, f"{resident:.2f}"]
            )
            print(*rows[-1], sep=" | ", flush=True)
            low, high = worst.setdefault(each["kind"], [ratio, ratio])
            worst[each["kind"]] = [min(low, ratio), max(high, ratio)]
    print(table(HEADINGS, rows), "\n")
    print(
        table(
            ["kind", "lowest", "highest"],
            [[k, f"{a:.3f}", f"{b:.3f}"] for k, (a, b) in worst.items()],
        )
    )
    if given.json:
        given.json.write_text(json.dumps({"worst": worst, "rows": rows}, indent=1))
    if given.publish and not wrong:
        publish("peak", ratios)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
