"""The figure of a study draws the numbers of the run folders, and nothing where there is none."""

import json
import math
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.axes import Axes

import stackwise as sw
from stackwise.runs.events import read_events
from stackwise.study import StudyResult
from stackwise_widgets import figure_data, study_figure
from stackwise_widgets.paper import COLOURS
from stackwise_widgets.study_data import over_seeds

FRAMES = ("heldout", "training")
CATEGORIES = ["weights", "gradients", "optimizer", "average", "activations", "peak"]


def study(folder: Path, **change: object) -> StudyResult:
    """Two seeds of two arms, the second in noise bands; four blocks of width 16."""
    base = sw.Experiment(
        title="tiny",
        rack={"stacks": 2, "blocks_per_stack": 2, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 40_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 8 * 4 * 16},
        eval={"points": 4, "windows": 8, "draws": 1},
    ).replace(**change)
    banded = base.replace(
        curriculum={"name": "right_to_left", "embedding": "first"}, masking={"bands": "equal_mass"}
    )
    frozen = base.replace(curriculum="left_to_right")
    place = sw.Placement(runs_dir=str(folder), device="cpu")
    plain = {"lr_grid": None, "same_bytes": False}
    arms = {"banded": banded}
    return sw.Study(frozen, more=arms, seeds=(0, 1), placement=place, name="ltr", **plain).run()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    return study(tmp_path_factory.mktemp("runs"))


def of(frame: pd.DataFrame, arm: str, seed: int) -> pd.DataFrame:
    mine = frame[(frame["arm"] == arm) & (frame["seed"] == seed)]
    return mine.drop(columns=["arm", "seed"]).reset_index(drop=True)


def drawn(axes: Axes, colour: str | None = None) -> set[tuple[float, float]]:
    """Every finite point of every line, or of those of one colour."""
    lines = [line for line in axes.get_lines() if colour in (None, line.get_color())]
    points = [tuple(map(float, point)) for line in lines for point in line.get_xydata()]
    return {point for point in points if all(map(math.isfinite, point))}


def test_losses_are_those_of_metrics_and_evals(result) -> None:
    data = figure_data(result)
    for arm, seed, run in result.runs:
        source = {"training": run.metrics(), "heldout": run.evals()}
        for name in FRAMES:
            columns = ["stage", "step", "flops", "loss"]
            mine, theirs = of(data[name], arm.name, seed), source[name]
            pd.testing.assert_frame_equal(mine[columns], theirs[columns], check_dtype=False)


def test_bits_per_byte_are_those_of_evals_and_of_the_result(result) -> None:
    data = figure_data(result)
    for arm, seed, run in result.runs:
        bits = of(data["heldout"], arm.name, seed)["bits_per_byte"].tolist()
        measured = [math.nan if b is None else b for b in run.evals()["bits_per_byte"]]
        assert bits == pytest.approx(measured, nan_ok=True, rel=0, abs=0)
        row = of(data["arms"], arm.name, seed).iloc[0]
        final = run.result()
        assert (row["bits_per_byte"], row["flops"]) == (final["bits_per_byte"], final["flops"])
        assert (row["run"], row["hash"]) == (run.id, run.experiment.hash)


def test_memory_is_that_of_the_stage_predicted_to_take_most(result) -> None:
    data = figure_data(result)
    for arm, seed, run in result.runs:
        dearest = max(run.plan(), key=lambda row: row["bytes"]["total"])
        memory = run.memory()
        memory = memory[(memory["stage"] == dearest["stage"]) & (memory["category"] != "total")]
        mine = of(data["memory"], arm.name, seed)
        pd.testing.assert_frame_equal(mine, memory.reset_index(drop=True))
        assert mine["category"].tolist() == CATEGORIES


def test_depth_counts_blocks_before_an_exit_and_skipped_blocks_before_an_entry(result) -> None:
    depth = figure_data(result)["depth"]
    for arm, seed, run in result.runs:
        mine = of(depth, arm.name, seed)
        banded = arm.name == "banded"
        assert mine["loss"].tolist() == run.result()["depth_losses"]
        assert mine["block"].tolist() == ([0, 2, 4] if banded else [0, 1, 2, 3, 4])
        assert set(mine["kind"]) == {"entry" if banded else "exit"}


def test_an_arm_in_bands_shows_its_final_score_and_no_curve(result) -> None:
    data = figure_data(result)
    for name in FRAMES:
        assert data[name].query("arm == 'banded'")["bits_per_byte"].isna().all()
        assert data[name].query("arm == 'ltr'")["bits_per_byte"].notna().all()
    final = data["arms"].query("arm == 'banded'")
    mean = (final["flops"].mean(), final["bits_per_byte"].mean())
    assert drawn(study_figure(result).axes[0], COLOURS[1]) == {mean}


