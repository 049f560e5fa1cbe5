"""The end of a stage has second names of its files, or copies that outlive a power cut."""

from __future__ import annotations

import os

import pytest
import torch

from stackwise.training import checkpoint, kept_stages
from stackwise.training.kept_stages import copy_checkpoint, is_kept, keep
from stackwise.training.kept_stages import kept_stages as kept
from stackwise.training.manifest import CheckpointError, read_manifest, weights_hash


@pytest.fixture
def rack(tmp_path):
    numbers = {"weight": torch.ones(8)}
    folder = tmp_path / "rack"
    checkpoint.save(folder, {"s0": numbers, "s0.optimizer": numbers}, counters={"stage": 1})
    return folder


@pytest.mark.parametrize("links", [True, False])
def test_what_is_copied_is_on_the_disk(rack, tmp_path, monkeypatch, links) -> None:
    flushed, flush = set(), kept_stages.flush

    def noted(path) -> None:
        flushed.add(path.name)
        flush(path)

    def none(*names) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(kept_stages, "flush", noted)
    if not links:
        monkeypatch.setattr(os, "link", none)
    target = tmp_path / "end"
    copy_checkpoint(rack, target)
    files = {path.name for path in target.rglob("*.safetensors")}
    assert len(files) == 2
    assert flushed == {"end", "rack", "state"} | (set() if links else files)
    assert read_manifest(target / "rack") == read_manifest(rack)
    assert weights_hash(target / "rack") == weights_hash(rack)


def test_a_lost_file_is_named_and_nothing_is_kept(rack, tmp_path) -> None:
    (file,) = (tmp_path / "state").iterdir()
    file.unlink()
    with pytest.raises(CheckpointError, match=rf"state/{file.name}: is missing"):
        keep(rack, tmp_path / "stages" / "0000")
    assert kept(tmp_path) == []


def test_it_is_not_kept_again_with_what_the_next_stage_has_put_there(rack, tmp_path) -> None:
    """Else a fork of it would begin with the next stage's stacks, if a kill came just then."""
    at, target = {"stage": 1, "step": 0, "total_steps": 4}, tmp_path / "stages" / "0000"
    numbers = {"weight": torch.ones(8)}
    checkpoint.save(rack, {"s0": numbers}, counters=at)
    keep(rack, target)
    checkpoint.save(rack, {"s1": numbers}, unchanged=["s0"], counters={**at, "seconds": 2.0})
    assert is_kept(rack, target)
    checkpoint.save(rack, {"s0": {"weight": torch.zeros(8)}}, counters=at)
    assert not is_kept(rack, target)


def test_only_plain_digits_name_a_stage(rack, tmp_path) -> None:
    for name in ("0001", "²", "x"):
        keep(rack, tmp_path / "stages" / name)
    assert kept(tmp_path) == [1]
