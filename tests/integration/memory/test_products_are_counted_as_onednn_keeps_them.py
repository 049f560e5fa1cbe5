"""How many products the plan counts for oneDNN's cache, against what oneDNN says it has made."""

from __future__ import annotations

import json

import pytest

import stackwise as sw
from stackwise.memory.products import bfloat16_products

from ...warm import forked

RUN = """
import json, sys
import stackwise as sw
told = json.loads(sys.argv[1])
print("the run", flush=True)
def on_step(work, numbers):
    if work.at.step == work.steps_of(work.at.stage):
        print("a stage's last step", flush=True)
sw.train(
    sw.Experiment(**told["experiment"]),
    sw.Placement(device="cpu", runs_dir=sys.argv[2], **told["placement"]),
    on_step=on_step,
)
"""
RACK = {"stacks": 2, "blocks_per_stack": 1, "d_model": 64, "heads": 2}
CASES: dict[str, dict] = {
    "a head like a layer": {"rack": {"d_model": 256}},
    "a head of its own": {"rack": {"vocab": 300}},
    "two sizes of micro-batch": {"placement": {"micro_batch": 3}},
    "all hidden are counted": {"objective": "mlm"},
    "looks within stages": {"eval": {"points": 4, "windows": 3, "final": 1}},
}


@pytest.mark.parametrize("name", CASES)
def test_as_many_are_made_as_are_counted(name, tmp_path, monkeypatch) -> None:
    case = dict(CASES[name])
    placement = case.pop("placement", {})
    kinds = {
        "objective": "clm",
        "curriculum": "left_to_right",
        "data": {"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 32},
        "optim": {"batch": 5},
        "precision": {"compute": "bfloat16"},
        "eval": {"points": 1, "windows": 1, "final": 1},
        "budget": {"tokens": 8 * 5 * 32},
        **case,
        "rack": {**RACK, **case.get("rack", {})},
    }
    exp = sw.Experiment(**kinds)
    told = json.dumps({"experiment": kinds, "placement": placement})
    monkeypatch.setenv("ONEDNN_VERBOSE", "2")
    said = forked(RUN, told, str(tmp_path)).split("the run")[1]
    *stages, _ = said.split("a stage's last step")
    made, seen = [], set()
    for part in stages:
        seen |= {key_of(line) for line in part.splitlines() if ":cache_miss" in line}
        made.append(len(seen))
    if not made[-1]:
        pytest.skip("oneDNN makes no bfloat16 products on this processor")
    place = sw.Placement(device="cpu", **placement)
    assert made == [bfloat16_products(exp, place, stage) for stage in sw.stages(exp)]


def key_of(line: str) -> str:
    """A product without the time that it took to make."""
    return line.split("cache_miss")[1].rpartition(",")[0]
