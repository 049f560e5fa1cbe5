"""A stage, step or way that there is not is refused by name, and leaves nothing behind."""

from __future__ import annotations

import tempfile

import pytest

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.stepping import Stepper, steps_of


@pytest.fixture
def tiny() -> sw.Experiment:
    return sw.Experiment(
        title="tiny",
        rack={"stacks": 2, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 8 * 4 * 16},
        curriculum="left_to_right",
    )


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("stage", [2, -1, True, "s1"])
def test_a_stage_that_is_none(tiny, scratch, stage) -> None:
    with pytest.raises(ExperimentError, match=f"stage: {stage!r} is no stage; there are 0 to 1"):
        Stepper(tiny, stage)
    assert not list(scratch.iterdir())


def test_a_step_that_is_none(tiny) -> None:
    with pytest.raises(ExperimentError, match="step: 99 is no step of stage 0; there are 0 to"):
        next(steps_of(tiny, 0, 99))


def test_a_way_shorter_than_nothing(tiny) -> None:
    with pytest.raises(ExperimentError, match="lead_steps: -1 must be 0 or more"):
        Stepper(tiny, 1, lead_steps=-1)


def test_what_is_no_experiment(scratch) -> None:
    with pytest.raises(ExperimentError, match="no preset"):
        Stepper("toyy")
    assert not list(scratch.iterdir())


def test_a_rack_that_does_not_fit_is_refused_before_anything_is_made(scratch) -> None:
    with pytest.raises(ExperimentError, match="GiB"):
        Stepper("llama-3-70b")
    assert not list(scratch.iterdir())


def test_what_a_lead_raises_ends_the_attempt(tiny, scratch) -> None:
    def stop(done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stepper(tiny, 1, on_lead=stop)
    assert not list(scratch.iterdir())


def test_a_loss_that_is_no_number_is_said_with_its_step(tiny) -> None:
    from stackwise.training.start import TrainingError

    wild = tiny.replace(optim={"lr": 10.0, "clip": None, "warmup_frac": 0.0})
    with Stepper(wild) as stepper:
        stepper.next_step()
        for parameter in stepper.rack.stacks["s0"].parameters():
            parameter.data.fill_(float("nan"))
        with pytest.raises(TrainingError, match=r"step 2 \(stage 0, s0\): the loss is nan"):
            stepper.next_step()
