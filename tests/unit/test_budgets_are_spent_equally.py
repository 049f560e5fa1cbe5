"""Whole steps for every stage, and the whole budget: what equal compute stands on."""

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stackwise import CURRICULA, Experiment, ExperimentError, Stage, stages
from stackwise.memory.flops import stage_flops_per_token, vocab_size

SMALL = Experiment(
    rack={"stacks": 3, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
    data={"seq_len": 8},
    optim={"batch": 2},
    budget={"tokens": 16 * 60},
)
STEP = 16


def step_costs(exp, made):
    step = exp.optim.batch * exp.data.seq_len
    return [step * stage_flops_per_token(exp, stage).total for stage in made]


def spent(exp, made):
    return sum(stage_flops_per_token(exp, stage).total * stage.tokens for stage in made)


def steps(exp):
    return [stage.tokens / STEP for stage in stages(exp)]


@given(
    name=st.sampled_from(["end_to_end", "left_to_right", "right_to_left", "grow"]),
    split=st.sampled_from(["tokens", "flops"]),
    stacks=st.integers(1, 7),
    d_model=st.sampled_from([8, 32, 128]),
    batch=st.integers(1, 9),
    seq_len=st.integers(2, 50),
    budget=st.floats(6, 14),
    bands=st.sampled_from([None, "equal_mass", "exponential"]),
)
@settings(max_examples=60, deadline=None)
def test_planned_flops_are_within_a_step_of_the_budget(
    name, split, stacks, d_model, batch, seq_len, budget, bands
):
    single = name in ("end_to_end", "grow")
    try:
        exp = SMALL.replace(
            rack={"stacks": stacks, "d_model": d_model},
            curriculum=name if name == "end_to_end" else {"name": name, "split": split},
            masking={"bands": None if single else bands},
            optim={"batch": batch},
            data={"seq_len": seq_len},
            budget={"flops": 10**budget},
        )
        made = stages(exp)
    except ExperimentError as error:
        assert re.search("is less than one step of|holds no fraction k", str(error))
        assume(False)
    assert all(stage.tokens % (batch * seq_len) == 0 and stage.tokens > 0 for stage in made)
    assert abs(spent(exp, made) - 10**budget) <= max(step_costs(exp, made)) * (0.5 + 1e-6)


@pytest.mark.parametrize("name", ["end_to_end", "left_to_right", "right_to_left", "grow"])
@pytest.mark.parametrize("tokens", [16 * 3, 16 * 50, 16 * 50 + 7, 16 * 1001])
def test_planned_tokens_are_within_half_a_step_of_the_budget(name, tokens):
    split = {} if name == "end_to_end" else {"split": "tokens"}
    made = stages(SMALL.replace(curriculum={"name": name, **split}, budget=tokens))
    assert abs(sum(stage.tokens for stage in made) - tokens) <= STEP / 2


def test_equal_tokens_are_equal():
    exp = SMALL.replace(curriculum={"name": "left_to_right", "split": "tokens"})
    assert steps(exp) == [20, 20, 20]


def test_equal_flops_are_equal():
    exp = SMALL.replace(curriculum={"name": "grow", "split": "flops"}, budget={"flops": 1e10})
    made = stages(exp)
    costs = [c * s.tokens / STEP for c, s in zip(step_costs(exp, made), made, strict=True)]
    assert costs == pytest.approx([1e10 / 3] * 3, rel=max(step_costs(exp, made)) / 1e9)


def test_a_list_weighs_tokens():
    exp = SMALL.replace(curriculum={"name": "left_to_right", "split": [1, 2, 3]})
    assert steps(exp) == [10, 20, 30]


@pytest.mark.parametrize("name", ["end_to_end", "left_to_right", "right_to_left", "grow"])
@pytest.mark.parametrize("budget", [{"tokens": 1}, {"flops": 10.0}])
def test_a_budget_too_small_names_one_that_is_enough(name, budget):
    exp = SMALL.replace(curriculum=name, budget=budget)
    with pytest.raises(ExperimentError) as error:
        stages(exp)
    least = str(error.value).split("at least ")[1].split(",")[0]
    made = stages(exp.replace(budget={next(iter(budget)): least}))
    assert all(stage.tokens >= STEP for stage in made)


def test_the_message_of_a_budget_too_small():
    with pytest.raises(ExperimentError) as error:
        stages(SMALL.replace(budget=10))
    assert str(error.value) == (
        "budget.tokens: 10 is less than one step of 16 tokens for stage 0 (s0-s2); "
        "give at least 16, or lower optim.batch"
    )


@pytest.fixture
def curriculum(monkeypatch):
    def make(*made):
        monkeypatch.setitem(CURRICULA, "mine", lambda exp: made)
        return SMALL.replace(curriculum="mine")

    return make


def test_tokens_of_a_stage_come_first_and_the_rest_is_shared(curriculum):
    exp = curriculum(
        Stage(path=("s0",), tokens=STEP * 10),
        Stage(path=("s0", "s1")),
        Stage(path=("s0", "s1", "s2"), share=4),
    )
    assert steps(exp) == [10, 10, 40]


def test_tokens_of_a_stage_are_rounded_up_to_whole_steps(curriculum):
    exp = curriculum(Stage(path=("s0",), tokens=1), Stage(path=("s0", "s1")))
    assert steps(exp) == [1, 59]


def test_stages_with_tokens_of_their_own_may_spend_less(curriculum):
    assert steps(curriculum(Stage(path=("s0",), tokens=STEP * 10))) == [10]


def test_stages_with_tokens_of_their_own_cannot_spend_more(curriculum):
    exp = curriculum(Stage(path=("s0",), tokens=STEP * 100), Stage(path=("s0", "s1")))
    with pytest.raises(ExperimentError) as error:
        stages(exp)
    assert str(error.value) == (
        "budget.tokens: 960 is less than what the stages with tokens of their own take; "
        "give at least 1600, or lower optim.batch"
    )


def test_what_is_left_must_be_enough_for_the_others(curriculum):
    exp = curriculum(Stage(path=("s0",), tokens=STEP * 60), Stage(path=("s0", "s1")))
    with pytest.raises(ExperimentError, match=r"one step of 16 tokens for stage 1 .* at least 976"):
        stages(exp)


def test_shares_of_tokens_and_of_flops_do_not_mix(curriculum):
    exp = curriculum(Stage(path=("s0",)), Stage(path=("s0", "s1"), share_of="flops"))
    with pytest.raises(ExperimentError, match=r"^curriculum\.stages: some share tokens and some F"):
        stages(exp)


def test_a_vocabulary_that_only_a_file_knows_must_be_given():
    exp = SMALL.replace(data={"tokenizer": "json:tokenizer.json"})
    with pytest.raises(ExperimentError, match=r"^rack\.vocab: is empty with data\.tokenizer=json"):
        vocab_size(exp)
    assert vocab_size(exp.replace(rack={"vocab": 700})) == 700
    assert vocab_size(SMALL) == 256
    assert vocab_size(SMALL.replace(data={"tokenizer": "bpe:300"})) == 300
