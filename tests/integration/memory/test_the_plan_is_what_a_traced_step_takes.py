"""The arithmetic of the peak is what the real step asks for, traced on tensors without memory.

The trace does not have what the arithmetic counts on top: the buffer that gradients updated in
backward are moved through stays between steps, of which the tracker sees one at a time. And where
products are in bfloat16 the tracker keeps autocast's copies of weights to the end of the step.
"""

from __future__ import annotations

import json

import pytest

import stackwise as sw
from stackwise.memory.bytes import plan_rows
from stackwise.memory.trace import trace_stage

from ...warm import forked_json

AUTOCAST, BF16 = {"compute": "bfloat16"}, {"compute": "bfloat16", "weights": "bfloat16"}
TWO = {"blocks_per_stack": 2}  # of which such a copy of one weight is a small part
IN_BACKWARD = {"grads": "in_backward", "clip": None, "ema": None}
LEFT, RIGHT = ({"name": f"{way}", "split": "tokens"} for way in ("left_to_right", "right_to_left"))
FEW = {"corpus": {"kind": "markov", "size_bytes": 100_000}, "seq_len": 24}
TIMED = {"rack": {"time": "sinusoidal"}, "objective": "diffusion"}
STILL = {"frozen_up": True}
BLOCKS = {"objective": {"kind": "block_diffusion", "block": 8}}
HELD = {"consistency": 1.0, "distill": 1.0}
CASES = {
    "float32": ({"curriculum": LEFT}, {}),
    "end to end, autocast": ({"curriculum": "end_to_end", "precision": AUTOCAST}, {}),
    "suffix, autocast": ({"curriculum": RIGHT, "precision": AUTOCAST}, {}),
    "suffix of nf4, bfloat16": ({"curriculum": RIGHT, "precision": {**BF16, "frozen": "nf4"}}, {}),
    "trunk of int8": ({"curriculum": LEFT, "precision": {"frozen": "int8"}}, {}),
    "lent": ({"curriculum": LEFT, "precision": {**BF16, "frozen": "fp8"}}, {"trunk": "streamed"}),
    "cached": ({"curriculum": LEFT}, {"trunk": "cached"}),
    "checkpointed": ({"curriculum": RIGHT}, {"checkpointing": True}),
    "micro-batches": ({"curriculum": LEFT, "precision": BF16, "rack": TWO}, {"micro_batch": 3}),
    "a micro-batch and a small rest": (
        {"curriculum": LEFT, "optim": {"batch": 11}},
        {"micro_batch": 9},
    ),
    "8-bit, no average": ({"curriculum": LEFT, "optim": {"name": "adamw8bit", "ema": None}}, {}),
    "adafactor": ({"curriculum": LEFT, "optim": {"name": "adafactor"}}, {}),
    "muon": ({"curriculum": LEFT, "optim": {"name": "muon"}}, {}),
    "muon, in backward": ({"optim": {**IN_BACKWARD, "name": "muon"}, "curriculum": LEFT}, {}),
    "in backward": ({"optim": IN_BACKWARD, "curriculum": LEFT}, {}),
    "in backward, bfloat16": ({"optim": IN_BACKWARD, "precision": BF16, "rack": TWO}, {}),
    "in backward, large head": (
        {"optim": IN_BACKWARD, "rack": {"vocab": 9000}, "curriculum": LEFT},
        {},
    ),
    "in backward, large head of few rows, autocast": (
        {"optim": IN_BACKWARD, "rack": {"vocab": 9000}, "data": FEW, "precision": AUTOCAST},
        {},
    ),
    "in backward, tied": (
        {
            "optim": IN_BACKWARD,
            "rack": {"vocab": 9000, "tied": True},
            "curriculum": "end_to_end",
            "data": FEW,
        },
        {},
    ),
    "in backward, bfloat16, large tables of few rows": (
        {
            "optim": {**IN_BACKWARD, "batch": 1},
            "rack": {"vocab": 20000, "d_model": 64, "heads": 2, "stacks": 1, "blocks_per_stack": 1},
            "curriculum": "end_to_end",
            "data": {**FEW, "seq_len": 8},
            "precision": BF16,
        },
        {},
    ),
    "adapters on the suffix": ({"adapters": {"on": "suffix", "rank": 32}}, {}),
    "adapters in the feed-forward of int8, in backward": (
        {
            "curriculum": LEFT,
            "adapters": {"on": "trunk", "targets": "ffn"},
            "optim": IN_BACKWARD,
            "precision": {"frozen": "int8"},
        },
        {},
    ),
    "adapters, muon, autocast": (
        {"curriculum": LEFT, "adapters": "trunk", "optim": {"name": "muon"}, "precision": AUTOCAST},
        {},
    ),
    "adapters, time, adafactor": (
        {"adapters": {"on": "both", "rank": 32}, "optim": {"name": "adafactor"}, **TIMED},
        {},
    ),
    "diffusion": ({"curriculum": LEFT, "objective": "diffusion"}, {}),
    "large head": ({"curriculum": LEFT, "rack": {"vocab": 9000, "tied": True}}, {}),
    "large head, micro-batches of few rows": (
        {"rack": {"vocab": 9000}, "curriculum": LEFT, "data": FEW},
        {"micro_batch": 1},
    ),
    "tied table, checkpointed, few rows": (
        {"rack": {"vocab": 9000, "tied": True}, "curriculum": "end_to_end", "data": FEW},
        {"checkpointing": True},
    ),
    "bert": (
        {"rack": {"norm": "layernorm", "norm_place": "post", "ffn": "gelu", "bias": True}},
        {},
    ),
    "gqa": ({"attention": "gqa", "rack": {"kv_heads": 2, "qk_norm": True}}, {}),
    "mla, autocast": ({"attention": "mla", "precision": AUTOCAST}, {}),
    "mla, checkpointed": ({"attention": "mla", "precision": AUTOCAST}, {"checkpointing": True}),
    "kernel": ({"attention": {"kind": "kernel", "features": 32}}, {}),
    "time": ({"curriculum": LEFT, **TIMED}, {}),
    "time, suffix, autocast": ({"precision": AUTOCAST, **TIMED}, {}),
    "time, in backward": ({"optim": IN_BACKWARD, **TIMED}, {}),
    "frozen up, autocast": ({"rack": STILL, "precision": AUTOCAST}, {}),
    "spectral norm": ({"rack": {"spectral_norm": True}, "curriculum": LEFT}, {}),
    "frozen up, in backward": ({"rack": STILL, "optim": IN_BACKWARD}, {}),
    "window": ({"rack": {"window": 32}}, {}),
    "mqa, autocast": ({"attention": "mqa", "precision": AUTOCAST}, {}),
    "linear": ({"attention": "linear"}, {}),
    "linear, both ways, autocast": (
        {"attention": "linear", "objective": "diffusion", "precision": AUTOCAST},
        {},
    ),
    "blocks of text": ({"curriculum": LEFT, **BLOCKS}, {}),
    "blocks of text, mla, autocast": ({"attention": "mla", "precision": AUTOCAST, **BLOCKS}, {}),
    "blocks of text, checkpointed, micro-batches": (
        {"precision": BF16, "rack": TWO, **BLOCKS},
        {"checkpointing": True, "micro_batch": 3},
    ),
    "blocks of text, cached": ({"curriculum": LEFT, **BLOCKS}, {"trunk": "cached"}),
    "blocks of text, adapters, autocast": (
        {"adapters": {"on": "both", "rank": 32}, "precision": AUTOCAST, **BLOCKS},
        {},
    ),
    "held, micro-batches": ({"preserve": HELD, "objective": "diffusion"}, {"micro_batch": 3}),
    "blocks of text, held": ({"preserve": HELD, **BLOCKS}, {}),
    "window by spans": ({"attention": "window:8"}, {}),
    "window by spans, both ways, autocast": (
        {"attention": "window:8", "objective": "diffusion", "precision": AUTOCAST},
        {},
    ),
}
TRACED = """
import json, sys
import stackwise.memory.trace
stackwise.memory.trace.main(json.loads(sys.argv[1]))
"""


