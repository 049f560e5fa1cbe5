"""What is said of each arm: losses like wins, and no more than the seeds allow."""

from __future__ import annotations

import math

import pandas as pd
import pytest

import stackwise as sw
from stackwise.study import Arm, StudyResult
from stackwise_widgets import paired_figure, study_figure


class Known:
    """A run of which score and curve are known."""

    def __init__(self, bits, curve=(), epochs=1.0, **optim) -> None:
        self.id, self.bits, self.curve, self.epochs = "run", bits, curve, epochs
        self.experiment = sw.Experiment(optim=optim)

    def result(self):
        if self.bits is None:
            return {}
        spent = {"flops": 64.0, "trained_tokens": 32, "epochs": self.epochs, "seconds": 1.0}
        return {"bits_per_byte": self.bits, "note": "exact", "parameters": 1, **spent}

    def evals(self):
        rows = [{"tokens": f / 2, "flops": f, "bits_per_byte": b, "loss": b, "stage": 0, "step": n}
                for n, (f, b) in enumerate(self.curve)]  # fmt: skip
        return pd.DataFrame(rows)

    def plan(self):
        return [{"flops": 64.0, "tokens": 32}]


def result(scores, **more) -> StudyResult:
    runs = [
        (Arm(name, run.experiment), seed, run)
        for name, found in scores.items()
        for seed, run in enumerate(found)
    ]
    return StudyResult("flops", tuple(runs), "control", **more)


CURVE = [(2.0, 9.0), (8.0, 7.0), (64.0, 4.0)]  # 10 - log2


@pytest.fixture
def three() -> StudyResult:
    control = [Known(2.0, CURVE), Known(2.2, CURVE), Known(2.4, CURVE)]
    steep = [(2.0, 8.0), (8.0, 6.0), (64.0, 3.0)]  # there at half the FLOPs
    return result(
        {
            "control": control,
            "lost": [Known(3.0, [(64.0, 8.0)]), Known(3.2, CURVE), Known(3.5, CURVE, 4.5)],
            "won": [Known(1.5, steep), Known(1.7, steep), Known(1.8, steep, schedule="constant")],
            "even": [Known(2.1), Known(2.1), Known(None)],
        }
    )


def test_each_arm_is_judged_by_its_paired_interval(three) -> None:
    rows = three.summary().set_index("arm")
    assert rows["judged"].to_dict() == {
        "control": "control", "lost": "worse", "won": "better", "even": "too few seeds",
    }  # fmt: skip
    lost = rows.loc["lost"]
    sd = math.sqrt(2 * (1 / 30) ** 2 + (2 / 30) ** 2) / math.sqrt(2)  # of 1.0, 1.0, 1.1
    assert lost["difference"] == pytest.approx(3.1 / 3)
    assert lost["high"] - lost["difference"] == pytest.approx(4.302653 * sd / math.sqrt(3))
    assert rows["n"].tolist() == [3, 3, 3, 2]


def test_flops_to_target_are_read_off_curves_and_missing_where_one_never_comes(three) -> None:
    rows = three.summary().set_index("arm")
    assert rows["flops_to_target"]["won"] == pytest.approx(32.0)
    assert rows["flops_to_target"]["control"] == pytest.approx(64.0)
    assert math.isnan(rows["flops_to_target"]["lost"]) and rows["reached"]["lost"] == 2


def test_flags_name_epochs_schedules_and_what_is_missing(three) -> None:
    flags = three.summary().set_index("arm")["flags"]
    assert flags["control"] == "" and flags["lost"] == ""
    assert flags["won"] == "rate does not decay to zero"
    assert flags["even"] == "1 of 3 runs without a result"
    many = result({"control": [Known(2.0, epochs=4.5)]}).summary()["flags"][0]
    assert many == "4.5 epochs over the text, more than 4"


