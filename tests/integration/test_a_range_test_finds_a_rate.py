"""`lr_find` reads a rate off each stage, says what it did, and leaves everything as it was."""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.cli import main
from stackwise.lr_curve import smooth
from stackwise.memory.flops import (
    forward_flops_per_token,
    head_flops_per_position,
    stage_flops_per_token,
)

TINY = [
    *("curriculum=left_to_right", "objective=clm", "rack.stacks=2", "rack.blocks_per_stack=1"),
    *("rack.d_model=16", "rack.heads=2", "data.corpus=markov", "data.seq_len=16", "optim.batch=4"),
    *("budget.tokens=5120", "placement.device=cpu", "placement.threads=1"),
]


def causal(tiny: sw.Experiment) -> sw.Experiment:
    """Every position counts, so that FLOPs can be worked out by hand."""
    return tiny.replace(
        curriculum="left_to_right", objective="clm", rack={"stacks": 2}, budget={"tokens": 5120}
    )


def test_it_is_the_same_whatever_was_done_before_and_leaves_nothing(
    tiny, place, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    exp, said = causal(tiny), []
    first = sw.lr_find(exp, place, steps=40, lead_steps=5, tell=said.append)
    assert list(tmp_path.iterdir()) == []
    alone = sw.lr_find(exp, place, stage=1, steps=40, lead_steps=5)
    assert alone.stages == first.stages[1:]
    assert [each.stage for each in first.stages] == [0, 1]
    for each in first.stages:
        assert each.rates[0] == 1e-6
        ratios = [b / a for a, b in pairwise(each.rates)]
        assert ratios == pytest.approx([1e6 ** (1 / 39)] * len(ratios))
        assert each.losses[0] == each.before[0], "before the first step they are the same weights"
        assert each.steepest < each.lowest and 1e-5 < each.lowest < 1
        level = sum(each.before) / len(each.before)
        apart = smooth([a - b for a, b in zip(each.losses, each.before, strict=True)])
        if each.diverged is None:
            assert each.smoothed == pytest.approx([level + gap for gap in apart])
        lowest = min(range(4, len(each.rates)), key=each.smoothed.__getitem__)
        assert each.lowest == each.rates[lowest]
        assert each.suggested == pytest.approx(each.lowest / 10, rel=0.06)
    assert first.suggested == min(each.suggested for each in first.stages)
    assert said[0].startswith("This will take up to 5.44 k tokens and ")
    assert said[1].startswith("stage 0 (s0) begins as a run does; ")
    assert said[2].startswith("stage 1 (s1) begins after 5 steps of stage 0 at optim.lr; ")
    frame = first.to_frame()
    assert list(frame.columns) == ["stage", "name", "lr", "loss", "before", "smoothed"]
    assert len(frame) == sum(len(each.rates) for each in first.stages)
    assert str(first).splitlines()[0].split() == [
        *("stage", "steps", "steepest", "lowest", "diverged", "suggested")
    ]


def test_it_counts_what_it_spends(tiny, place) -> None:
    exp = causal(tiny)
    found, (one, two) = sw.lr_find(exp, place, stage=1, steps=20, lead_steps=3), sw.stages(exp)
    taken, batch = len(found.stages[0].rates), 4 * 16
    assert found.tokens == (3 + 20) * batch
    look = forward_flops_per_token(exp, two.path) + head_flops_per_position(exp)
    costs = [stage_flops_per_token(exp, stage).total for stage in (one, two)]
    by_hand = batch * (3 * costs[0] + taken * costs[1] + 20 * look)
    assert found.flops == pytest.approx(by_hand)


def test_a_smooth_curve_by_hand() -> None:
    # 0.1 x / 0.1; (0.09 x + 0.1 y) / 0.19
    assert smooth([2.0, 4.0]) == pytest.approx([2.0, (0.09 * 2 + 0.1 * 4) / 0.19])
    assert smooth([3.0] * 50) == pytest.approx([3.0] * 50)


def test_a_rate_that_is_far_too_high_stops_it(tiny, place) -> None:
    exp = causal(tiny).replace(optim={"clip": None})
    (found,) = sw.lr_find(exp, place, stage=0, steps=60, low=1e-3, high=10.0).stages
    assert found.diverged is not None and len(found.rates) < 60
    assert found.smoothed[-1] > 4 * min(found.smoothed)


def test_a_stage_begins_where_a_run_left_it_and_the_run_is_not_touched(tiny, place) -> None:
    exp = causal(tiny)
    run = sw.train(exp, place)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    said: list[str] = []
    found = sw.lr_find(exp, place, stage=1, run=run, steps=20, tell=said.append)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    assert list(Path(place.runs_dir).iterdir()) == [run.path]
    assert said[1].startswith(f"stage 1 (s1) begins at the end of stage 0 of {run.id}; 20 steps")
    losses = run.metrics().query("stage == 1")["loss"]
    assert found.stages[0].before[0] == losses.iloc[0], "the run's own first loss, to the last bit"
    other = exp.replace(curriculum="right_to_left")
    with pytest.raises(sw.ExperimentError, match=r"^run: stage 0 of .* is not that of the exp"):
        sw.lr_find(other, place, run=run)
    with pytest.raises(sw.ExperimentError, match=r"rack\.d_ff: .* a fork goes on with what is"):
        sw.lr_find(exp.replace(rack={"d_ff": 48}), place, run=run)


REFUSED = {
    "stage: 2 is no stage; there are 0 to 1": {"stage": 2},
    "low: 0 must be over 0; the rate is multiplied from there": {"low": 0},
    "high: 0.1 must be over low=0.1, and at most 10": {"low": 0.1, "high": 0.1},
    "high: 11 must be over low=1e-06, and at most 10": {"high": 11},
    "steps: 19 are too few to smooth; give 20 or more": {"steps": 19},
    "lead_steps: -1 must be 0 or more": {"lead_steps": -1},
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_ramp_is_refused(tiny, place, text) -> None:
    with pytest.raises(sw.ExperimentError) as caught:
        sw.lr_find(causal(tiny), place, **REFUSED[text])
    assert str(caught.value).endswith(text)


def test_the_command_prints_a_table_and_what_to_set(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    ask = ["lr-find", "toy", *TINY, "--steps", "20", "--lead-steps", "2"]
    assert main(ask) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("This will take up to ")
    assert out[3].startswith("It took ") and out[3].endswith("; nothing of it is kept.")
    assert out[5].split()[0] == "stage"
    assert [line.partition(":")[0] for line in out[10:12]] == ["stage 0 (s0)", "stage 1 (s1)"]
    assert all("optim.lr=" in line for line in out[10:])
    assert main([*ask, "--stage", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["stage"] for each in told["stages"]] == [1]
    assert told["suggested"] == told["stages"][0]["suggested"]
    assert main([*ask, "--stage", "7"]) == 2
    assert "stage: 7 is no stage" in capsys.readouterr().err
    assert main([*ask, "--run", "nothing"]) == 2
    assert list(tmp_path.iterdir()) == []
