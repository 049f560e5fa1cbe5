"""Numbers by layer carry the names of the stage's own path, wherever the rack grew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import stackwise as sw
from stackwise.runs.layers import block_names, exit_names, layers_of, norms_of

RUNS = {
    run.id.split("-")[1]: run for run in sw.runs_in(Path(__file__).parents[3] / "data" / "runs")
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_every_exit_of_every_look_is_a_row(run) -> None:
    frame = layers_of(run)
    looks = run.events("eval")
    assert frame["exit_loss"].tolist() == [loss for look in looks for loss in look["exit_losses"]]
    for look in looks:
        mine = frame[frame["step"] == look["step"]]
        path = run.stages()[look["stage"]]["path"]
        assert mine["block"].tolist() == ["embedding", *(f"{stack}.0" for stack in path)]
        assert mine["depth"].tolist() == list(range(1 + len(path)))
        assert set(mine["stage"]) == {look["stage"]}


def test_a_rack_that_grows_to_the_left_begins_with_its_new_stack() -> None:
    frame = layers_of(RUNS["right_to_left"])
    first = {stage: rows["block"].iloc[1] for stage, rows in frame.groupby("stage")}
    assert first == {0: "s3.0", 1: "s2.0", 2: "s1.0", 3: "s0.0"}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_gradient_norms_are_of_the_blocks_that_train(run) -> None:
    frame, metrics = norms_of(run), run.metrics().set_index("step")
    names = block_names(4, 1)
    assert len(frame) == sum(len(s["active"]) * (metrics["stage"] == n).sum()
                             for n, s in enumerate(run.stages()))  # fmt: skip
    for row in frame.iloc[::7].itertuples():
        whole = metrics.loc[row.step]
        assert row.grad_norm == whole["block_grad_norms"][names.index(row.block)]
        assert row.stage == whole["stage"]
    assert np.isfinite(frame["grad_norm"]).all()


def test_exits_are_named_by_the_path_and_by_how_many_there_are() -> None:
    assert exit_names(["s2", "s0"], 5) == ["embedding", "s2.0", "s2.1", "s0.0", "s0.1"]
    assert exit_names(["s0"], 0) == []
    for count in (1, 4):
        with pytest.raises(ValueError) as error:
            exit_names(["s2", "s0"], count)
        assert str(error.value) == (
            f"exit_losses: {count} numbers are not one more than the blocks of 2 stacks; the event "
            "belongs to another run"
        )


def test_blocks_are_named_left_to_right() -> None:
    assert block_names(2, 3) == ["s0.0", "s0.1", "s0.2", "s1.0", "s1.1", "s1.2"]


def test_a_run_that_has_only_begun_has_columns_and_no_rows(made) -> None:
    run = made(
        experiment=sw.Experiment().to_yaml(),
        stages=[{"name": "s0", "path": ["s0"], "active": ["s0"]}],
    )
    assert list(layers_of(run).columns) == ["step", "stage", "depth", "block", "exit_loss"]
    assert list(norms_of(run).columns) == ["step", "stage", "block", "grad_norm"]
    assert len(layers_of(run)) == len(norms_of(run)) == 0