def test_the_stages_lie_end_to_end_over_the_flops_spent(result) -> None:
    stages = figure_data(result)["stages"]
    for arm, seed, run in result.runs:
        mine = of(stages, arm.name, seed)
        assert mine["end_flops"].tolist() == [
            run.metrics().query("stage == @n")["flops"].max() for n in range(len(run.stages()))
        ]
        assert mine["begin_flops"].tolist() == [0.0, *mine["end_flops"][:-1]]


def test_one_seed_draws_its_evals_and_says_that_it_names_no_winner(result) -> None:
    one = StudyResult(result.equal, tuple(entry for entry in result.runs if entry[1] == 0))
    figure = study_figure(one)
    run = one.runs[0][2]
    evals = run.evals()
    expected = set(zip(evals["flops"], evals["bits_per_byte"], strict=True))
    assert expected <= drawn(figure.axes[0])
    caption = figure.texts[-1].get_text()
    assert run.experiment.hash in caption
    assert "One seed names no winner" in caption


def test_several_seeds_draw_their_mean_and_say_how_many(result) -> None:
    figure = study_figure(result)
    evals = [run.evals() for arm, _, run in result.runs if arm.name == "ltr"]
    means = [
        ((a.flops + b.flops) / 2, (a.bits_per_byte + b.bits_per_byte) / 2)
        for a, b in zip(*(frame.itertuples() for frame in evals), strict=True)
    ]
    points = drawn(figure.axes[0])
    assert all(any(point == pytest.approx(mean) for point in points) for mean in means)
    assert "2 seeds" in figure.texts[-1].get_text()


def test_what_is_not_a_number_is_left_out_and_never_filled_in(result, tmp_path) -> None:
    arm, seed, run = result.runs[0]
    folder = tmp_path / run.id
    shutil.copytree(run.path, folder)
    lines = read_events(folder / "events.jsonl")
    looks = [line for line in lines if line["kind"] == "eval"]
    looks[1] |= {"loss": "NaN", "bits_per_byte": "NaN"}
    final = next(line for line in lines if line["kind"] == "result")
    final["bits_per_byte"], final["depth_losses"][0] = "NaN", "Infinity"
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = run.metrics()
    metrics.loc[2, "loss"] = math.nan
    metrics.to_parquet(folder / "metrics.parquet")

    broken = StudyResult("flops", ((arm, seed, sw.Run(folder)),))
    data = figure_data(broken)
    assert data["heldout"]["loss"].isna().tolist() == [i == 1 for i in range(len(looks))]
    assert data["training"]["loss"].isna().tolist() == [i == 2 for i in range(len(metrics))]
    assert data["depth"]["loss"][0] == math.inf
    assert math.isnan(data["arms"]["bits_per_byte"][0])
    figure = study_figure(broken)
    kept = set(zip(run.evals()["flops"], run.evals()["bits_per_byte"], strict=True))
    lost = tuple(run.evals()[["flops", "bits_per_byte"]].iloc[1])
    assert kept - drawn(figure.axes[0]) == {lost}
    assert "none" in [text.get_text() for text in figure.axes[1].texts]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_one_seed_without_a_number_leaves_the_mean_without_one(result) -> None:
    frame = pd.DataFrame({"arm": "a", "step": [1, 1, 2, 2], "bits_per_byte": [1, 3, 1, math.nan]})
    means = over_seeds(frame, ["arm", "step"])["mean"].tolist()
    assert means == pytest.approx([2, math.nan], nan_ok=True)


def test_an_mlm_loss_is_not_shown_as_bits_per_byte(tmp_path) -> None:
    base = sw.Experiment.preset("toy").replace(
        objective="mlm",
        rack={"stacks": 1, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        data={
            "corpus": {"kind": "markov", "size_bytes": 40_000},
            "tokenizer": "bytes",
            "seq_len": 16,
        },
        optim={"batch": 4},
        budget={"tokens": 4 * 4 * 16},
        eval={"points": 2, "windows": 8, "draws": 1},
    )
    result = sw.Study(base, placement=sw.Placement(runs_dir=str(tmp_path), device="cpu")).run()
    data = figure_data(result)
    for name in ("heldout", "training", "depth"):
        assert data[name]["loss"].notna().all() and data[name]["bits_per_byte"].isna().all()
    assert data["arms"]["bits_per_byte"].notna().all()
    assert study_figure(result)._repr_png_().startswith(b"\x89PNG")


def test_the_same_runs_give_the_same_picture(result) -> None:
    assert study_figure(result)._repr_png_() == study_figure(result)._repr_png_()


def test_drawing_does_without_pyplot(result, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it would raise
    assert study_figure(result)._repr_png_().startswith(b"\x89PNG")
