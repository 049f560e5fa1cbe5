"""A user's own curriculum: a plain function in a dict, and what is said when it is wrong."""

from typing import Literal

import pytest

import stackwise as sw
from stackwise import CURRICULA, Experiment, ExperimentError, NewStack, Stage

BASE = Experiment(rack={"stacks": 3, "d_model": 16, "heads": 2}, budget={"tokens": 1_000_000})


@pytest.fixture
def made_by(monkeypatch):
    def stages(function, **changes):
        monkeypatch.setitem(CURRICULA, "mine", function)
        return sw.stages(BASE.replace(curriculum="mine", **changes))

    return stages


def test_five_lines_are_a_curriculum(made_by):
    def middle_last(exp):
        s0, s1, s2 = sw.stack_ids(exp.rack)
        yield sw.Stage(path=(s0, s2))
        yield sw.Stage(path=(s0, s1, s2), active=(s1,), share=2)

    first, second = made_by(middle_last)
    assert (first.active, first.name, second.active, second.name) == (
        ("s0", "s2"),
        "s0+s2",
        ("s1",),
        "s1",
    )
    assert [entry.stack for entry in second.new] == ["s1"]
    assert second.tokens == pytest.approx(2 * first.tokens, rel=0.02)


def test_a_list_is_as_good_as_a_generator(made_by):
    assert made_by(lambda exp: [Stage(path=("s0",))]) == made_by(
        lambda exp: iter([Stage(path=("s0",))])
    )


def test_its_name_is_all_that_yaml_holds(made_by):
    made_by(lambda exp: [Stage(path=("s0",))])
    exp = BASE.replace(curriculum="mine")
    assert Experiment.from_yaml(exp.to_yaml()) == exp
    with pytest.raises(ExperimentError, match=r"^curriculum\.speed: unknown key of mine; known"):
        BASE.replace(curriculum={"name": "mine", "speed": 2})


def test_a_finished_run_is_opened_where_its_function_is_gone(made_by, monkeypatch):
    made_by(lambda exp: [Stage(path=("s0",))])
    text = BASE.replace(curriculum="mine").to_yaml()
    monkeypatch.delitem(CURRICULA, "mine")
    opened = Experiment.from_yaml(text, opening_run=True)
    assert opened.curriculum.choice == "mine"
    assert opened.to_yaml() == text
    assert opened == Experiment.from_yaml(text, opening_run=True)
    assert opened.replace(seed=0) == opened
    with pytest.raises(ExperimentError, match="unknown name 'mine'"):
        Experiment.from_yaml(text)
    with pytest.raises(ValueError, match="unknown curriculum 'mine'; known: end_to_end"):
        sw.stages(opened)


def test_stages_of_the_head_or_the_embedding_alone_have_a_name(made_by):
    only = {"path": ("s0",), "active": ()}
    made = made_by(
        lambda exp: [
            Stage(path=("s0",)),
            Stage(**only, embedding=False),
            Stage(**only, head=False),
        ]
    )
    assert [stage.name for stage in made] == ["s0", "head", "embedding"]


def one(**values):
    return lambda exp: [Stage(**{"path": ("s0",), **values})]


def two(*given):
    return lambda exp: [Stage(path=("s0",)), *given]


def wrong_second(exp):
    yield Stage(path=("s0",))
    yield Stage(path=("s0",), share=-1)


def wrong_first(exp):
    yield Stage(path=("s0",), share=-1)


def endless(exp):
    while True:
        yield Stage(path=("s0",))


def raising(exp):
    yield Stage(path=("s0",))
    raise KeyError("depth")


def without_arguments():
    yield Stage(path=("s0",))


