"""A stage whose length the clock changes goes on with its schedule, without a jump, to its end."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

import stackwise as sw
from stackwise.budget import steps_of
from stackwise.course import paced
from stackwise.pacing import Decision
from stackwise.training.rates import lr_at, stage_lr

LR = 0.01


def experiment(schedule: str = "wsd", **changes) -> sw.Experiment:
    return sw.Experiment(
        rack={"stacks": 4, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 40_000}, "seq_len": 16},
        optim={"batch": 4, "lr": LR, "schedule": schedule, "warmup_frac": 0.1},
        budget={"tokens": 400 * 64},
        **changes,
    )


def decided(stage: int, step: int, steps: int, factor: float = 1.0) -> Decision:
    return Decision(stage=stage, step=step, steps=steps, factor=factor, seconds=1.0, speed=1.0)


def rates(exp: sw.Experiment, made: tuple[sw.Stage, ...], number: int) -> list[float]:
    steps = steps_of(exp, made[number])
    return [stage_lr(exp.optim, made[number], step, steps) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["wsd", "linear", "cosine"])
@pytest.mark.parametrize("step", [20, 200, 350])
@pytest.mark.parametrize("steps", [370, 401, 900])
def test_the_rate_neither_jumps_nor_stops_short(schedule: str, step: int, steps: int) -> None:
    exp = experiment(schedule)
    launched = sw.stages(exp)
    made = paced(exp, launched, [decided(0, step, steps)])
    found, before = rates(exp, made, 0), rates(exp, launched, 0)
    assert len(found) == steps
    assert found[:step] == before[:step]  # what is done is as it was
    left = steps - step
    steepest = LR * 2 / 0.3 / left + LR * 2 / 0.3 / 400 + (LR / 0.1) * (1 / 400 + 1 / left)
    assert abs(found[step] - found[step - 1]) <= steepest
    assert found[-1] <= LR / left / 0.3


@pytest.mark.parametrize("steps", [250, 300, 700])
def test_a_flat_schedule_is_that_of_a_run_planned_so(steps: int) -> None:
    exp = experiment("wsd")
    made = paced(exp, sw.stages(exp), [decided(0, 100, steps)])
    planned = [lr_at(exp.optim, (step + 0.5) / steps) for step in range(100, steps)]
    assert rates(exp, made, 0)[100:] == pytest.approx(planned, rel=1e-9)


def test_a_decay_that_has_begun_ends_sooner_or_later() -> None:
    exp = experiment("wsd")
    for steps in (330, 600):
        found = rates(exp, paced(exp, sw.stages(exp), [decided(0, 320, steps)]), 0)
        falls = [a - b for a, b in pairwise(found[320:])]
        assert falls == pytest.approx([falls[0]] * len(falls))
        assert found[-1] == pytest.approx(falls[0] / 2)


@pytest.mark.parametrize("lr", ["continue", "rewarm"])
@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_stages_that_share_a_schedule_share_what_is_left_of_it(lr: str, schedule: str) -> None:
    exp = experiment(schedule, curriculum={"name": "grow", "lr": lr})
    launched = sw.stages(exp)
    steps = [steps_of(exp, stage) for stage in launched]
    made = paced(exp, launched, [decided(1, 30, steps[1] - 40, 0.5), decided(2, 0, steps[2], 0.5)])
    ends = [stage.legs[-1].end if stage.legs else stage.lr_span[1] for stage in made]
    begins = [stage.lr_span[0] for stage in made]
    assert begins[1:] == pytest.approx(ends[:-1])
    assert ends[-1] == 1.0
    last = rates(exp, made, len(made) - 1)
    assert last[-1] < last[-2] and last[-1] <= LR / len(last) / 0.3
    if lr == "continue":
        whole = [rate for number in range(len(made)) for rate in rates(exp, made, number)]
        after = whole[40:]  # past warm-up it only falls, across every border and decision
        assert after == sorted(after, reverse=True)


def test_a_rewarmed_stage_warms_up_as_it_was_begun() -> None:
    exp = experiment("cosine", curriculum={"name": "grow", "lr": "rewarm"})
    launched = sw.stages(exp)
    steps = steps_of(exp, launched[1])
    made = paced(exp, launched, [decided(1, 5, steps - 30)])
    before, after = (rates(exp, each, 1) for each in (launched, made))
    assert after[4] == before[4]
    warm = round(0.1 * steps)
    assert after[5:warm] == pytest.approx(before[5:warm], rel=0.05)


def test_later_stages_keep_their_shares_and_earlier_ones_stay() -> None:
    exp = experiment(curriculum={"name": "left_to_right", "fuse": 0.25})
    launched = sw.stages(exp)
    before = [steps_of(exp, stage) for stage in launched]
    decisions = [decided(1, 10, 40, 0.5)]
    made = paced(exp, launched, decisions)
    after = [steps_of(exp, stage) for stage in made]
    assert after[:2] == [before[0], 40]
    assert after[2:] == [n // 2 for n in before[2:]]
    decisions.append(decided(1, 20, 40, 1e-6))
    again = paced(exp, launched, decisions)
    assert [steps_of(exp, stage) for stage in again][2:] == [1] * len(before[2:])  # all are trained
    back = paced(exp, launched, [*decisions, decided(2, 0, before[2], 1.0)])
    assert [steps_of(exp, stage) for stage in back][2:] == before[2:]
    assert made[0] == launched[0]
    assert made[-1].progress[1] == 1.0


def test_a_decision_to_stay_changes_nothing() -> None:
    exp = experiment(curriculum="left_to_right")
    launched = sw.stages(exp)
    steps = steps_of(exp, launched[0])
    assert paced(exp, launched, [decided(0, 7, steps), decided(0, 9, steps)]) == launched


@pytest.mark.parametrize("seed", range(20))
def test_any_decisions_make_stages_that_can_be_written_down(seed: int) -> None:
    draw = random.Random(seed)
    curriculum = draw.choice(["end_to_end", "left_to_right", "grow", "subnetwork"])
    options = (
        {"lr": draw.choice(["per_stage", "continue", "rewarm"])} if curriculum == "grow" else {}
    )
    exp = experiment(
        draw.choice(["wsd", "cosine", "linear", "constant"]),
        curriculum={"name": curriculum, **options},
    )
    launched, decisions = sw.stages(exp), list[Decision]()
    made, factor = launched, 1.0
    for number in range(len(launched)):
        step = 0
        while draw.random() < 0.8:
            if step >= steps_of(exp, made[number]):
                break
            steps = step + draw.randint(1, 300)
            one = decided(number, step, steps, draw.choice([factor, draw.uniform(0.01, 3)]))
            decisions.append(one)
            made, factor = paced(exp, launched, decisions), one.factor
            step += draw.randint(1, 60)
        again = tuple(sw.Stage.model_validate(stage.model_dump(mode="json")) for stage in made)
        assert again == made
        assert all(0 <= rate <= LR for rate in rates(exp, made, number))
    assert rates(exp, made, len(made) - 1)[-1] <= (
        LR if exp.optim.schedule == "constant" else LR * 2
    )