def experiment(**changes) -> sw.Experiment:
    """Three stacks of a block, whose activations are as large as their weights."""
    rack, optim = changes.pop("rack", {}), changes.pop("optim", {})
    plain = {
        "rack": {"stacks": 3, "blocks_per_stack": 1, "d_model": 192, "heads": 6, **rack},
        "data": {"corpus": {"kind": "markov", "size_bytes": 100_000}, "seq_len": 96},
        "optim": {"batch": 8, **optim},
        "objective": "clm",
        "curriculum": RIGHT,
        "budget": {"tokens": 10**5},
    }
    return sw.Experiment(**{**plain, **changes})


def given(case: str) -> tuple[sw.Experiment, sw.Placement, dict]:
    """A case's experiment and placement, and the row of its last stage in the plan."""
    changes, placed = CASES[case]
    exp, placement = experiment(**changes), sw.Placement(device="cpu", **placed)
    return exp, placement, plan_rows(exp, placement, sw.stages(exp))[-1]


@pytest.mark.parametrize("case", CASES)
def test_of_the_last_stage(case) -> None:
    exp, placement, row = given(case)
    told = {"exp": exp.model_dump(mode="json"), "placement": placement.model_dump(mode="json")}
    found = forked_json(TRACED, json.dumps({**told, "number": row["stage"]}))
    planned = sum(row["peak"].values()) - row["peak"]["device"]
    print(f"{case}: {planned / 2**20:.2f} of {found['Total'] / 2**20:.2f} at {row['peak_at']}")
    assert 0.98 <= planned / found["Total"] <= 1.03


def test_in_a_python_of_its_own_too() -> None:
    exp, placement, row = given("float32")
    found = trace_stage(exp, placement, row["stage"])
    assert 0.98 <= (sum(row["peak"].values()) - row["peak"]["device"]) / found["Total"] <= 1.03
