"""Design: stages, plan and masks are those of what the form says, soon after each change."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import stackwise as sw
from stackwise.planner import advice as advice_module
from stackwise.planner import plan as plan_module
from stackwise_widgets import Design
from stackwise_widgets import design as design_module
from stackwise_widgets.views import attention_pattern_html, grid_html, plan_html
from stackwise_widgets.views.markup import apart


@pytest.fixture
def design() -> Iterator[Design]:
    made = Design("toy")
    assert made.settle()
    yield made
    made.close()
    assert made.errors == []


def is_current(design: Design) -> bool:
    exp, place, plan = design.experiment, design.placement, design.plan
    asked = sw.plan(exp, place, hardware=design.hardware.value)
    return (
        (plan.rows, plan.placement) == (asked.rows, asked.placement)  # what disk is free may move
        and design.pictures["Stages"].value
        == apart(grid_html(exp, plan.placement, sw.stages(exp), plan.rows), "d")
        and design.pictures["Plan"].value == apart(plan_html(plan), "d")
        and design.pictures["Attention"].value == apart(attention_pattern_html(exp), "d")
    )


@pytest.mark.parametrize(
    ("path", "text"),
    [("curriculum", "right_to_left"), ("attention", "mla"), ("placement.micro_batch", "4")],
)
def test_each_change_is_drawn(design, path, text) -> None:
    before = {name: widget.value for name, widget in design.pictures.items()}
    design.form.write(path, text)
    assert design.settle() and is_current(design)
    assert before != {name: widget.value for name, widget in design.pictures.items()}


def test_the_text_and_the_machine_are_ones_own(design) -> None:
    design.text.value = "mine own words"
    design.hardware.value = "h200"
    assert design.settle() and is_current(design)
    assert "of 14 tokens are masked" in design.pictures["Masks"].value
    assert design.plan.hardware.name == "h200"


def test_of_many_changes_the_last_counts(design) -> None:
    for rate in range(1, 40):
        design.form.write("optim.lr", f"{rate}e-4")
    assert design.settle() and is_current(design)
    assert design.experiment.optim.lr == pytest.approx(39e-4)


def test_what_is_wrong_is_said_and_the_last_pictures_stay(design) -> None:
    before = design.pictures["Stages"].value
    design.form.write("optim.lr", "fast")
    design.settle()
    assert [str(problem) for problem in design.problems] == ["optim.lr: 'fast' is not a number"]
    assert "1 problem in the form" in design.summary.value
    assert design.pictures["Stages"].value == before
    with pytest.raises(sw.ExperimentError, match=r"optim\.lr"):
        _ = design.plan
    design.form.write("optim.lr", "0.001")
    assert design.settle() and design.problems == () and design.summary.value == ""


def test_a_curriculum_that_cannot_be_is_said_at_its_field(design) -> None:
    def broken(exp: sw.Experiment):
        yield sw.Stage(path=("s9",))

    sw.CURRICULA["broken"] = broken
    try:
        design.form.refresh()
        design.form.write("curriculum", "broken")
        design.settle()
        assert "not a stack of the rack" in str(design.problems[0])
        assert "not a stack of the rack" in design.form.message("curriculum") + design.form.message(
            ""
        )
        design.form.write("curriculum", "grow")
        assert design.settle()
    finally:
        del sw.CURRICULA["broken"]


def test_it_can_be_set_from_code(design) -> None:
    design.experiment = sw.Experiment.preset("small").replace(seed=3)
    design.placement = sw.Placement(micro_batch=2)
    assert design.settle() and is_current(design)
    assert (design.experiment.seed, design.placement.micro_batch) == (3, 2)
    assert len(design.data()) == len(sw.stages(design.experiment))


def test_what_is_taken_away_follows(design) -> None:
    design.form.write("seed", "11")
    assert design.taken["Python"].value == design.code()
    assert "seed=11" in design.taken["Command line"].value == design.command()
    assert "seed: 11" in design.taken["YAML"].value == design.yaml()


def test_a_change_returns_before_anything_is_worked_out(design, monkeypatch) -> None:
    """How soon it is drawn is `benchmarks/design.py`'s."""
    going_on = threading.Event()
    real = design_module.answer

    def late(question):
        assert going_on.wait(30)
        return real(question)

    monkeypatch.setattr(design_module, "answer", late)
    before = design.pictures["Stages"].value
    design.form.write("curriculum", "right_to_left")
    assert design.pictures["Stages"].value == before
    going_on.set()
    assert design.settle() and is_current(design)


def test_a_plan_of_70b_is_worked_out_once_for_each_change_that_may_help(monkeypatch) -> None:
    """It does not fit here, and what would is found by so many plans."""
    asked, real = [], plan_module.needs

    def counted(*arguments, **more):
        asked.append((*arguments, more["machine"].name))
        return real(*arguments, **more)

    monkeypatch.setattr(plan_module, "needs", counted)
    monkeypatch.setattr(advice_module, "needs", counted)
    design = Design("llama-2-70b", hardware="h200")
    design.placement = sw.Placement(checkpointing=False)
    assert design.settle()
    asked.clear()
    design.form.write("curriculum", "right_to_left")
    assert design.settle() and design.plan.advice
    assert len(asked) > 1 and len(set(map(str, asked))) == len(asked)
    design.close()


@pytest.mark.parametrize("name", ["Stages", "Masks", "take_away"])
def test_a_picture_can_be_hidden(name) -> None:
    shown, hidden = Design("toy"), Design("toy", hide=[name, "optim"])
    right = [len(made.children[-1].children[1].children) for made in (shown, hidden)]
    assert right[1] < right[0]
    assert hidden.settle() and hidden.errors == []


def test_a_slip_in_what_is_hidden_is_told() -> None:
    with pytest.raises(ValueError, match="'Stagse' is no knob"):
        Design("toy", hide=["Stagse"])
    with pytest.raises(ValueError, match="'optin' is no knob"):
        Design("toy", hide=["optin"])
