"""Freezing, saving, loading and exporting hold at most one block more than the stage needs.

What a stage needs is the plan's arithmetic; what an open rack needs, that of its weights. A block
is meant as it trains. Pages that are mapped from files are the kernel's to drop, and are no part.
"""

from __future__ import annotations

import pytest

RUN = """
from peak import *
from stackwise.memory.bytes import training_bytes
from stackwise.memory.stored import lent_bytes, part_tensors, rest_bytes, stack_bytes, trained_bytes
from stackwise.training import run as loop
from stackwise.training.score import evaluate_run
from stackwise.trunk.stream import SLOTS

facts, folder = told()
place = sw.Placement(
    device="cpu", threads=1, runs_dir=str(folder), trunk="streamed", checkpoint_seconds=1e-6
)
exp = experiment(3, rack=facts["rack"], **facts["science"])
exp = exp.replace(budget={"tokens": 2 * exp.budget.tokens})
warm(exp, place)
peak, grown = Peak(), {}

def watched(name):
    # How far a function of the loop raises the process above what it held when it was called.
    inside = getattr(loop, name)
    def call(*given):
        peak.begin()
        out = inside(*given)
        grown.setdefault(name, []).append(peak.bytes())
        return out
    setattr(loop, name, call)
    return inside

def stop_at_third(work, numbers):
    work.stop_requested = work.at.total_steps == 3

run = loop.create_run(exp, place)
most = [peak.of(lambda: loop.execute(run, on_step=stop_at_third))]
assert run.state == "stopped"
most.append(peak.sampled(lambda: loop.execute(run)))
again = loop.create_run(exp, place, rerun=True)
for name in ("save_work", "leave_stage"):
    watched(name)
loop.execute(again)

model = folder / "model"
warmed = sw.import_model(sw.export_model(run, folder / "warm"), folder / "warmed")
sw.export_model(warmed, folder / "warm too")
opened = {
    "rack": peak.sampled(lambda: run.rack()),
    "lent": peak.sampled(lambda: run.rack(lent="disk")),
    "evaluate": peak.sampled(lambda: evaluate_run(run)),
    "export": peak.of(lambda: sw.export_model(run, model)),
}
form = exp.precision.frozen
ends = sum(trained_bytes(exp, part_tensors(exp, part)) for part in ("embedding", "head"))
last = stack_bytes(exp, None)  # what trains in the last stage never freezes
slots = SLOTS * lent_bytes(exp, None)  # as large as the largest block
needs = {
    "rack": ends + 2 * stack_bytes(exp, form) + last,
    "lent": ends + 3 * rest_bytes(exp, form),
    "evaluate": ends + 3 * rest_bytes(exp, form) + slots,
    "export": 0,
}
block = last // exp.rack.blocks_per_stack
full = 4 * sum(n for n, _ in part_tensors(exp, "s0")) // exp.rack.blocks_per_stack
print(json.dumps([[block, full], training_bytes(exp, place), most, grown, opened, needs]))
"""
RACK = {"stacks": 3, "blocks_per_stack": 2, "d_model": 384, "heads": 4}
BF16 = {"weights": "bfloat16", "compute": "bfloat16"}
CYCLE = {"curriculum": {"name": "block_coordinate", "cycles": 1}}
CASES = {
    "bfloat16, master float32": {"precision": {**BF16, "frozen": "nf4", "master": "fp32"}},
    "bfloat16, no masters": {"precision": {**BF16, "frozen": "nf4", "master": "none"}},
    "float32, cycling, master bfloat16": {
        **CYCLE,
        "precision": {"frozen": "nf4", "master": "bf16"},
    },
    "four blocks in a stack": {
        **CYCLE,
        "rack": {"blocks_per_stack": 4},
        "precision": {**BF16, "frozen": "int8", "master": "bf16"},
        "optim": {"name": "lion8bit", "grads": "in_backward", "clip": None, "ema": None},
    },
    "bfloat16 in backward, averaged": {
        **CYCLE,
        "precision": {**BF16, "frozen": "nf4", "master": "bf16"},
        "optim": {"name": "adamw8bit", "grads": "in_backward", "clip": None, "ema": 0.99},
    },
}
OWN_BYTES = 3 << 20


@pytest.mark.parametrize("case", CASES)
def test_whatever_is_moved(alone, case) -> None:
    science = {**CASES[case]}
    rack = {**RACK, **science.pop("rack", {})}
    (block, full), plan, most, grown, opened, needs = alone(RUN, rack=rack, science=science)
    assert all(found < plan + block + OWN_BYTES for found in most)  # trained, stopped and resumed
    # Saved from where it lies; packed and made a master a matrix at a time, by way of float32.
    assert grown["save_work"] and max(grown["save_work"]) < OWN_BYTES
    assert len(grown["leave_stage"]) == 3 and max(grown["leave_stage"]) < full + OWN_BYTES
    assert all(opened[name] < needs[name] + block + OWN_BYTES for name in opened), opened
