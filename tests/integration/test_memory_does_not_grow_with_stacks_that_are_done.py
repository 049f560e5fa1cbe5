"""What a stage takes is what it trains: frozen stacks that are lent cost nothing more.

Measured in processes of their own: what another test left in the heap would hide what is taken.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import stackwise as sw
from stackwise.memory import meter
from stackwise.memory.stored import part_tensors, trained_bytes

CODE = """
import json, sys, torch
torch.set_num_threads(1)
import stackwise as sw
run = sw.train(sw.Experiment(**json.loads(sys.argv[1])), sw.Placement(**json.loads(sys.argv[2])))
print(json.dumps(run.events("memory")[-1]["peak"]))
"""

pytestmark = pytest.mark.skipif(
    not meter.STATUS.exists(), reason="only Linux keeps a high-water mark of memory"
)


def science(stacks: int, curriculum: str) -> dict[str, object]:
    """Blocks of 12 MiB, which dwarf everything else that a step of eight tokens takes."""
    return {
        "rack": {"stacks": stacks, "blocks_per_stack": 1, "d_model": 512, "heads": 4},
        "data": {"corpus": {"kind": "markov", "size_bytes": 4000}, "seq_len": 8},
        "curriculum": curriculum,
        "optim": {"batch": 1, "ema": None},
        "budget": {"tokens": 8 * 4 * stacks},
        "eval": {"points": 1, "windows": 1, "final": 2},
    }


def last_peak(tmp_path, stacks: int, curriculum: str, trunk: str) -> int:
    """The peak of the last stage, bytes."""
    placement = {"device": "cpu", "trunk": trunk, "runs_dir": str(tmp_path / f"{stacks}{trunk}")}
    command = [sys.executable, "-c", CODE]
    arguments = [json.dumps(science(stacks, curriculum)), json.dumps(placement)]
    done = subprocess.run(command + arguments, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("curriculum", ["left_to_right", "block_coordinate"])
def test_the_last_stage_of_more_stacks_takes_no_more(tmp_path, curriculum) -> None:
    """Four stacks more, and less than half of one more in memory: the rest is the allocator's."""
    exp = sw.Experiment(**science(4, curriculum))
    block_bytes = trained_bytes(exp, part_tensors(exp, "s0"))
    few, many = (last_peak(tmp_path, stacks, curriculum, "streamed") for stacks in (4, 8))
    assert many - few < block_bytes / 2


def test_and_it_does_where_they_stay_in_memory(tmp_path) -> None:
    exp = sw.Experiment(**science(4, "left_to_right"))
    block_bytes = trained_bytes(exp, part_tensors(exp, "s0"))
    few, many = (last_peak(tmp_path, stacks, "left_to_right", "recompute") for stacks in (4, 8))
    assert many - few > 3.5 * block_bytes
