"""A stage by itself: what it may say, who trains in it, and which noise its path answers for."""

import pytest

from stackwise import ExperimentError, NewStack, Stage
from stackwise.stage import band_paths, roles

ABC = ("a", "b", "c")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "path: is missing; give it"),
        (
            {"path": (), "embedding": False, "head": False},
            "active: nothing trains; name a stack, the embedding or the head",
        ),
        ({"path": ("a", "b"), "pick": 3}, "pick: 3 > 2 stacks of the path; lower it"),
        ({"path": ("a",), "pick": 0}, "pick: 0 must be 1 or more"),
        (
            {"path": ("a", "b"), "active": ("b",), "pick": 1},
            "pick: 1 draws from stacks that all train, and a is frozen; leave active or pick empty",
        ),
        (
            {"path": ("a",), "new": [{"stack": "a", "init": "interpolate", "source": "b"}]},
            "new[0].other: is empty with init=interpolate; name a second stack, or copy",
        ),
        (
            {"path": ("a",), "new": [{"stack": "a", "init": "copy+noise", "source": "b"}]},
            "new[0].noise: is empty with init=copy+noise; 0.01 is little",
        ),
        (
            {"path": ("a",), "new": [{"stack": "a", "other": "b"}]},
            "new[0].other: 'b' is not read with init=random; use interpolate",
        ),
        (
            {"path": ("a",), "new": [{"stack": "a", "noise": 0.1}]},
            "new[0].noise: 0.1 is not read with init=random; leave it out",
        ),
        (
            {"path": ("a",), "new": [{"stack": "a", "init": "shrink"}]},
            "new[0].init: 'shrink' is not one of 'random', 'copy', 'copy+noise', 'interpolate' or "
            "'zero_output'",
        ),
        ({"path": "a"}, "path: 'a' is not a list"),
        (
            {"path": {"a", "b"}, "name": "x"},
            "path: a set has no order; give a list",
        ),
        ({"path": ("a",), "share": 1e308}, "share: 1e+308 must be 1e+12 or less"),
        (
            {"path": ("a",), "name": "a\x1b[2J"},
            "name: 'a\\x1b[2J' holds characters that do not print; leave them out",
        ),
        ({"path": ("a",), "share": 1e-320}, "share: 1e-320 must be 1e-12 or more"),
        ({"path": (0,)}, "path[0]: 0 is not text"),
        ({"path": ("a", "a")}, "path: a, a names a stack twice"),
        (
            {"path": ("a",), "active": ("b",)},
            "active: 'b' is not on the path a; put it there, or leave it out",
        ),
        (
            {"path": ("a",), "active": (), "embedding": False, "head": False},
            "active: nothing trains; name a stack, the embedding or the head",
        ),
        (
            {"path": ("a",), "band": (0.5, 0.5)},
            "band: (0.5, 0.5) must rise within 0 and 1, as (0.25, 0.5) does",
        ),
        ({"path": ("a",), "band": (0.5,)}, "band[1]: is missing; give it"),
        (
            {"path": ("a",), "lr_span": (0, 2)},
            "lr_span: (0.0, 2.0) must rise within 0 and 1, as (0.25, 0.5) does",
        ),
        ({"path": ("a",), "share": 0}, "share: 0 must be over 0"),
        ({"path": ("a",), "tokens": 0}, "tokens: 0 must be 1 or more"),
        (
            {"path": ("a",), "lr": "continued"},
            "lr: 'continued' is not one of 'per_stage', 'continue' or 'rewarm'; "
            "did you mean 'continue'?",
        ),
        (
            {"path": ("a",), "new": [{"stack": "a", "init": "copy"}]},
            "new[0].source: is empty with init=copy; name the stack to copy",
        ),
        (
            {"path": ("a",), "new": [{"stack": "a", "source": "b"}]},
            "new[0].source: 'b' is not read with init=random; use copy",
        ),
    ],
)
def test_a_wrong_stage_says_why(values, expected):
    with pytest.raises(ExperimentError) as error:
        Stage(**values)
    assert str(error.value) == expected


def test_a_stage_is_the_same_after_json():
    new = (NewStack(stack="b", init="copy", source="a"),)
    stage = Stage(path=ABC, active=("b",), new=new, band=(0.25, 0.5), tokens=64, lr="rewarm")
    assert Stage.model_validate(stage.model_dump(mode="json")) == stage


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"active": ABC, "embedding": True}, "active active active"),
        ({"active": ("c",), "embedding": False}, "trunk trunk active"),
        ({"active": ("a",), "embedding": False}, "active suffix suffix"),
        ({"active": ("b",), "embedding": False}, "trunk active suffix"),
        ({"active": ("a", "c"), "embedding": False}, "active suffix active"),
        # The embedding's gradient crosses every stack, so that none is trunk.
        ({"active": ("c",), "embedding": True}, "suffix suffix active"),
        ({"active": (), "embedding": True}, "suffix suffix suffix"),
        ({"active": (), "embedding": False, "head": True}, "trunk trunk trunk"),
    ],
)
def test_a_frozen_stack_is_trunk_where_no_gradient_reaches_it(values, expected):
    assert list(roles(Stage(path=ABC, **values)).values()) == expected.split()


def stage(low, high, *path):
    return Stage(path=path, band=(low, high))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([stage(0, 1, "a")], [(0, 1, ("a",))]),
        ([stage(0, 1, "a"), stage(0, 1, "a", "b")], [(0, 1, ("a", "b"))]),
        (
            [stage(0.5, 1, "a"), stage(0, 0.5, "a", "b")],
            [(0, 0.5, ("a", "b")), (0.5, 1, ("a",))],
        ),
        (
            [stage(0.5, 1, "a"), stage(0, 0.5, "a", "b"), stage(0, 1, "c")],
            [(0, 1, ("c",))],
        ),
        (
            [stage(0, 1, "a"), stage(0.25, 0.5, "b")],
            [(0, 0.25, ("a",)), (0.25, 0.5, ("b",)), (0.5, 1, ("a",))],
        ),
        (
            [stage(0.5, 1, "a"), stage(0, 0.5, "b"), stage(0.25, 0.75, "c")],
            [(0, 0.25, ("b",)), (0.25, 0.75, ("c",)), (0.75, 1, ("a",))],
        ),
    ],
)
def test_a_later_stage_takes_over_the_noise_that_it_covers(made, expected):
    assert band_paths(made) == expected


@pytest.mark.parametrize(
    ("made", "bands"),
    [
        ([], "none"),
        ([stage(0.5, 1, "a")], "(0.5, 1.0]"),
        ([stage(0.5, 1, "a"), stage(0, 0.25, "a")], "(0.0, 0.25], (0.5, 1.0]"),
    ],
)
def test_noise_that_no_stage_answers_for_is_an_error(made, bands):
    with pytest.raises(ExperimentError) as error:
        band_paths(made)
    assert str(error.value) == (
        f"curriculum.stages: the noise bands {bands} do not tile (0, 1]; "
        "let the band of a stage cover the rest"
    )
