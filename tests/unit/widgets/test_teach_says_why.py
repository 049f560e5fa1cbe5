"""What layer-wise training turns on is said of the stage at hand, in words made of its facts."""

from __future__ import annotations

import stackwise as sw
from stackwise.stepping import why_of
from stackwise_widgets.views.step_numbers import why_html

BASE = sw.Experiment(
    title="tiny",
    rack={"stacks": 3, "d_model": 16, "heads": 2},
    data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
    optim={"batch": 4},
    budget={"tokens": 24 * 4 * 16},
)


def told(number: int, **changes) -> dict[str, str]:
    exp = BASE.replace(**changes)
    return {why.about: why.answer for why in why_of(exp, sw.stages(exp), number)}


def test_a_trunk_can_be_cached_since_nothing_reaches_or_moves_it() -> None:
    found = told(2, curriculum="left_to_right")
    assert found.keys() == {"trunk"}
    said = found["trunk"]
    assert "No gradient reaches the embedding, s0 and s1" in said
    assert "their weights do not move in this stage" in said
    assert "1.0 KiB per sample" in said  # 16 tokens of 16 numbers of 4 bytes
    assert "placement.trunk=cached" in said


def test_a_suffix_cannot_since_what_goes_into_it_moves() -> None:
    found = told(2, curriculum="right_to_left")
    assert found.keys() == {"suffix"}
    said = found["suffix"]
    assert "What goes into s1 comes out of s0, which moves with every step" in said
    assert "carried back through every block of s1 and s2" in said
    assert "placement.trunk=streamed" in said


def test_a_stage_in_the_middle_has_both() -> None:
    found = told(1, curriculum="block_coordinate")
    assert found.keys() == {"trunk", "suffix"}
    assert "the embedding and s0" in found["trunk"] and "out of s1" in found["suffix"]


def test_depth_is_time_where_bands_say_so() -> None:
    found = told(1, curriculum="right_to_left", masking={"bands": [0.2, 0.6]})
    said = found["band"]
    assert "over 20% and up to 60%" in said and "s1 → s2" in said
    assert (
        "up to 20% masked: s2; up to 60% masked: s1 → s2; up to 100% masked: s0 → s1 → s2" in said
    )
    assert "depth is time" in said


def test_new_stacks_say_what_they_are_copies_of() -> None:
    said = told(1, curriculum="grow")["grow"]
    assert "s1 is a copy of s0" in said and "nothing can be cached" in said


def test_where_nothing_is_frozen_it_says_what_comes() -> None:
    assert (
        "s0 will be frozen and the next stage adds s1"
        in told(0, curriculum="left_to_right")["whole"]
    )
    assert "the control" in told(0, curriculum="end_to_end")["whole"]


def test_questions_are_headings_and_all_of_it_is_escaped() -> None:
    whys = why_of(BASE.replace(curriculum="left_to_right"), sw.stages(BASE), 0)
    html = why_html([type(whys[0])("trunk", "a < b?", "<i>")])
    assert "a &lt; b?" in html and "&lt;i&gt;" in html and 'data-about="trunk"' in html
