"""SIGKILL at random moments of a process that does nothing but save."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import torch

from stackwise.training.checkpoint import save
from stackwise.training.manifest import read_manifest, read_part, weights_hash

PARTS = ("embedding", "s0", "s1", "s1.optimizer", "s1.average", "head")


def parts_at(step: int) -> dict[str, dict[str, torch.Tensor]]:
    """About 100 kB that follow from the step; `s0` is frozen."""
    return {
        name: {
            "w": torch.full((4096,), float(number if name == "s0" else step + number)),
            "n": torch.full((300,), float(step if name != "s0" else 0), dtype=torch.bfloat16),
        }
        for number, name in enumerate(PARTS)
    }


def save_until_killed(rack: Path, ready: int) -> None:
    first = read_manifest(rack)["counters"]["step"] + 1 if rack.exists() else 1
    save(rack, parts_at(first), counters={"step": first})
    os.write(ready, b"!")
    for step in range(first + 1, 1 << 30):
        save(rack, parts_at(step), unchanged={"s0"}, counters={"step": step})


def killed_after(seconds: float, rack: Path) -> None:
    """Fork a child that saves and kill it so long after its first checkpoint."""
    end, ready = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save_until_killed(rack, ready)
        finally:
            os._exit(1)
    os.close(ready)
    assert os.read(end, 1) == b"!"
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    os.close(end)


def test_a_dozen_kills_leave_a_dozen_whole_checkpoints(tmp_path) -> None:
    rack, chance = tmp_path / "run" / "rack", random.Random(0)
    rack.parent.mkdir()
    steps, left_over = [0], 0
    for _ in range(12):
        killed_after(chance.uniform(0, 0.06), rack)
        manifest = read_manifest(rack)
        steps.append(manifest["counters"]["step"])
        wanted = parts_at(steps[-1])
        for name in PARTS:
            read = read_part(rack, manifest, name)
            assert all(read[key].equal(wanted[name][key]) for key in ("w", "n")), name
        files = [path for path in rack.parent.rglob("*") if path.is_file()]
        left_over += len(files) > 1 + len(PARTS)
    assert steps == sorted(set(steps))
    assert left_over, "no kill struck inside a save: the test shows nothing"
    before = weights_hash(rack)
    save(rack, parts_at(steps[-1]), counters={"step": steps[-1]})
    assert weights_hash(rack) == before
    assert len([path for path in rack.parent.rglob("*") if path.is_file()]) == 1 + len(PARTS)
