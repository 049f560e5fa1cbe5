"""A checkpoint is the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stackwise.training import checkpoint
from stackwise.training.checkpoint import (
    CheckpointError,
    read_manifest,
    read_part,
    save,
    weights_hash,
)


def parts(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "s0": {"w": torch.full((4, 3), value), "b": torch.full((3,), value, dtype=torch.bfloat16)},
        "head": {"w": torch.full((2,), value)},
        "head.optimizer": {"w/exp_avg": torch.full((2,), -value)},
    }


def value_in(folder: Path) -> float:
    """The one value that a whole checkpoint of `parts` holds."""
    manifest = read_manifest(folder)
    values = {
        float(tensor.abs().max())
        for name in manifest["parts"]
        for tensor in read_part(folder, manifest, name).values()
    }
    assert values == {float(manifest["value"])}
    return values.pop()


def test_what_is_saved_is_read_back(tmp_path) -> None:
    save(tmp_path, parts(2.0), value=2.0, counters={"step": 7})
    manifest = read_manifest(tmp_path)
    assert manifest["counters"] == {"step": 7}
    read = read_part(tmp_path, manifest, "s0")
    assert read["b"].dtype == torch.bfloat16
    assert all(tensor.equal(read[name]) for name, tensor in parts(2.0)["s0"].items())


def test_only_what_changed_is_written(tmp_path) -> None:
    save(tmp_path, parts(1.0), value=1.0)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("s0-*")}
    changed = parts(1.0) | {"head": {"w": torch.zeros(2)}}
    save(tmp_path, changed, unchanged={"s0"}, value=1.0)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("s0-*")} == before
    assert len(list(tmp_path.glob("head-*"))) == 1, "the old file is gone"


def test_a_failure_at_any_write_leaves_the_old_one(tmp_path, monkeypatch) -> None:
    for place in range(1, 30):
        folder = tmp_path / str(place)
        save(folder, parts(1.0), value=1.0)
        calls = [0]

        def failing(real, place=place, calls=calls):
            def call(*arguments, **named):
                calls[0] += 1
                if calls[0] == place:
                    raise OSError(28, "No space left on device")
                return real(*arguments, **named)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save_file", failing(checkpoint.save_file))
            patch.setattr(os, "replace", failing(os.replace))
            patch.setattr(os, "fsync", failing(os.fsync))
            try:
                save(folder, parts(2.0), value=2.0)
                failed = False
            except OSError:
                failed = True
        assert value_in(folder) in ((1.0, 2.0) if failed else (2.0,))
        if not failed:
            assert place > 10, "every write was tried"
            return
    raise AssertionError("it never came through")


CHILD = """
import sys, torch
from pathlib import Path
from stackwise.training.checkpoint import save
value = float(sys.argv[2])
while True:
    value += 1
    part = {"w": torch.full((50_000,), value)}
    save(Path(sys.argv[1]), {"s0": part, "head": part}, value=value)
    print(value, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_one(tmp_path) -> None:
    chance, value = random.Random(0), 0.0
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(value)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(chance.random() * 0.05)
        child.send_signal(signal.SIGKILL)
        child.wait()
        found = value_in(tmp_path)
        assert found > value
        value = found


def test_equal_weights_have_equal_hashes(tmp_path) -> None:
    save(tmp_path / "a", parts(1.0))
    save(tmp_path / "b", parts(1.0), counters={"other": "facts"})
    save(tmp_path / "c", parts(1.5))
    assert weights_hash(tmp_path / "a") == weights_hash(tmp_path / "b")
    assert weights_hash(tmp_path / "a") != weights_hash(tmp_path / "c")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda p: p.unlink(), "is missing; restore it from a copy"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "is not what was written"),
        (lambda p: p.write_bytes(bytes([1]) + p.read_bytes()[1:]), "is not what was written"),
    ],
    ids=["missing", "cut", "altered"],
)
def test_damage_is_named(tmp_path, damage, says) -> None:
    save(tmp_path, parts(1.0))
    damage(next(tmp_path.glob("s0-*")))
    with pytest.raises(CheckpointError, match=f"s0-.*{says}"):
        read_part(tmp_path, read_manifest(tmp_path), "s0")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"parts": 3}', '{"parts": {"s0": {}}}', "\x00" * 10],
)
def test_a_damaged_manifest_is_named(tmp_path, text) -> None:
    save(tmp_path, parts(1.0))
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest.json: is damaged"):
        read_manifest(tmp_path)


def test_a_manifest_cannot_point_outside(tmp_path) -> None:
    save(tmp_path, parts(1.0))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["parts"]["s0"]["file"] = "../../etc/passwd"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="names a file that cannot be ours"):
        read_manifest(tmp_path)
