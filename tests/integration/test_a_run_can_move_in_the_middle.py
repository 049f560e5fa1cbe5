"""Another placement for a run that is under way takes effect, is written down, and is an event."""

from __future__ import annotations

import numpy as np
import pytest

import stackwise as sw
from stackwise.cli import main
from stackwise.training.start import create_run


def stop_at(step: int):
    def on_step(work, numbers):
        work.stop_requested = work.at.total_steps == step

    return on_step


def placement_of(run: sw.Run) -> sw.Placement:
    return sw.Placement.load(run.path / "placement.yaml")


def kept(run: sw.Run, stage: int) -> float:
    """Measured activations of a stage."""
    memory = run.memory()
    rows = (memory["stage"] == stage) & (memory["category"] == "activations")
    return float(memory[rows]["measured"].iloc[0])


@pytest.fixture
def exp(tiny) -> sw.Experiment:
    return tiny.replace(curriculum={"name": "left_to_right", "split": "tokens"})


def test_training_again_with_another_placement_moves_the_run(exp, place) -> None:
    whole = sw.train(exp, place)
    run = create_run(exp, place, rerun=True)
    sw.resume(run, on_step=stop_at(6))
    sw.resume(run, placement=place.replace(micro_batch=1))
    assert run.state == "finished"
    (event,) = run.events("placement_changed")
    assert event["changed"] == {"micro_batch": [None, 1]}
    assert placement_of(run) == placement_of(whole).replace(micro_batch=1)
    # Sums over a batch in another order, as in test_placement_changes_no_number.py.
    np.testing.assert_allclose(whole.metrics()["loss"], run.metrics()["loss"], rtol=1e-4)
    assert kept(run, 3) < kept(whole, 3) / 2
    predicted = [row["bytes"]["activations"] for row in run.plan()]
    before = [row["bytes"]["activations"] for row in whole.plan()]
    assert predicted[0] == before[0], "the stage that was done by then"
    assert predicted[3] < before[3] / 2


def test_train_takes_it_for_a_run_that_is_there(exp, place) -> None:
    stopped = sw.train(exp, place, on_step=stop_at(6))
    run = sw.train(exp, place.replace(checkpointing=True))
    assert run.id == stopped.id and run.state == "finished"
    assert run.events("placement_changed")[0]["changed"] == {"checkpointing": [False, True]}
    assert placement_of(run).checkpointing


def test_without_one_it_goes_on_as_before(exp, place, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = sw.train(exp, place.replace(micro_batch=2), on_step=stop_at(6))
    assert sw.train(exp).id == run.id
    assert run.state == "finished" and placement_of(run).micro_batch == 2
    assert not run.events("placement_changed")


def test_keys_change_only_what_they_name(exp, place) -> None:
    run = sw.train(exp, place.replace(checkpointing=True), on_step=stop_at(6))
    sw.resume(run, placement={"micro_batch": 2})
    assert run.events("placement_changed")[0]["changed"] == {"micro_batch": [None, 2]}
    assert placement_of(run).checkpointing


def test_the_command_line_says_the_same(exp, place, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = sw.train(exp, place, on_step=stop_at(6))
    assert main(["resume", run.id, "placement.micro_batch=2"]) == 0
    assert run.state == "finished" and placement_of(run).micro_batch == 2


def test_data_that_was_moved_is_named_from_here(exp, place, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 200)
    run = sw.train(exp.replace(data="text:text.txt"), place, on_step=stop_at(6))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "text.txt").rename(tmp_path / "elsewhere" / "text.txt")
    sw.resume(run, placement={"data_dir": "elsewhere"})
    assert run.state == "finished"
    assert placement_of(run).data_dir == "../../elsewhere"


def test_a_second_process_changes_nothing(exp, place) -> None:
    def on_step(work, numbers):
        if work.at.total_steps == 2:
            with pytest.raises(RuntimeError, match="is training it"):
                sw.resume(sw.Run(work.run.path), placement={"micro_batch": 1})

    run = sw.train(exp, place, on_step=on_step)
    assert placement_of(run).micro_batch is None and not run.events("placement_changed")


WRONG = {
    "an unknown key": ({"micro": 1}, "placement.micro: unknown key; did you mean 'micro_batch'"),
    "a value out of range": ({"micro_batch": 0}, "placement.micro_batch: 0 must be 1 or more"),
    "another place for the run": (
        {"runs_dir": "x"},
        "placement.runs_dir: 'x', but the run is there already; move its folder instead",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_one_is_refused(exp, place, case) -> None:
    change, text = WRONG[case]
    run = create_run(exp, place)
    with pytest.raises(sw.ExperimentError) as caught:
        sw.resume(run, placement=change)
    assert str(caught.value).startswith(text)
    assert run.state == "made"


@pytest.mark.parametrize("change", ["optim.lr=1", "placement", "placement=cpu x"])
def test_only_the_placement_of_a_run_can_be_changed(
    exp, place, change, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    run = create_run(exp, place)
    assert main(["resume", run.id, *change.split()]) == 2
    assert "stackwise: " in capsys.readouterr().err
    assert run.state == "made"


def test_a_run_is_found_by_its_id_and_an_experiment_by_its_preset(
    tiny, place, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where `place` has its folder `runs`
    run = sw.train(tiny, place)
    assert sw.resume(run.id).path.resolve() == sw.resume(run.path).path.resolve()
    with pytest.raises(ValueError, match=rf"^nope: no such run in runs; there are: {run.id}$"):
        sw.resume("nope")
    with pytest.raises(ValueError, match=r"^experiment: 'toyy' is no preset"):
        sw.train("toyy")
    with pytest.raises(ValueError, match=r"^placement\.device: 'rc' is not one of"):
        sw.train("toy", "rc")
