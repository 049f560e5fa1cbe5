"""Observers hear what the fields say, once for each change, also when a form is filled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import stackwise as sw
from stackwise_widgets.form import Form, Reading


@pytest.fixture
def form() -> Form:
    return Form(sw.Experiment.preset("toy"), sw.Placement.preset("toy"))


@pytest.fixture
def told(form: Form) -> list[Reading]:
    heard: list[Reading] = []
    form.on_change(heard.append)
    return heard


def test_a_valid_change_tells_the_values(form: Form, told: list[Reading]) -> None:
    form.field("optim.lr").value = "3e-4"
    form.field("placement.threads").value = "2"
    form.field("rack.tied").value = True
    assert [reading.problems for reading in told] == [(), (), ()]
    assert [reading.experiment.optim.lr for reading in told] == [3e-4] * 3
    assert [reading.placement.threads for reading in told] == [None, 2, 2]
    assert told[-1].experiment == form.experiment and form.experiment.rack.tied
    assert told[-1] == form.reading


def test_an_invalid_change_tells_the_problems(form: Form, told: list[Reading]) -> None:
    form.field("optim.lr").value = "fast"
    assert told[0].experiment is None
    assert told[0].placement == form.placement
    assert [str(p) for p in told[0].problems] == ["optim.lr: 'fast' is not a number"]
    assert form.experiment == sw.Experiment.preset("toy")


def test_filling_is_one_change(form: Form, told: list[Reading]) -> None:
    form.experiment = sw.Experiment.preset("llama-3-70b")
    assert len(told) == 1 and told[0].experiment == form.experiment
    assert told[0].placement == sw.Placement.preset("toy")  # an experiment fills its own fields
    form.placement = sw.Placement(threads=2)
    assert len(told) == 2 and form.placement == sw.Placement(threads=2)
    form.use("small")
    assert len(told) == 3 and form.preset == "small"
    form.fill(sw.Experiment.preset("1b"), sw.Placement.preset("1b"))
    assert len(told) == 4


def test_what_is_not_filled_stays_as_it_was_typed(form: Form, told: list[Reading]) -> None:
    form.field("placement.threads").value = "two"
    form.experiment = sw.Experiment.preset("small")
    assert form.field("placement.threads").value == "two"
    assert [p.path for p in form.problems] == ["placement.threads"]
    form.field("attention").value = "mla"
    form.field("attention.kv_rank").value = "eight"
    form.placement = sw.Placement(threads=1)
    assert form.field("attention.kv_rank").value == "eight"
    assert form.field("placement.threads").value == "1"
    assert [p.path for p in form.problems] == ["attention.kv_rank"]
    assert form.preset == "small" and form.experiment == sw.Experiment.preset("small")


def test_the_preset_list_is_one_change(form: Form, told: list[Reading]) -> None:
    form.field("optim.lr").value = "fast"
    form._top.preset.value = "gpt2-small"
    assert len(told) == 2
    assert (form.experiment, form.placement) == (
        sw.Experiment.preset("gpt2-small"), sw.Placement.preset("gpt2-small"),
    )  # fmt: skip
    assert form.problems == ()


def test_another_kind_is_one_change(form: Form, told: list[Reading]) -> None:
    form.field("attention").value = "kernel"
    form.field("curriculum").value = "grow"
    form.field("rack.rope_scaling").value = True
    assert len(told) == 3


def test_resetting_is_one_change(form: Form, told: list[Reading]) -> None:
    form.field("attention").value = "kernel"
    form.field("optim.lr").value = "1"
    form.reset()
    assert len(told) == 3
    assert form.experiment == sw.Experiment.preset("toy")


def test_looking_is_no_change(form: Form, told: list[Reading]) -> None:
    form.refresh()
    form._top.find.value = "lr"
    form._top.explain.value = True
    form.show([])
    assert told == []


def test_one_who_left_hears_no_more(form: Form) -> None:
    heard: list[Reading] = []
    leave = form.on_change(heard.append)
    leave()
    leave()
    form.field("seed").value = "1"
    assert heard == []


def test_every_handler_goes_through_the_wrapper() -> None:
    calls: list[str] = []

    def wrap(handler: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            calls.append(handler.__name__)
            return handler(*args)

        return wrapped

    form = Form(sw.Experiment.preset("toy"), wrap=wrap)
    assert calls == []
    form.field("seed").value = "5"
    form._board.rows["seed"]._mark.click()
    form._top.preset.value = "small"
    form.field("seed").value = "5"
    form._top.reset.click()
    form._top.find.value = "lr"
    form._top.explain.value = True
    form._top.find.value = ""
    fold = form._board._folds[0]
    fold.button.value = not fold.is_open
    form._repr_mimebundle_()
    assert calls == [
        "write", "reset", "use", "write", "reset", "_draw", "_draw", "_draw", "_draw", "refresh",
    ]  # fmt: skip


def test_what_a_wrapper_swallows_does_not_stop_the_form() -> None:
    errors: list[Exception] = []

    def wrap(handler: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> None:
            try:
                handler(*args)
            except RuntimeError as error:
                errors.append(error)

        return wrapped

    def raising(reading: Reading) -> None:
        raise RuntimeError("a panel's own")

    form = Form(sw.Experiment.preset("toy"), wrap=wrap)
    form.on_change(raising)
    form.field("seed").value = "5"
    assert len(errors) == 1
    assert form.experiment.seed == 5 and form._board.rows["seed"].marked
