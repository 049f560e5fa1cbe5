"""Which stacks carry an adapter in which stage, of which rank, and what is refused."""

import importlib.util
import json

import pytest
import torch

import stackwise as sw
from stackwise import ExperimentError, Stage
from stackwise.model.linears import linears_of, targeted
from stackwise.stage import parts_trained, roles, trunk_of
from stackwise.training import placing
from stackwise.training.start import create_run, run_hash

TOY = sw.Experiment.preset("toy")


def ranks(exp):
    """`[{}, {"s0": 4}, ...]`: the ranks of each stage."""
    return [{a.stack: a.rank for a in stage.adapters or ()} for stage in sw.stages(exp)]


def asked(curriculum, **knobs):
    return TOY.replace(curriculum=curriculum, adapters=knobs)


@pytest.mark.parametrize(
    ("curriculum", "knobs", "expected"),
    [
        ("left_to_right", {"on": "trunk", "rank": 4}, ["", "s0:4", "s0:4 s1:4", "s0:4 s1:4 s2:4"]),
        ("left_to_right", {"on": "suffix"}, ["", "", "", ""]),
        (
            "right_to_left",
            {"on": "suffix", "rank": 6, "over": "rising"},
            ["", "s3:6", "s2:5 s3:6", "s1:3 s2:5 s3:6"],  # 6 x 2/4, 3/4, 4/4, rounded up
        ),
        (
            "right_to_left",
            {"on": "both", "rank": [9, 1, 0, 2]},
            ["", "s3:2", "s3:2", "s1:1 s3:2"],
        ),
        (
            {"name": "block_coordinate", "cycles": 1},
            {"on": "both", "rank": 2},
            ["s1:2 s2:2 s3:2", "s0:2 s2:2 s3:2", "s0:2 s1:2 s3:2", "s0:2 s1:2 s2:2"],
        ),
        (
            {"name": "block_coordinate", "cycles": 1, "order": "right_to_left"},
            {"on": "suffix", "rank": 2},
            ["", "s3:2", "s2:2 s3:2", "s1:2 s2:2 s3:2"],
        ),
        (  # what a stack carries stays, on whichever side it comes to stand
            {"name": "block_coordinate", "cycles": 1},
            {"on": "suffix", "rank": 2},
            ["s1:2 s2:2 s3:2", "s2:2 s3:2", "s3:2", ""],
        ),
        ("end_to_end", {"on": "both"}, [""]),
    ],
)
def test_ranks_are_as_asked(curriculum, knobs, expected):
    found = [
        " ".join(f"{stack}:{rank}" for stack, rank in each.items())
        for each in ranks(asked(curriculum, **knobs))
    ]
    assert found == expected


def test_a_bare_word_is_the_side():
    exp = TOY.replace(curriculum="right_to_left", adapters="suffix")
    assert ranks(exp)[-1] == {"s1": 8, "s2": 8, "s3": 8}


def test_all_stacks_may_be_frozen_and_adapters_train_alone(monkeypatch):
    def fused(exp):
        ids = sw.stack_ids(exp.rack)
        yield Stage(path=ids)
        alone = sw.adapters_on(exp, ids)
        yield Stage(path=ids, active=(), embedding=False, head=False, adapters=alone)

    monkeypatch.setitem(sw.CURRICULA, "fused", fused)
    last = sw.stages(asked("fused", on="trunk", rank=3))[-1]
    assert parts_trained(last) == {"s0.adapter", "s1.adapter", "s2.adapter", "s3.adapter"}
    assert trunk_of(last) == () and set(roles(last).values()) == {"suffix"}


def test_the_trunk_is_what_lies_before_everything_that_trains():
    path, some = ("a", "b", "c", "d"), (sw.Adapter(stack="b"),)
    stage = Stage(path=path, active=("d",), embedding=False, adapters=some)
    assert roles(stage) == {"a": "trunk", "b": "suffix", "c": "suffix", "d": "active"}
    above = stage.model_copy(update={"adapters": (sw.Adapter(stack="d"),), "active": ("b",)})
    assert roles(above) == {"a": "trunk", "b": "active", "c": "suffix", "d": "suffix"}


