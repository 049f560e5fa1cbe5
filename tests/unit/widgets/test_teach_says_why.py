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
    half = told(2, curriculum="left_to_right", precision={"border": "bfloat16"})["trunk"]
    assert "512 B per sample" in half
    twice = told(2, curriculum="left_to_right", objective="block_diffusion")["trunk"]
    assert "1.8 KiB per sample" in twice  # the clean text, its last block aside, is read beside
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


def test_each_start_of_a_new_stack_is_said() -> None:
    noisy = {"name": "grow", "init": "copy+noise", "noise": 0.02}
    assert "s1 is a copy of s0 with noise of 0.02" in told(1, curriculum=noisy)["grow"]
    between = {"name": "grow", "by": "one", "place": "middle", "init": "interpolate", "start": 2}
    assert (
        "s1 is halfway between s0 and s2, weight by weight" in told(1, curriculum=between)["grow"]
    )
    kept = {"name": "one_hop", "init": "zero_output"}
    said = told(1, curriculum=kept)["grow"]
    assert "s2 is fresh, with output weights at zero" in said and "changes no output" in said
    assert "better start" not in said
    assert (
        "New among them, and random at first: s1 and s2." in told(1, curriculum="one_hop")["whole"]
    )


def test_a_copy_on_a_frozen_trunk_does_not_say_that_all_trains() -> None:
    found = told(2, curriculum={"name": "left_to_right", "init": "copy"})
    assert found.keys() == {"trunk", "grow"}
    assert "s2 alone can move; the other stacks stand still" in found["grow"]
    assert "All stacks of the path train" not in found["grow"]


def test_of_many_new_stacks_some_are_named() -> None:
    many = {"rack.stacks": 16, "curriculum": {"name": "one_hop", "init": "copy"}}
    said = told(1, **many)["grow"]
    assert "s1 is a copy of s0, and so on up to s15 is a copy of s0" in said and "s7" not in said


def test_a_step_that_runs_some_of_the_stacks_says_which() -> None:
    found = told(0, curriculum={"name": "subnetwork", "lengths": (2, 3)}, **{"rack.stacks": 4})
    assert found.keys() == {"drawn"}
    assert "2 of 4, drawn anew for each step: s0 and s3." in found["drawn"]
    inside = told(1, curriculum={"name": "subnetwork", "lengths": (2, 3)}, **{"rack.stacks": 4})
    assert "s0, s3 and 1 more" in inside["drawn"] and "what 3 stacks cost" in inside["drawn"]
    whole = told(1, curriculum={"name": "subnetwork", "lengths": (2, 4)}, **{"rack.stacks": 4})
    assert whole.keys() == {"whole"}


def test_a_stack_that_trains_alone_leaves_out_the_others_that_are_there() -> None:
    banded = {"curriculum": "diffusion_blocks", "masking": {"bands": "equal_mass"}}
    assert told(0, **banded)["whole"] == "Nothing: s0 trains, the only stack that is there yet."
    found = told(2, **banded)
    assert found.keys() == {"band", "alone"}
    assert found["alone"].startswith("s0 and s1 are in the rack and do not move")
    assert "from the embedding through s2 to the head" in found["alone"]
    assert "1 of 3 stacks" in found["alone"]
    assert told(1, curriculum="independent").keys() == {"alone"}


def test_stacks_that_are_no_neighbours_are_not_said_to_be_a_row() -> None:
    banded = {"curriculum": "diffusion_blocks", "masking": {"bands": "equal_mass"}}
    said = told(15, **banded, **{"rack.stacks": 12})["alone"]  # the second visit of s3
    assert said.startswith("s0 to s2 and s4 to s11 are in the rack")


def test_a_rack_of_which_the_head_alone_trains() -> None:
    found = told(0, curriculum={"name": "fusion", "train": "head"}, start="runs/another")
    assert found.keys() == {"trunk"}
    assert "A step then costs what the head costs" in found["trunk"]
    joined = told(3, curriculum="independent")["trunk"]
    assert "No gradient reaches the embedding, s0, s1 and s2" in joined
    assert "what the head costs" in joined


def test_embedding_and_head_alone() -> None:
    said = told(0, curriculum={"name": "one_hop", "source": 0})["whole"]
    assert "straight to the head, and both train" in said
    assert "the next stage adds s0, s1 and s2" in said


def test_what_goes_on_with_a_model_is_not_called_the_control() -> None:
    assert "control" not in told(0, curriculum="fusion", start="runs/another")["whole"]


def test_a_frozen_embedding_is_not_said_to_train() -> None:
    last = told(2, curriculum={"name": "gradual_unfreezing", "embedding": "never"})["whole"]
    assert "The embedding stands still" in last
