"""Whole steps for every stage, and the whole budget: what equal compute stands on."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stackwise import CURRICULA, Experiment, ExperimentError, Stage, stages
from stackwise.memory.flops import stage_flops_per_token, vocab_size
from stackwise.objective import Corruption, corrupt

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


NOISES = {
    "clm": {"objective": "clm"},
    "mlm": {"objective": "mlm"},
    "mlm, under one position": {"objective": "mlm", "masking.schedule": "constant:0.03"},
    "mlm, from easy to hard": {"objective": "mlm", "masking.schedule": "ramp"},
    "linear": {"objective": "diffusion"},
    "geometric": {"objective": "diffusion", "masking.schedule": "geometric"},
    "stratified": {"objective": "diffusion", "masking.sampling": "stratified_k"},
    "bands": {"objective": "diffusion", "masking.bands": "linear"},
}
LUCK = dict.fromkeys(NOISES, "given") | {"stratified": "stratified"}
LUCK |= dict.fromkeys(("linear", "geometric", "bands"), "coins")


def really_spent(exp, made, batch_of):
    """What a run of these stages counts: the head at the positions that its batches have."""
    spent, first = 0.0, 0
    whole = sum(stage.tokens for stage in made) / exp.data.seq_len
    for stage in made:
        cost = stage_flops_per_token(exp, stage)
        rule = Corruption(
            exp.objective,
            vocab=256,
            batch_size=exp.optim.batch,
            seed=0,
            schedule=exp.masking.schedule,
            sampling=exp.masking.sampling,
            band=stage.band,
        )
        for _ in range(stage.tokens // STEP):
            ids_BT = np.zeros((exp.optim.batch, exp.data.seq_len), dtype=int)
            noisy = corrupt(rule, batch_of(ids_BT, first), progress=first / whole)
            spent += (cost.total - cost.head) * STEP
            spent += cost.head_per_position * int(noisy.counted_BT.sum())
            first += exp.optim.batch
    return spent


ARMS = {
    "end_to_end": "end_to_end",
    "left_to_right": "left_to_right",
    "long at first": {"name": "left_to_right", "split": [8, 1, 1], "head": "first"},
    "grow": "grow",
}


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("noise", NOISES)
def test_what_is_spent_is_what_was_planned(noise, name, batch_of):
    with_bands = noise == "bands" and name in ("end_to_end", "grow")
    curriculum = "right_to_left" if with_bands else ARMS[name]
    exp = SMALL.replace(curriculum=curriculum, budget={"flops": 4e8}, **NOISES[noise])
    made = stages(exp)
    steps = sum(stage.tokens for stage in made) / STEP
    dearest = max(step_costs(exp, made))
    head = max(stage_flops_per_token(exp, stage).head_per_position for stage in made)
    # Counts of a batch: B T coins, of variance B T / 4 at most; B times evenly spaced, which move
    # together over T / B counts each (uniform), or along a rising curve over T in all (any law).
    T = exp.data.seq_len
    variance = {"given": 0, "stratified": T**2 / 12, "coins": STEP / 4 + T**2 / 4}[LUCK[noise]]
    allowed = dearest * (0.5 + 1e-6) + 4 * head * (steps * variance) ** 0.5
    assert abs(really_spent(exp, made, batch_of) - 4e8) <= allowed


def test_the_part_of_training_that_a_stage_is_tiles_the_whole():
    for name in ("end_to_end", "left_to_right", "grow"):
        made = stages(SMALL.replace(curriculum=name, objective="mlm", masking="ramp"))
        tokens = [stage.tokens for stage in made]
        edges = [sum(tokens[:n]) / sum(tokens) for n in range(len(tokens) + 1)]
        assert [stage.progress for stage in made] == list(pairwise(edges))