def test_without_adapters_nothing_is_written_of_them():
    """Hashes name runs: these are of before there were adapters."""
    assert "adapters" not in json.loads(TOY.model_dump_json()) and TOY.hash == "46abfa27"
    exp = TOY.replace(curriculum="left_to_right")
    made = sw.stages(exp)
    assert not any("adapters" in stage.model_dump() for stage in made)
    assert run_hash(exp, made) == "219d44e4"
    effect = asked("left_to_right", on="suffix")  # no stage has a suffix: the stages are the same
    assert [s.model_dump() for s in sw.stages(effect)] == [s.model_dump() for s in made]
    assert effect.hash != exp.hash


def test_a_stage_is_the_same_after_json():
    stage = sw.stages(asked("right_to_left", on="suffix", rank=3))[-1]
    assert Stage.model_validate_json(stage.model_dump_json()) == stage


KNOBS = [
    ({"on": "trunk", "rank": 0}, "adapters.rank: 0 must be 1 or more, and is not a list"),
    (
        {"on": "trunk", "rank": [1, 2]},
        "adapters.rank: 2 ranks for rack.stacks=4; give one for each stack, 0 for none",
    ),
    (
        {"on": "trunk", "rank": [0, 0, 0, 0]},
        "adapters.rank: [0, 0, 0, 0] gives no stack an adapter; use adapters.on=none",
    ),
    (
        {"on": "trunk", "rank": [1, 2, 3, 4], "over": "rising"},
        "adapters.over: 'rising' is not read with a list of ranks; leave it at constant",
    ),
    (
        {"on": "trunk", "rank": 65},
        "curriculum.stages[1].adapters: rank 65 of s0 > 64, the smaller side of attention.out; "
        "lower it",
    ),
    ({"rank": 3}, "adapters.rank: 3 is not read with adapters.on=none; leave it at 8"),
    (
        {"on": "trunk", "targets": "q"},
        "adapters.targets: 'q' is not one of 'all', 'attention' or 'ffn'",
    ),
]


@pytest.mark.parametrize(("knobs", "expected"), KNOBS)
def test_wrong_knobs_say_why(knobs, expected):
    with pytest.raises(ExperimentError) as error:
        sw.stages(asked("left_to_right", **knobs))
    assert str(error.value) == expected


def one(stack="s0", **more):
    return (sw.Adapter(stack=stack, **more),)


WRONG = [
    (
        [{"path": ("s0", "s1"), "active": ("s1",), "adapters": one("s1")}],
        "curriculum.stages[0].adapters: 's1' is active, and trains whole; an adapter is for a "
        "frozen stack, so take it out of active or of adapters",
    ),
    (
        [{"path": ("s0", "s1"), "active": ("s1",), "adapters": one("s2")}],
        "curriculum.stages[0].adapters: 's2' is not on the path s0, s1; leave it out",
    ),
    (
        [{"path": ("s0", "s1"), "active": ("s1",), "adapters": (*one(), *one())}],
        "curriculum.stages[0].adapters: 's0' is named twice; a stack carries one adapter",
    ),
    (
        [
            {"path": ("s0", "s1"), "active": ("s1",), "adapters": one()},
            {"path": ("s0", "s1"), "active": ("s1",), "adapters": one(rank=4)},
        ],
        "curriculum.stages[1].adapters: s0 carries one of rank 8, alpha 16 and targets=all, which "
        "trains on; give it the same",
    ),
    (
        [
            {"path": ("s0", "s1"), "active": ("s1",), "adapters": one()},
            {"path": ("s0", "s1"), "active": ("s1",), "adapters": ()},
        ],
        "curriculum.stages[1].adapters: s0 carries one since an earlier stage; name it here, or "
        "let s0 train, which merges it",
    ),
    (
        [
            {"path": ("s0", "s1"), "active": ("s1",), "adapters": one()},
            {
                "path": ("s0", "s1", "s2"),
                "active": ("s2",),
                "adapters": one(),
                "new": ({"stack": "s2", "init": "copy", "source": "s0"},),
            },
        ],
        "curriculum.stages[1].new: 's2' copies 's0', which carries an adapter; copy another "
        "stack, or let that one train before",
    ),
    (
        [
            {"path": ("s0", "s1"), "active": ("s1",), "adapters": one()},
            {
                "path": ("s0", "s1", "s2"),
                "active": ("s2",),
                "adapters": one(),
                "new": ({"stack": "s2", "init": "interpolate", "source": "s1", "other": "s0"},),
            },
        ],
        "curriculum.stages[1].new: 's2' copies 's0', which carries an adapter; copy another "
        "stack, or let that one train before",
    ),
]


