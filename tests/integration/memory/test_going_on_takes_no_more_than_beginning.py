"""A run that goes on in the middle of a stage takes no more memory than one that was never stopped.

By the kernel's account of anonymous memory over all of it, what is loaded included; and by the
peaks of its stages that the run itself tells. Moments, averages and masters are mapped from their
files into what they belong to: no second copy of them is made.
"""

from __future__ import annotations

import pytest

RUN = """
from peak import *
from stackwise.training.run import execute
from stackwise.training.start import create_run

facts, folder = told()
place = sw.Placement(
    device="cpu", threads=1, runs_dir=str(folder), checkpoint_seconds=1e9, **facts["placement"]
)
exp = experiment(3, rack={"stacks": 3, "blocks_per_stack": 2, "d_model": 320, "heads": 5},
                 **facts["science"])
exp = exp.replace(budget={"tokens": 3 * exp.budget.tokens}, optim={"ema": facts["ema"]})
warm(exp, place)
whole, pieces = create_run(exp, place), create_run(exp, place, rerun=True)

def stop_within(work, numbers):
    work.stop_requested = work.at.stage == facts["stage"] and work.at.step == 2

execute(pieces, on_step=stop_within)
assert pieces.state == "stopped"
peak = Peak()
fresh = peak.sampled(lambda: execute(whole))
again = peak.sampled(lambda: execute(pieces))
assert pieces.weights_hash() == whole.weights_hash()

def told_by(run):
    memory = run.memory()
    return memory[memory["category"] == "peak"]["measured"].tolist()[facts["stage"]:]

print(json.dumps([fresh, again, told_by(whole), told_by(pieces)]))
"""
CASES = {
    "adamw": {  # weights, gradients and moments: a second copy of these would be the peak
        "stage": 0,
        "ema": None,
        "placement": {},
        "science": {"curriculum": "end_to_end"},
    },
    "streamed, with masters": {
        "stage": 1,
        "ema": 0.99,
        "placement": {"trunk": "streamed"},
        "science": {
            "curriculum": {"name": "block_coordinate", "cycles": 1},
            "precision": {"frozen": "nf4", "master": "fp32"},
        },
    },
}
OWN_BYTES = 1 << 20


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_peaks_no_higher(alone, case) -> None:
    fresh, again, told, told_again = alone(RUN, **CASES[case])
    assert again <= fresh + OWN_BYTES
    assert len(told) == len(told_again)
    assert all(ours <= theirs + OWN_BYTES for ours, theirs in zip(told_again, told, strict=True))