WRONG = {
    "no function": (
        3,
        "curriculum.stages: 'mine' is 3; put a function of an experiment there",
    ),
    "no arguments": (
        without_arguments,
        "curriculum.stages: 'mine' cannot be called with an experiment: too many positional "
        "arguments; begin it as: def f(exp):",
    ),
    "an error of its own": (raising, "curriculum.stages[1]: 'mine' raised KeyError: 'depth'"),
    "a span that is filled in": (
        one(lr="continue", lr_span=(0, 0.5)),
        "curriculum.stages[0].lr_span: (0.0, 0.5) is filled in with lr=continue; leave it out, or "
        "use lr=per_stage",
    ),
    "a part of training that is filled in": (
        one(progress=(0, 0.5)),
        "curriculum.stages[0].progress: (0.0, 0.5) is filled in from the tokens; leave it out",
    ),
    "nothing": (lambda exp: [], "curriculum.stages: 'mine' makes none; yield one or more"),
    "no return": (
        lambda exp: None,
        "curriculum.stages: 'mine' returned None; yield stages or return a list",
    ),
    "one stage, not a list": (
        lambda exp: Stage(path=("s0",), name="x"),
        "curriculum.stages: 'mine' returned ",
    ),
    "no stage": (two("s1"), "curriculum.stages[1]: 's1' is not a Stage"),
    "no end": (endless, "curriculum.stages[10000]: 'mine' makes over 10000 stages; end it"),
    "an error in a stage": (wrong_second, "curriculum.stages[1].share: -1 must be over 0"),
    "an error in the first stage": (wrong_first, "curriculum.stages[0].share: -1 must be over 0"),
    "a copy from the same stage": (
        two(
            Stage(
                path=("s0", "s1", "s2"),
                new=(
                    NewStack(stack="s1"),
                    NewStack(stack="s2", init="copy", source="s1"),
                ),
            )
        ),
        "curriculum.stages[1].new: 's2' copies 's1', which is not there yet; copy s0",
    ),
    "an error in a list": (one(share=-1), "curriculum.stages.share: -1 must be over 0"),
    "an unknown stack": (
        one(path=("s0", "s9")),
        "curriculum.stages[0].path: 's9' is not a stack of the rack; known: s0, s1, s2",
    ),
    "never added": (
        two(Stage(path=("s0", "s1"), new=())),
        "curriculum.stages[1].path: 's1' was never added; name it in new",
    ),
    "added again": (
        two(Stage(path=("s0",), new=(NewStack(stack="s0"),))),
        "curriculum.stages[1].new: 's0' is there already; a stack is added once",
    ),
    "added twice at once": (
        one(new=(NewStack(stack="s0"), NewStack(stack="s0"))),
        "curriculum.stages[0].new: a stack is named twice; a stack is added once",
    ),
    "a copy of nothing": (
        one(new=(NewStack(stack="s0", init="copy", source="s1"),)),
        "curriculum.stages[0].new: 's0' copies 's1', which is not there yet; start it at random",
    ),
    "not on the path": (
        one(active=("s1",)),
        "curriculum.stages.active: 's1' is not on the path s0; put it there, or leave it out",
    ),
    "noise that no stage covers": (
        one(band=(0.5, 1)),
        "curriculum.stages: the noise bands (0.5, 1.0] do not tile (0, 1]; "
        "let the band of a stage cover the rest",
    ),
    "nothing trains": (
        one(active=(), embedding=False, head=False),
        "curriculum.stages.active: nothing trains; name a stack, the embedding or the head",
    ),
}


