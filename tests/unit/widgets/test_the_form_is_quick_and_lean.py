"""A change is read and drawn well within a blink, by few widgets, and none of them is left over."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from ipywidgets.widgets.widget import _instances

import stackwise as sw
from stackwise_widgets.form import Form

MOST_CPU_SECONDS = 0.05
FEW, MOST = 100, 400  # models in the browser: at first, and with everything open and explained


def cpu_seconds(do: Callable[[int], object], times: int = 20) -> float:
    began = time.process_time()
    for number in range(times):
        do(number)
    return (time.process_time() - began) / times


def opened(preset: str) -> Form:
    form = Form(sw.Experiment.preset(preset), sw.Placement.preset(preset))
    for fold in form._board._folds:
        fold.button.value = True
    return form


@pytest.mark.parametrize("preset", ["toy", "llama-3-70b", "405b"])
def test_a_change_takes_no_time(preset: str) -> None:
    form = opened(preset)
    lr = form.field("optim.lr")

    def change(number: int) -> None:
        lr.value = f"{1 + number}e-5"

    assert cpu_seconds(change) < MOST_CPU_SECONDS
    assert form.problems == ()


def test_another_kind_or_preset_takes_no_time() -> None:
    form = opened("toy")
    kinds = ("kernel", "mla", "mha")

    def change(number: int) -> None:
        form.field("attention").value = kinds[number % 3]

    assert cpu_seconds(change) < MOST_CPU_SECONDS
    names = ("405b", "toy")
    assert cpu_seconds(lambda number: form.use(names[number % 2])) < 2 * MOST_CPU_SECONDS


def test_few_widgets_at_first_and_not_many_at_last() -> None:
    before = len(_instances)
    form = Form(sw.Experiment.preset("toy"))
    assert len(_instances) - before < FEW
    for fold in form._board._folds:
        fold.button.value = True
    form._top.explain.value = True
    assert len(_instances) - before < MOST


def test_nothing_is_left_over() -> None:
    before = set(_instances)
    form = opened("toy")
    form._top.explain.value = True
    form._top.explain.value = False
    settled = len(_instances)
    for _ in range(3):
        for path, there, back in (
            ("attention", "kernel", "mha"),
            ("curriculum", "grow", "end_to_end"),
            ("optim.lr", "fast", "0.005"),
            ("rack.rope_scaling", True, False),
        ):
            form.field(path).value = there
            form.field(path).value = back
        form.use("405b")
        form.use("toy")
    assert len(_instances) <= settled + 4  # an empty box stays below each kind and section used
    form.close()
    assert set(_instances) == before


def test_a_form_that_could_not_be_made_leaves_nothing_that_raises() -> None:
    with pytest.raises(ValueError, match="is no knob"):
        Form(sw.Experiment.preset("toy"), hide=["nothing"])
