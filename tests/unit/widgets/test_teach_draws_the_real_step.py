"""The pictures of a step show its very numbers, and gradient only where it goes."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest

import stackwise as sw
from stackwise.stage import parts_trained, roles
from stackwise.stepping import Stepper
from stackwise_widgets.views.step import moved_said, norm_said, step_html
from stackwise_widgets.views.step_boxes import boxes_of, moved_by
from stackwise_widgets.views.step_numbers import (
    bars_html,
    losses_html,
    memory_html,
    phases_html,
)
from stackwise_widgets.views.step_tokens import step_tokens_html, token_said

CURRICULA = ("end_to_end", "left_to_right", "right_to_left", "grow", "block_coordinate")


@pytest.fixture(autouse=True, scope="module")
def cold():
    """Nothing of memory's peak is measured here, so that warming up for it would be for nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stackwise.memory.meter.warm_up", lambda device: None)
        yield


def tiny(**changes) -> sw.Experiment:
    return sw.Experiment(
        title="tiny",
        rack={"stacks": 3, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 24 * 4 * 16},
    ).replace(**changes)


@pytest.fixture(scope="module", params=CURRICULA)
def taken(request):
    """The experiment, the stage and all phases of one step, in the middle of a curriculum."""
    exp = tiny(curriculum=request.param)
    with Stepper(exp, min(1, len(sw.stages(exp)) - 1)) as stepper:
        yield exp, stepper.stage, stepper.next_step()


def elements(html: str, name: str, **given: str) -> list[ElementTree.Element]:
    """The elements of a picture with these attributes; what is no XML raises."""
    root = ElementTree.fromstring(html)
    found = [each for each in root.iter() if each.tag.rpartition("}")[2] == name]
    return [e for e in found if all(e.get(key.replace("_", "-")) == v for key, v in given.items())]


def test_gradient_is_drawn_to_what_it_reaches_and_to_nothing_else(taken) -> None:
    exp, stage, phases = taken
    drawn = {e.get("data-to") for e in elements(step_html(exp, stage, phases[-1]), "path")} - {None}
    flow, last = phases[-1].flow, phases[-1]
    reached = {box.name for box in boxes_of(exp, stage) if any(flow.get(b) for b in box.blocks)}
    assert drawn == reached | {"final norm, head"}
    role = roles(stage)
    trunk = {stack for stack in stage.path if role[stack] == "trunk"}
    assert not drawn & trunk
    assert all(last.flow[f"{stack}.0"] is None for stack in trunk)


def test_boxes_show_how_parts_stand_and_where_the_phase_is(taken) -> None:
    exp, stage, phases = taken
    trains, role = parts_trained(stage), roles(stage)
    for phase in phases:
        groups = elements(step_html(exp, stage, phase), "g")
        shown = {g.get("data-box"): g for g in groups}
        for part, found in ((p, shown[p]) for p in ("embedding", *stage.path) if p in shown):
            frozen = role.get(part, "trunk")
            assert found.get("data-state") == ("active" if part in trains else frozen)
        here = {name for name, g in shown.items() if g.get("data-present")}
        named = {"final norm, head" if part == "head" else part for part in phase.parts}
        assert named <= here
    assert "tokens" in {g.get("data-box") for g in elements(step_html(exp, stage, phases[0]), "g")}


def test_numbers_come_as_their_phase_does(taken) -> None:
    exp, stage, phases = taken
    before, after = step_html(exp, stage, phases[0]), step_html(exp, stage, phases[-1])
    assert "nats a token" not in before and f"{phases[-1].loss:.4f} nats a token" in after
    for name, norm in phases[-1].grad_norms.items():
        assert norm is None or norm_said(norm) in after, name
    assert "moved by exactly 0" in after or len(parts_trained(stage)) == len(stage.path) + 2


def test_how_far_weights_moved_is_said_alike_in_picture_tables_and_bars(taken) -> None:
    exp, stage, phases = taken
    last = phases[-1]
    picture, bars = step_html(exp, stage, last), bars_html(exp, stage, last)
    for box in boxes_of(exp, stage):
        if (moved := moved_by(box, last)) is not None:
            said = moved_said(moved)
            assert f">moved by {said}<" in picture and f"<td>{said}</td>" in picture
            assert f"of their norm: {said}" in picture
            assert f">{said}<" in bars and f"<td>{said}</td>" in bars


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        (0.0, "exactly 0"),
        (0.000481, "0.048 %"),
        (0.0004999, "0.05 %"),
        (0.0123, "1.2 %"),
        (0.523, "52 %"),
        (1.234, "123 %"),
        (3e-9, "3e-07 %"),
        (math.nan, "not a number"),
        (None, ""),
    ],
)
def test_how_far_weights_moved_has_two_digits(moved, said) -> None:
    assert moved_said(moved) == said


