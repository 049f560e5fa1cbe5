"""A teacher hides controls and parts by name; a slip is refused, and so is what is not there."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.report import bytes_text
from stackwise_widgets import Workbench
from stackwise_widgets.lesson import Lesson
from stackwise_widgets.teach import CONTROLS, PARTS, SHOWN, Teach


@pytest.fixture(autouse=True, scope="module")
def cold():
    """Nothing of memory's peak is measured here, so that warming up for it would be for nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stackwise.memory.meter.warm_up", lambda device: None)
        yield


@pytest.fixture
def exp() -> sw.Experiment:
    return sw.Experiment(
        title="tiny",
        rack={"stacks": 2, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 6 * 4 * 16},
        curriculum="left_to_right",
    )


def inside(widget) -> set[str]:
    """The ids of a widget and all that is in it."""
    found = {widget.model_id}
    for child in getattr(widget, "children", ()):
        found |= inside(child)
    return found


def widget_of(teach: Teach, name: str):
    return teach.buttons.get(name) or teach.parts.get(name) or getattr(teach, name)


@pytest.fixture
def unopened(monkeypatch) -> None:
    """What is there does not depend on a step."""
    monkeypatch.setattr(Lesson, "begin", lambda self, stage, seed, on_lead: None)


@pytest.mark.parametrize("name", PARTS)
def test_what_is_hidden_is_not_there_and_the_rest_is(exp, name, unopened) -> None:
    teach = Teach(exp, hide=[name])
    there = inside(teach)
    shown = {each for each in PARTS if widget_of(teach, each).model_id in there}
    assert shown == set(PARTS) - {name}
    teach.close()


def test_all_controls_can_be_hidden_for_a_lesson_that_is_played_from_code(exp) -> None:
    teach = Teach(exp, hide=CONTROLS)
    try:
        there = inside(teach)
        assert all(widget_of(teach, name).model_id not in there for name in CONTROLS)
        assert all(widget_of(teach, name).model_id in there for name in SHOWN)
        teach.next_step()
        assert teach.settle() and teach.phase.is_last and teach.errors == []
    finally:
        teach.close()


def test_a_slip_is_named_with_the_closest(exp) -> None:
    with pytest.raises(ValueError, match="hide: 'plya' is no part; did you mean 'play'"):
        Teach(exp, hide=["stage", "plya"])


def test_a_stage_or_sample_that_is_none_is_refused(exp) -> None:
    with pytest.raises(ValueError, match="stage: 2 is no stage; there are 0 to 1"):
        Teach(exp, 2)
    with pytest.raises(ValueError, match="sample: 4 is no sample of a batch; there are 0 to 3"):
        Teach(exp, sample=4)


def test_a_preset_that_is_none_is_refused() -> None:
    with pytest.raises(sw.ExperimentError, match="toyy"):
        Teach("toyy")


@pytest.fixture
def small_machine(monkeypatch):
    """2 GiB, so that little is of a rack that is too large."""
    monkeypatch.setattr("stackwise.memory.room.machine_bytes", lambda: 2 << 30)


@pytest.mark.usefixtures("small_machine")
def test_a_rack_that_does_not_fit_says_so_in_the_panel() -> None:
    teach = Teach("8b", placement=sw.Placement(device="cpu"))
    try:
        assert teach.settle()
        assert len(teach.errors) == 1 and "this machine has 2.0 GiB" in teach.guard.card.value
        assert "can be taken here" in teach.told.value
        assert "s0" in teach.parts["picture"].value  # what the step would be is shown all the same
        teach.buttons["step"].click()
        assert teach.settle() and teach.phase is None
    finally:
        teach.close()


@pytest.mark.usefixtures("small_machine")
def test_where_the_plan_has_a_smaller_figure_both_are_said(exp) -> None:
    large = exp.replace(
        rack={"stacks": 12, "blocks_per_stack": 1, "d_model": 2048, "heads": 16},
        optim={"batch": 1},
        budget={"tokens": 16 * 1000},
    )
    place = sw.Placement(device="cpu", trunk="streamed", micro_batch=1)
    whole = sw.plan(large, place.replace(trunk="recompute")).peak_bytes
    lent = sw.plan(large, place).peak_bytes
    assert lent < 2 << 30  # a run fits
    bench = Workbench(large, place, warm=False)
    bench.go_to("Teach")
    assert bench.design.settle() and bench.panel.settle()
    (found,) = bench.errors
    said = str(found.error)
    assert f"{bytes_text(whole)} by arithmetic, and this machine has 2.0 GiB" in said
    assert f"The plan's {bytes_text(lent)} are of a run with placement.trunk=streamed" in said
    assert "Teach holds all of it in this process" in bench.panel.guard.card.value
    bench.panel.close()
    bench.design.close()


def test_every_control_has_a_name_to_be_read_out(exp, unopened) -> None:
    teach = Teach(exp)
    try:
        assert all(button.description and button.tooltip for button in teach.buttons.values())
        fields = (teach.stage, teach.seed, teach.speed, teach.sample)
        assert all(field.description for field in fields)
        assert 'role="status"' in teach.told.value
    finally:
        teach.close()