def test_losses_stand_in_verdict_and_table_like_wins(three) -> None:
    whole = StudyResult("flops", three.runs[:9], "control")
    said = whole.verdict()
    assert "better than control: won by -0.533 (" in said
    assert "worse than control: lost by +1.033 (+0.890 to +1.177)" in said
    assert "A headline needs 8 seeds." in said
    assert "Not a fair control: won trained at optim.schedule=constant" in said
    for markdown in (False, True):
        lines = whole.table(markdown=markdown).splitlines()
        assert len(lines) == 2 + 3
        assert "+1.033" in lines[3] and "worse" in lines[3]
        assert "-0.533" in lines[4] and "better" in lines[4]


def test_the_seeds_asked_for_follow_the_measured_spread(three) -> None:
    control, other = [2.0, 2.2, 2.4, 2.0], [2.3, 2.1, 2.8, 2.2]
    found = result({"control": map(Known, control), "other": map(Known, other)})
    spread = pd.Series(other).sub(control)
    needed = sw.study.seeds_needed(spread.mean(), spread.std())
    assert found.seeds_needed() == {"other": needed} and needed > 4
    assert f"asks for more seeds than 4: {needed} for other" in found.verdict()
    assert found.seeds_needed(effect=10.0) == {"other": 3}
    named = StudyResult("flops", found.runs, "control", effect=0.05)
    assert named.seeds_needed() == {"other": sw.study.seeds_needed(0.05, spread.std())}
    assert "To see 0.05 bits per byte with probability 0.8" in named.verdict()


def test_nothing_is_ranked_across_kinds_and_nothing_missing_raises(three) -> None:
    assert three.verdict().startswith("Some runs hold no result, so nothing is ranked.")
    assert three.table().splitlines()[-1].split()[0] == "even"
    empty = result({"control": [Known(None)], "other": [Known(None)]})
    rows = empty.summary()
    assert rows["judged"].tolist() == ["control", "no result"] and rows["mean"].isna().all()
    assert empty.table() and empty.to_json()


def test_the_figure_shows_every_seed_every_difference_and_the_control_s_end(tiny_result) -> None:
    figure = paired_figure(tiny_result)
    arms, differences, curves = figure.axes
    frame, rows = tiny_result.to_frame(), tiny_result.summary()
    drawn = {round(float(x), 9) for line in arms.get_lines() for x in line.get_xdata()}
    assert drawn >= {round(bits, 9) for bits in frame["bits_per_byte"]}
    assert drawn >= {round(bits, 9) for bits in rows["mean"]}
    seen = {round(float(x), 9) for line in differences.get_lines() for x in line.get_xdata()}
    wide = frame.pivot(index="seed", columns="arm", values="bits_per_byte")
    expected = wide["base"] - wide["control"]
    assert seen >= {round(value, 9) for value in expected}
    assert seen >= {round(float(rows.iloc[0][key]), 9) for key in ("low", "high", "difference")}
    assert [text.get_text() for text in differences.texts] == rows["judged"].tolist()
    assert len(curves.get_lines()) == 3, "two curves, and where the control ends"
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_figures_of_runs_without_a_result_are_drawn(tiny_result, tmp_path) -> None:
    import shutil

    folder = shutil.copytree(tiny_result.runs[0][2].path, tmp_path / "cut")
    for name in ("events.jsonl", "status.json", "metrics.parquet"):
        (folder / name).unlink()
    arm, seed, _ = tiny_result.runs[0]
    cut = ((arm, seed, sw.Run(folder)), *tiny_result.runs[1:])
    broken = StudyResult("flops", cut, "control")
    with pytest.warns(UserWarning, match="run cut: events.jsonl is damaged: "):
        assert paired_figure(broken)._repr_png_().startswith(b"\x89PNG")
        assert study_figure(broken)._repr_png_().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def tiny_result(tmp_path_factory) -> StudyResult:
    exp = sw.Experiment(
        title="tiny",
        rack={"stacks": 2, "blocks_per_stack": 1, "d_model": 8, "heads": 2},
        curriculum="left_to_right",
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 8},
        optim={"batch": 2},
        budget={"tokens": 64},
        eval={"points": 2, "windows": 4, "draws": 1, "final": 8},
    )
    place = sw.Placement(runs_dir=str(tmp_path_factory.mktemp("runs")), device="cpu")
    plain = {"lr_grid": None, "same_bytes": False}
    return sw.Study(exp, seeds=(0, 1), placement=place, **plain).run()
