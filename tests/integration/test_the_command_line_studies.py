"""`stackwise study FILE`: the keys of `Study` in a file, its plan, its table, its exit codes."""

from __future__ import annotations

import json

import pytest
import yaml

import stackwise as sw
from stackwise.cli import main
from stackwise.training.start import TrainingError

ASKED = {
    "base": {
        "preset": "toy",
        "title": "tiny",
        "rack": {"stacks": 2, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        "data": {
            "corpus": {"kind": "markov", "size_bytes": 40_000},
            "tokenizer": "bytes",
            "seq_len": 16,
        },
        "optim": {"batch": 4},
        "budget": {"tokens": 512},
        "eval": {"points": 2, "windows": 8, "draws": 1, "final": 16},
    },
    "vary": {"curriculum": ["end_to_end"]},
    "more": {"left": {"curriculum": "left_to_right"}},
    "seeds": [0, 1],
    "lr_grid": None,
    "same_bytes": False,
    "placement": {"device": "cpu", "threads": 1},
}


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(**changes) -> str:
        (tmp_path / "s.yaml").write_text(yaml.safe_dump({**ASKED, **changes}))
        return "s.yaml"

    return write


def test_it_plans_trains_and_goes_on(file, capsys, tmp_path, monkeypatch) -> None:
    assert main(["study", file(), "--plan"]) == 0
    out = capsys.readouterr().out
    assert "4 runs, " in out and not (tmp_path / "runs").exists()
    assert main(["study", "s.yaml", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["arm"] for row in said["arms"]] == ["end_to_end", "left"]
    assert (said["control"], len(said["runs"])) == ("end_to_end", 4)

    monkeypatch.setattr("stackwise.training.run.train_stage", None)  # nothing is trained again
    assert main(["study", "s.yaml"]) == 0
    out = capsys.readouterr().out
    folder = out.splitlines()[-1].removeprefix("study: ")
    assert said["verdict"] in out and str(sw.StudyResult.load(folder)) in out
    names = {path.name for path in (tmp_path / folder).iterdir()}
    assert names == {"study.yaml", "runs.json", "results.csv", "summary.csv"}
    written = (tmp_path / folder / "study.yaml").read_text()
    assert str(tmp_path) not in written, "no absolute path"
    assert main(["study", folder, "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 4


def test_a_run_that_fails_is_an_exit_code(file, capsys, monkeypatch) -> None:
    def breaks(work, number, on_step):
        raise TrainingError("step 1: no number")

    monkeypatch.setattr("stackwise.training.run.train_stage", breaks)
    assert main(["study", file(seeds=[0])]) == 1
    assert "no result: end_to_end, seed 0" in capsys.readouterr().out


def test_a_stopped_one_says_how_to_go_on(file, capsys, monkeypatch) -> None:
    from stackwise.training import run as training

    whole = training.train_stage

    def stops(work, number, on_step):
        work.stop_requested = True
        whole(work, number, on_step)

    monkeypatch.setattr(training, "train_stage", stops)
    assert main(["study", file()]) == 130
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("stackwise: end_to_end stopped and saved; the same study goes on from")
    assert err.endswith("study s.yaml")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sedes": [1]}, "s.yaml: sedes: unknown key; did you mean 'seeds'? known: base, vary, "),
        ({"base": {"rack": {"stacks": 0}}}, "s.yaml: base.rack.stacks: 0 must be 1 or more"),
        ({"base": "toys"}, "s.yaml: base: 'toys' is no preset"),
        ({"more": {"a": 3}}, "s.yaml: more.a: 3 is not a mapping of keys"),
        ({"placement": {"device": "gpu"}}, "s.yaml: placement.device: 'gpu' is not one of"),
        ({"seeds": 3}, "seeds: 3 is not a list of seeds"),
        ({"equal": "hours"}, "equal: 'hours' is neither 'flops', 'tokens' nor 'seconds'"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_with_its_path(file, capsys, changes, expected) -> None:
    assert main(["study", file(**changes)]) == 2
    assert capsys.readouterr().err.startswith(f"stackwise: {expected}")


def test_no_file_and_no_study(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", "none.yaml"]) == 2
    assert "none.yaml: no such file" in capsys.readouterr().err
    assert main(["study", "."]) == 2
    assert "study.yaml: no such file" in capsys.readouterr().err
    with pytest.raises(sw.ExperimentError, match=r"runs\.json: no such file; a study writes it"):
        sw.StudyResult.load(tmp_path)


RATES = [1e-3 + n / 1e6 for n in range(1000)]
ENDLESS = {
    "arms": ({"vary": {f"optim.{key}": RATES for key in ("lr", "min_lr", "clip")}}, "arms"),
    "more": ({"more": {f"m{n}": {"seed": n} for n in range(1001)}}, "arms"),
    "seeds": ({"seeds": list(range(20_000))}, "seeds: over 1000 given"),
    "rates": ({"lr_grid": RATES}, "lr_grid: 1000 rates; give 100 at most"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_study_without_end_is_refused_before_an_arm_is_made(file, capsys, what) -> None:
    changes, said = ENDLESS[what]
    assert main(["study", file(**changes), "--plan"]) == 2
    err = capsys.readouterr().err
    assert (said if said != "arms" else "give over 1000 arms, the most of a study") in err
