"""A run's rack knows in which direction it was trained, and its bands; the command line, too."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.cli import main


@pytest.fixture
def causal(tiny, place) -> sw.Run:
    return sw.train(tiny.replace(objective="clm"), place)


@pytest.fixture
def banded(tiny, place) -> sw.Run:
    masking = {"bands": "equal_mass"}
    return sw.train(tiny.replace(curriculum="right_to_left", masking=masking), place)


def test_a_causal_run_writes_from_left_to_right_and_fills_no_masks(causal) -> None:
    rack = causal.rack()
    assert rack.objective == causal.experiment.objective
    assert sw.rack_after(causal, 0).objective == rack.objective
    *_, last = sw.stream(rack, [1, 2], length=4)
    assert last.number == 4, "the usual one is autoregressive"
    with pytest.raises(sw.ExperimentError, match="method: 'ancestral' fills in masks, of which"):
        sw.sample_ids(rack, [1, 2], length=4, method="ancestral")


def test_a_run_with_bands_is_sampled_through_depth(banded, capsys) -> None:
    rack = banded.rack()
    heavy_first = [path for _, _, path in sorted(rack.paths, reverse=True)]
    steps = list(sw.stream(rack, [], length=12, method="through_depth"))
    ran = [path for step in steps for path in step.paths]
    assert list(dict.fromkeys(ran)) == heavy_first and len(heavy_first) > 1
    assert ran == sorted(ran, key=heavy_first.index)
    with pytest.raises(sw.ExperimentError, match="method: 'autoregressive' reads from left to"):
        sw.sample_ids(rack, [1], length=4, method="autoregressive")

    asked = ["sample", str(banded.path), "ab", "--length", "6", "--method", "through_depth"]
    assert main([*asked, "--set", "rule=margin", "--stream"]) == 0
    streamed = capsys.readouterr().out
    assert main([*asked, "--set", "rule=margin"]) == 0
    text = capsys.readouterr().out
    assert streamed.endswith(text) and streamed.startswith("step 1: 1 filled, 5 left; 1 reads")


def test_training_in_ones_own_loop_says_it_too() -> None:
    rack = sw.Rack(sw.RackShape(stacks=1, d_model=8, heads=2), "mha", 16)
    assert rack.objective is None
    batches = [torch.randint(16, (2, 8))] * 2
    sw.train_stack_wise(rack, batches, objective="clm", steps=2)
    with pytest.raises(sw.ExperimentError, match="of which objective=clm knows none"):
        sw.sample_ids(rack, [1], length=4, method="random")