@pytest.mark.parametrize(("function", "expected"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_curriculum_says_which_stage_and_why(function, expected, made_by):
    with pytest.raises(ExperimentError) as error:
        made_by(function)
    if expected.endswith(" "):
        assert str(error.value).startswith(expected)
        assert "\n" not in str(error.value)
    else:
        assert str(error.value) == expected


class Mine(sw.Params):
    """A curriculum of one's own with a check."""

    name: Literal["mine"] = "mine"


def raised(shape, options):
    raise KeyError("depth")


ASKED = "yield a line of text for each problem, and nothing if there is none"
CHECKS = {
    "no answer": (lambda s, o: None, f"the check of 'mine' returned None; {ASKED}"),
    "text": (lambda s, o: "no", f"the check of 'mine' returned 'no'; {ASKED}"),
    "numbers": (lambda s, o: [3], f"the check of 'mine' gave 3; {ASKED}"),
    "an error": (
        raised,
        "the check of 'mine' raised KeyError: 'depth'; it is called with a rack's shape and the "
        "curriculum's parameters",
    ),
}


@pytest.mark.parametrize(("check", "said"), CHECKS.values(), ids=list(CHECKS))
def test_a_check_that_is_wrong_is_named(check, said, monkeypatch):
    entry = sw.Curriculum(lambda exp: [Stage(path=("s0",))], Mine, check=check)
    monkeypatch.setitem(CURRICULA, "mine", entry)
    with pytest.raises(ExperimentError) as error:
        BASE.replace(curriculum="mine")
    assert str(error.value) == f"curriculum: {said}"


def test_all_problems_of_a_stage_come_at_once(made_by):
    new = (NewStack(stack="s8"), NewStack(stack="s1", init="copy", source="s2"))
    with pytest.raises(ExperimentError) as error:
        made_by(one(path=("s0", "s1", "s9"), new=new))
    assert [problem.split(":")[0] for problem in str(error.value).splitlines()] == [
        "curriculum.stages[0].path",
        "curriculum.stages[0].new",
        "curriculum.stages[0].path",
        "curriculum.stages[0].new",
    ]


def halves(exp):
    yield Stage(path=("s0", "s1"), band=(0.5, 1))
    yield Stage(path=("s0", "s1", "s2"), active=("s2",), band=(0, 0.5))


@pytest.mark.parametrize(
    ("changes", "which"),
    [
        ({"objective": "clm"}, "objective=clm, sampling=antithetic"),
        ({"objective": "mlm"}, "objective=mlm, sampling=antithetic"),
        ({"masking.sampling": "stratified_k"}, "objective=diffusion, sampling=stratified_k"),
    ],
)
def test_a_band_that_the_objective_cannot_read_is_refused_before_training(changes, which, made_by):
    assert [stage.band for stage in made_by(halves)] == [(0.5, 1), (0, 0.5)]
    with pytest.raises(ExperimentError) as error:
        made_by(halves, **changes)
    assert str(error.value) == (
        "curriculum.stages[0].band: (0.5, 1.0) goes with masked diffusion alone, its times drawn "
        f"antithetic, iid or bell, and not with {which}; leave it out"
    )


def test_bands_that_no_stage_carries_are_refused(made_by):
    with pytest.raises(ExperimentError) as error:
        made_by(one(), masking={"bands": "linear"})
    assert str(error.value) == (
        "masking.bands: linear is carried by no stage of curriculum=mine; "
        "give its stages a band, or leave bands empty"
    )


def test_a_curriculum_may_join_the_bands_of_some_stacks(made_by):
    made = made_by(halves, masking={"bands": (0.25, 0.5)})
    assert [stage.band for stage in made] == [(0.5, 1), (0, 0.5)]
    assert made_by(one(), masking={"bands": "linear"}, rack=1)


def test_a_start_that_would_not_keep_the_function_is_refused(made_by):
    zero = NewStack(stack="s1", init="zero_output")
    grown = two(Stage(path=("s0", "s1"), new=(zero,)))
    assert made_by(grown)[1].new == (zero,)
    with pytest.raises(ExperimentError) as error:
        made_by(grown, **{"rack.norm_place": "post"})
    assert str(error.value) == (
        "curriculum.stages[1].new: zero_output keeps what the rack computes only with "
        "rack.norm_place=pre, and it is post, where each block normalises its input; "
        "use random or copy"
    )


def test_a_band_that_no_number_of_masked_tokens_falls_in_is_refused(made_by):
    def sliver(exp):
        yield Stage(path=("s0",), band=(1 / 128, 1))
        yield Stage(path=("s1",), band=(0, 1 / 128))

    assert made_by(sliver)
    with pytest.raises(ExperimentError) as error:
        made_by(sliver, **{"data.seq_len": 127})
    assert str(error.value) == (
        "curriculum.stages[1].band: (0, 0.0078125], which holds no fraction k/127 of "
        "data.seq_len=127 tokens, so that it would train and never be used; "
        "widen it or use longer samples"
    )


@pytest.mark.parametrize("name", ["", "a:b", "a b", 3])
def test_a_name_that_could_not_be_said_or_stored_is_refused(name, monkeypatch):
    monkeypatch.setitem(CURRICULA, name, one())
    with pytest.raises(ExperimentError) as error:
        BASE.replace(curriculum=name)
    assert str(error.value) == (
        f"curriculum: {name!r} cannot be the name of an entry; name it with letters, digits, '.', "
        "'_' and '-', 48 at most, the first a letter or digit"
    )
    with pytest.raises(ExperimentError, match="unknown name 'nope'"):
        BASE.replace(curriculum="nope")