@pytest.mark.parametrize(("fields", "expected"), WRONG, ids=[said[-30:] for _, said in WRONG])
def test_wrong_stages_say_why(monkeypatch, fields, expected):
    monkeypatch.setitem(sw.CURRICULA, "mine", lambda exp: (Stage(**each) for each in fields))
    with pytest.raises(ExperimentError) as error:
        sw.stages(TOY.replace(curriculum="mine"))
    assert str(error.value) == expected


def test_spectral_norm_goes_with_none():
    with pytest.raises(ExperimentError) as error:
        sw.stages(asked("right_to_left", on="suffix").replace(rack={"spectral_norm": True}))
    assert str(error.value) == (
        "curriculum.stages[1].adapters: change matrices whose norm rack.spectral_norm keeps at "
        "one; use adapters.on=none, or leave spectral_norm off"
    )


def test_all_matrices_are_those_of_attention_and_feed_forward():
    timed = TOY.rack.model_copy(update={"time": "sinusoidal"})
    for shape in (TOY.rack, timed):
        named = [each.name for each in targeted(shape, TOY.attention, "all")]
        assert {name.partition(".")[0] for name in named} == {"attention", "ffn"}
        assert len(named) == len(linears_of(shape, TOY.attention)) - (shape is timed)


def test_what_has_no_effect_is_noted(tmp_path):
    corpus = {"kind": "markov", "size_bytes": 40_000}
    exp = asked("left_to_right", on="suffix").replace(data={"corpus": corpus})
    run = create_run(exp, sw.Placement(runs_dir=str(tmp_path)))
    assert run.provenance()["notes"] == [
        "adapters.on=suffix has no effect: no stage has a frozen stack on that side (suffix)"
    ]


def test_a_run_without_peft_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(placing, "find_spec", lambda name: None if name == "peft" else there(name))
    exp = asked("left_to_right", on="trunk").replace(data={"corpus": "markov"})
    with pytest.raises(ExperimentError, match=r"pip install 'stackwise\[adapters\]'"):
        create_run(exp, sw.Placement(runs_dir=str(tmp_path / "runs")))
    assert not (tmp_path / "runs").exists()


def test_a_model_of_ones_own_has_none():
    model = sw.Rack(sw.RackShape(stacks=2, d_model=16, heads=2), "mha", 61)

    def mine(exp):
        yield Stage(path=("s0", "s1"), active=("s1",), embedding=False, adapters=one())

    with pytest.raises(ValueError, match="adapters: are for the racks of runs"):
        sw.train_stack_wise(model, [torch.ones(2, 4, dtype=torch.int64)] * 4, curriculum=mine)


def test_the_plan_says_which_ones_train():
    exp = asked("left_to_right", on="trunk", rank=[2, 0, 3, 0])
    text = str(sw.plan(exp, hardware="h100-80"))
    assert "s3 head +s0 +s2" in text and "s1 head +s0 " in text
