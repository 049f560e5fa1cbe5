"""Tokens, FLOPs or a time, exactly one: filling in one empties the others."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise_widgets.form import Form


@pytest.fixture
def form() -> Form:
    return Form(sw.Experiment.preset("toy"), sw.Placement.preset("toy"))


def sides(form: Form) -> tuple[str, str]:
    found = tuple(form.field(f"budget.{key}").value for key in ("tokens", "flops"))
    assert found == (form.text["budget.tokens"], form.text["budget.flops"])
    return found


def test_one_empties_the_other_in_one_change(form: Form) -> None:
    told: list[object] = []
    form.on_change(told.append)
    assert sides(form) == ("", "3.5e12")
    form.field("budget.tokens").value = "2e6"
    assert sides(form) == ("2e6", "")
    assert form.experiment == sw.Experiment.preset("toy").replace(budget={"tokens": 2_000_000})
    form.field("budget.flops").value = "1e9"
    assert sides(form) == ("", "1e9")
    assert form.problems == ()
    assert len(told) == 2


def test_a_time_empties_the_others(form: Form) -> None:
    form.field("budget.hours").value = "2.5"
    assert sides(form) == ("", "")
    assert form.experiment.budget == sw.Experiment(budget={"hours": 2.5}).budget
    form.field("budget.days").value = "3"
    assert form.text["budget.hours"] == ""
    assert form.experiment.budget.seconds == 3 * 86_400
    assert form.problems == ()


def test_none_is_said_and_so_is_a_wrong_one(form: Form) -> None:
    form.field("budget.flops").value = ""
    assert sides(form) == ("", "")
    assert [str(p) for p in form.problems] == [
        "budget: neither tokens nor flops is given, and no days, hours or minutes; give exactly one"
    ]
    form.field("budget.tokens").value = "many"
    assert "Problem: &#x27;many&#x27; is not a whole number" in form.message("budget.tokens")
    assert form.experiment == sw.Experiment.preset("toy")


@pytest.mark.parametrize("path", ["budget.tokens", "budget.flops"])
def test_putting_back_one_side_puts_back_both(form: Form, path: str) -> None:
    form.field("budget.tokens").value = "1000"
    assert form.changed == ["budget.tokens", "budget.flops"]
    form.reset(path)
    assert sides(form) == ("", "3.5e12")
    assert form.changed == []


def test_both_are_main_knobs_below_a_head_that_says_so(form: Form) -> None:
    assert "exactly one of these" in form.message("budget")
