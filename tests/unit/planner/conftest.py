"""A machine on which every rate is a round number, so that seconds can be worked out by hand."""

from __future__ import annotations

import pytest

from stackwise.planner.hardware import Hardware
from stackwise.training.updates import OPTIMIZERS

DTYPES = ("float32", "bfloat16")


def flat(rate: float):
    return ((1.0, rate),)


def round_machine(**changes) -> Hardware:
    """Each rate has a power of ten, or a small multiple of one, of its own."""
    ways = ("forward", "backward")
    kinds = ("float32/master", "bfloat16/master", "bfloat16/stochastic")
    values = {
        "name": "round",
        "kind": "cpu",
        "origin": "stated",
        "said": "made up",
        "memory_bytes": 1e9,
        "host_bytes": 1e9,
        "threads": 2,
        "matmul": {"float32": flat(1e6), "bfloat16": flat(2e6)},
        "attention": {
            f"{dtype}/{mask}/{way}": flat(1e5)
            for dtype in DTYPES
            for mask in ("causal", "full")
            for way in ways
        },
        "around": {f"{dtype}/{way}": flat(1e4) for dtype in DTYPES for way in ways},
        "loss": {dtype: flat(1e3) for dtype in DTYPES},
        "optimizer": {f"{rule}/{kind}": flat(1e4) for rule in OPTIMIZERS for kind in kinds},
        "passing": {
            "norms": flat(2e4),
            "clip": flat(4e4),
            "add": flat(1e5),
            "cast": flat(5e4),
            "average/float32": flat(1e4),
            "average/bfloat16": flat(1e4),
        },
        "embedding": flat(1e3),
        "dequantise": {
            f"{form}/{dtype}": flat(1e4)
            for form in ("fp32", "fp16", "bf16", "fp8", "int8", "nf4", "fp4")
            for dtype in DTYPES
        },
        "quantise": dict.fromkeys(("fp16", "bf16", "fp8", "int8", "nf4", "fp4"), 1e4),
        "memory_rate": 1e6,
        "fresh_rate": 1e6,
        "link_rate": None,
        "disk_read": 1e5,
        "disk_write": 1e5,
        "page_read": 1e6,
        "hash_rate": 1e6,
        "start": 1e4,
        "call_seconds": 0.0,
        "calls_overlap": False,
    }
    return Hardware(**{**values, **changes})


@pytest.fixture
def machine():
    return round_machine


@pytest.fixture
def curve():
    return flat
