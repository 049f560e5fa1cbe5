"""The bytes that the plan predicts for a stage are those that are measured, each kind and the peak.

Beyond the plan a process holds what a step in slices takes (`test_a_step_takes_a_slice_of_memory`
bounds it), and three megabytes of its own.
"""

from __future__ import annotations

import pytest

from stackwise.training.optim import SLICE

RUN = """
from peak import *
facts, folder = told()
place = sw.Placement(device="cpu", threads=1, runs_dir=str(folder), **facts["placement"])
exp = experiment(3, **facts["science"])
warm(exp, place)
peak = Peak()
run = sw.train(exp, place)
print(json.dumps([run.plan(), list(run.events("memory"))]))
"""
BF16 = {"weights": "bfloat16", "compute": "bfloat16"}
IN_BACKWARD = {"grads": "in_backward", "clip": None}
CYCLE = {"curriculum": {"name": "block_coordinate", "cycles": 1}}
CASES = {
    "float32": ({}, {}),
    "bfloat16 with a master": ({"precision": BF16}, {}),
    "bfloat16 by chance": ({"precision": {**BF16, "rounding": "stochastic"}}, {}),
    "adamw8bit": ({"precision": BF16, "optim": {"name": "adamw8bit"}}, {"trunk": "streamed"}),
    "lion8bit": ({"optim": {"name": "lion8bit", "ema": None}}, {"trunk": "streamed"}),
    "adafactor": ({"precision": BF16, "optim": {"name": "adafactor"}}, {}),
    "muon": ({"optim": {"name": "muon"}}, {}),
    "in backward": ({"optim": {**IN_BACKWARD, "ema": None}}, {"trunk": "streamed"}),
    "leanest": (
        {
            "precision": {**BF16, "rounding": "stochastic", "frozen": "nf4"},
            "optim": {**IN_BACKWARD, "name": "lion8bit", "ema": None},
        },
        {"trunk": "streamed", "checkpointing": True},
    ),
    "nf4 resident": ({"precision": {"frozen": "nf4"}}, {}),
    "int8 lent": ({"precision": {**BF16, "frozen": "int8"}}, {"trunk": "streamed"}),
    "fp8 in host memory": (
        {"precision": {"frozen": "fp8"}},
        {"trunk": "streamed", "stream_from": "host"},
    ),
    "cached": ({"precision": {"frozen": "nf4"}}, {"trunk": "cached"}),
    "cycling": ({**CYCLE, "precision": {"frozen": "nf4", "master": "fp32"}}, {"trunk": "streamed"}),
    "checkpointing": ({**CYCLE, "optim": {"batch": 8}}, {"checkpointing": True}),
}
EXACT = ["gradients", "optimizer", "average"]
OWN_BYTES = 3 << 20
STEP_BYTES = 48 * SLICE  # 9 MB have been measured


@pytest.mark.parametrize("case", CASES)
def test_of_every_stage(alone, case) -> None:
    science, placement = CASES[case]
    plan, measured = alone(RUN, science=science, placement=placement)
    found = [(row["bytes"], event) for row, event in zip(plan, measured, strict=True)]
    sliced = bool({"name", "grads"} & science.get("optim", {}).keys()) or "weights" in str(science)
    beyond = OWN_BYTES + sliced * STEP_BYTES
    for predicted, event in found:
        assert {key: event[key] for key in EXACT} == {key: predicted[key] for key in EXACT}
        # In a slot a tensor lies at its file's place within a cache line.
        assert predicted["weights"] <= event["weights"] <= predicted["weights"] + 3 * 4 * 20 * 64
        assert 0.95 * predicted["total"] < event["peak"] < 1.02 * predicted["total"] + beyond