def test_bars_are_the_norms_and_frozen_blocks_have_none(taken) -> None:
    exp, stage, phases = taken
    last, html = phases[-1], bars_html(exp, stage, phases[-1])
    sides = {"sw-gradient-bar": last.grad_norms, "sw-moved-bar": last.relative}
    for kind, values in sides.items():
        shown = {e.get("data-block"): float(e.get("data-value")) for e in
                 elements(html, "rect") if e.get("class") == kind}  # fmt: skip
        assert shown == {name.partition(".")[0]: v for name, v in values.items() if v}
    assert html.count("none: frozen") == 2 * sum(v is None for v in last.grad_norms.values())
    assert not elements(bars_html(exp, stage, phases[0]), "rect")


def test_blocks_of_a_stack_share_a_box_and_have_bars_of_their_own() -> None:
    exp = tiny(rack={"blocks_per_stack": 2})
    with Stepper(exp) as stepper:
        stage, last = stepper.stage, stepper.next_step()[-1]
    one, two = last.grad_norms["s1.0"], last.grad_norms["s1.1"]
    assert f">{norm_said(math.hypot(one, two))}<" in step_html(exp, stage, last)
    bars = elements(bars_html(exp, stage, last), "rect", data_block="s1.1")
    assert [float(bar.get("data-value")) for bar in bars] == [two, last.relative["s1.1"]]


def test_masked_tokens_are_boxes_and_counted_ones_get_their_loss(taken) -> None:
    _, _, phases = taken
    mask, loss = phases[1], next(phase for phase in phases if phase.name == "loss")
    tokens = loss.tokens
    for sample in (0, 3):
        hidden = step_tokens_html(mask, sample).count(" sw-hidden")
        assert hidden == int(mask.tokens.masked_BT[sample].sum())
        html = step_tokens_html(loss, sample)
        cells = [e for e in elements(html, "span") if "sw-cell-token" in e.get("class")]
        for place in np.flatnonzero(tokens.counted_BT[sample]).tolist():
            nats = tokens.nats_BT[sample, place]
            assert cells[place].find("small").text == f"{nats:.1f}"
            true = token_said(tokens, int(tokens.ids_BT[sample, place]))
            assert cells[place].find("b").text == true
            assert f"probability {math.exp(-nats):.3g}" in cells[place].get("title")
    assert "sw-hidden" not in step_tokens_html(phases[0])


def test_memory_is_drawn_by_category_and_what_is_kept_by_shape(taken) -> None:
    _, _, phases = taken
    active = next(phase for phase in phases if phase.name == "active")
    html = memory_html(active)
    shown = {e.get("data-category"): int(e.get("data-bytes")) for e in elements(html, "rect")}
    assert shown == {name: size for name, size in active.memory.items() if size}
    rows = [e for e in elements(html, "tr") if e.find("td") is not None]
    assert len(rows) == len(active.kept) > 3


def test_the_present_phase_is_marked_for_those_who_listen(taken) -> None:
    _, _, phases = taken
    for phase in phases:
        items = elements(phases_html(phase, phase.names), "li")
        assert [e.get("aria-current") for e in items].index("step") == phase.number


def test_a_curve_of_many_losses_keeps_its_ends_and_says_the_last() -> None:
    losses = [(n, 5.0 - n / 1000) for n in range(2000)]
    html = losses_html(losses)
    (line,) = elements(html, "path")
    assert line.get("d").count("L") == 299 and "3.0010" in html and "step 1 to 2000" in html
    assert len(html) < 12_000
    assert "is drawn here" in losses_html([])


def test_a_deep_rack_stays_a_small_picture() -> None:
    exp = tiny(rack={"stacks": 80}, curriculum="left_to_right", budget={"tokens": 400 * 4 * 16})
    stage = sw.stages(exp)[60]
    names = [box.name for box in boxes_of(exp, stage)]
    assert names[3:6] == ["s0 to s59", "s60", "s61 to s79"]
    assert len(step_html(exp, stage)) < 12_000 and len(bars_html(exp, stage, None)) < 12_000


def test_a_sample_that_is_none_is_refused(taken) -> None:
    with pytest.raises(ValueError, match="sample: 4 must be 0 to 3"):
        step_tokens_html(taken[2][0], 4)


def test_text_from_strangers_stays_text(taken) -> None:
    exp, stage, phases = taken
    hostile = stage.model_copy(update={"name": '<script>"&'})
    assert "<script" not in step_html(exp, hostile)
    from dataclasses import replace

    texts = dict.fromkeys(phases[1].tokens.texts, "<b>&")
    phase = replace(phases[-1], tokens=replace(phases[-1].tokens, texts=texts))
    html = step_tokens_html(phase)
    assert "&lt;b&gt;&amp;" in html and elements(html, "span")
