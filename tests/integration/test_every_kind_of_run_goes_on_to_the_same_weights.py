"""Stopped every few steps and at every border, runs of all kinds go on to the same last bit.

What a run can be made of is sampled: `CASES` draws are fixed, and together they take every value.
"""

from __future__ import annotations

import random

import pytest

import stackwise as sw
from stackwise.training.run import execute
from stackwise.training.start import create_run

CASES = 15
NUMBERS = ["step", "stage", "stage_step", "tokens", "flops", "loss", "lr", "grad_norm"]


def from_a_cell(exp):
    """Stacks that wait frozen before they train, and moments that are kept over two stages."""
    first, second, third, fourth = sw.stack_ids(exp.rack)
    keep = {"optimizer_state": "keep"}
    yield sw.Stage(path=(first, second), active=(second,), embedding=False, **keep)
    yield sw.Stage(path=(first, second, third), active=(first, second), head=False, **keep)
    yield sw.Stage(path=(first, second, third), active=(third,), embedding=False, **keep)
    yield sw.Stage(
        path=(first, second, third, fourth), active=(second, fourth), embedding=False, **keep
    )


CURRICULA = {
    "left_to_right": {"curriculum": {"name": "left_to_right", "init": "copy"}},
    "again": {"curriculum": "left_to_right", "data": {"restart": True}},
    "right_to_left": {"curriculum": "right_to_left", "masking": {"bands": "equal_mass"}},
    "grow": {"curriculum": {"name": "grow", "by": "one", "optimizer_state": "keep"}},
    "cycling": {"curriculum": {"name": "block_coordinate", "order": "random"}},
    "cycling on": {"curriculum": {"name": "block_coordinate", "optimizer_state": "keep"}},
    "a cell": {"curriculum": "from_a_cell"},
    "joined": {
        "curriculum": {
            "name": "left_to_right",
            "init": "copy",
            "fuse": 0.3,
            "optimizer_state": "copy",
        }
    },
    "copied": {
        "curriculum": {"name": "left_to_right", "init": "copy+noise", "optimizer_state": "copy"}
    },
    "between": {
        "curriculum": {
            "name": "grow",
            "place": "between",
            "init": "interpolate",
            "optimizer_state": "copy",
        }
    },
    "hop": {"curriculum": {"name": "one_hop", "source": 0}},
    "thawed": {"curriculum": {"name": "freeze_thaw", "init": "copy"}},
    "unfrozen": {"curriculum": "gradual_unfreezing"},
    "blocks": {"curriculum": "diffusion_blocks", "masking": {"bands": "equal_mass"}},
    "paths": {"curriculum": {"name": "subnetwork", "lengths": (1, 2, 3, 4)}},
}
VALUES = {
    "curriculum": list(CURRICULA),
    "trunk": ["recompute", "disk", "host", "cached"],
    "frozen": [None, "bf16", "nf4", "int8"],
    "master": ["fp32", "bf16"],
    "optimizer": ["adamw", "adamw8bit", "paged_adamw8bit", "lion8bit", "adafactor", "muon"],
    "grads": ["whole", "in_backward"],
    "weights": ["float32", "master", "stochastic"],
    "tied": [True, False],
    "ema": [None, 0.9],
    "steps": [1, 2, 3],
    "adapters": ["none", "trunk", "suffix", "both"],
}
PLACES = {
    "recompute": {"trunk": "recompute"},
    "disk": {"trunk": "streamed"},
    "host": {"trunk": "streamed", "stream_from": "host"},
    "cached": {"trunk": "cached"},
}


def drawn(number: int) -> dict:
    """A case: each key in an order of its own, so that few cases have all values."""
    return {
        key: random.Random(f"{key} {number // len(values)}").sample(values, len(values))[
            number % len(values)
        ]
        for key, values in VALUES.items()
    }


def made(tiny: sw.Experiment, case: dict) -> sw.Experiment:
    optim = {"name": case["optimizer"], "grads": case["grads"], "ema": case["ema"]}
    if case["grads"] == "in_backward":
        optim["clip"] = None
    precision = {}
    if case["weights"] != "float32":
        precision = {"compute": "bfloat16", "weights": "bfloat16", "rounding": case["weights"]}
    if case["frozen"] is not None:
        precision["frozen"] = case["frozen"]
        if (precision.get("weights"), case["frozen"]) != ("bfloat16", "bf16"):
            precision["master"] = case["master"]
    return tiny.replace(rack={"tied": case["tied"]}, optim=optim, precision=precision).replace(
        **CURRICULA[case["curriculum"]], adapters=case["adapters"]
    )


def stop_after(steps: int):
    """A callback that asks to stop after so many steps of this attempt, and at every border."""
    seen = []

    def on_step(work, numbers):
        seen.append(numbers.loss)
        last = work.at.step == work.steps_of(work.at.stage)
        work.stop_requested = last or len(seen) == steps

    return on_step


@pytest.mark.parametrize("number", range(CASES))
def test_stopping_changes_nothing(tiny, place, number, monkeypatch) -> None:
    monkeypatch.setitem(sw.CURRICULA, "from_a_cell", from_a_cell)
    case = drawn(number)
    exp, place = made(tiny, case), place.replace(**PLACES[case["trunk"]])
    whole, pieces = sw.train(exp, place), create_run(exp, place, rerun=True)
    attempts = 0
    while pieces.state != "finished":
        execute(pieces, on_step=stop_after(case["steps"]))
        attempts += 1
        assert attempts <= 20
    assert attempts >= 4
    assert pieces.weights_hash() == whole.weights_hash(), case
    assert pieces.metrics()[NUMBERS].equals(whole.metrics()[NUMBERS]), case
    assert pieces.result()["bits_per_byte"] == whole.result()["bits_per_byte"]
    measured = ["stage", "step", "loss"]
    assert pieces.evals()[measured].equals(whole.evals()[measured])


def test_the_cases_take_every_value() -> None:
    cases = [drawn(number) for number in range(CASES)]
    assert all({case[key] for case in cases} == {*values} for key, values in VALUES.items())
