"""What a stage takes beside its steps, against sums done by hand on a machine of round rates.

The rack is that of `test_seconds_of_a_step_are_worked_out_by_hand.py`: 640 weights in products and
16 of norms in a block, 132 numbers kept per token, embedding 258 x 8, head 256 x 8 and a norm.
"""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.budget import steps_of
from stackwise.planner.stage_seconds import look_count, stage_seconds

RACK = {"blocks_per_stack": 1, "d_model": 8, "heads": 2, "d_ff": 16, "vocab": 256, "stacks": 3}
WEIGHTS = 640
FORWARD = 2 * WEIGHTS / 1e6 + 4 * 6 * 8 / 1e5 + 132 / 1e4  # seconds per token of a block
HEAD = 2 * 8 * 256 / 1e6 + 256 / 1e3 / 2


def experiment(**changes) -> sw.Experiment:
    base = sw.Experiment(
        rack=RACK,
        objective="clm",
        curriculum={"name": "left_to_right", "split": "tokens"},
        data={"seq_len": 6, "restart": True},
        optim={"batch": 2, "clip": None, "ema": None},
        budget={"tokens": 3 * 120},
        eval={"points": 3, "windows": 4, "final": 10},
    )
    return base.replace(**changes)


def found(exp, machine, number, **placed):
    placement = sw.Placement(checkpoint_seconds=1e9, **placed)
    return stage_seconds(exp, placement, sw.stages(exp), number, machine)


def test_steps_are_the_tokens_over_a_batch(machine) -> None:
    stage = found(experiment(), machine(), 1)
    assert stage.steps == pytest.approx(10 * stage.step.total)
    parts = stage.starting, stage.filling, stage.looks, stage.freezing, stage.checkpoints
    assert stage.total == pytest.approx(stage.steps + sum(parts))


def test_looks_are_counted_as_the_run_counts_them(machine) -> None:
    """One at each third of the run, which here is a stage's end; more where they are spread."""
    exp = experiment()
    made = sw.stages(exp)
    assert [look_count(exp, made, n) for n in range(3)] == [1, 1, 1]
    often = exp.replace(eval={"points": 4})
    ends, steps = {10, 20, 30}, 30
    for number in range(3):
        taken = [
            done
            for done in range(10 * number + 1, 10 * number + 11)
            if done * 4 // steps > (done - 1) * 4 // steps or done in ends
        ]
        assert look_count(often, made, number) == len(taken)


def test_a_look_runs_the_path_once_and_the_head_at_every_depth(machine) -> None:
    stage = found(experiment(), machine(), 1)
    assert stage.looks == pytest.approx(4 * 6 * (2 * FORWARD + 3 * HEAD))


LAST = {"eval": {"depths": "last"}}


def test_a_look_at_the_end_alone_takes_one_head_and_what_a_cache_leaves(machine) -> None:
    exp = experiment(**LAST)
    assert found(exp, machine(), 1).looks == pytest.approx(4 * 6 * (2 * FORWARD + HEAD))
    cached = found(exp, machine(), 1, trunk="cached")
    assert cached.looks == pytest.approx(4 * 6 * (FORWARD + HEAD))


def test_what_is_looked_at_is_cached_beside_what_is_trained_on(machine) -> None:
    trained, both = (
        found(experiment(**more), machine(), 2, trunk="cached").filling for more in ({}, LAST)
    )
    assert both == pytest.approx(trained * (120 + 4 * 6) / 120)
    per_token = {  # masks of its own noise: nothing is taken over from the stage before
        restart: found(experiment(data={"restart": restart}), machine(), 2, trunk="cached").filling
        for restart in (True, False)
    }
    assert per_token[False] > per_token[True]


def test_the_last_stage_scores_the_rack_at_its_end(machine) -> None:
    stage = found(experiment(), machine(), 2)
    look = 4 * 6 * (3 * FORWARD + 4 * HEAD)
    score = 10 * 6 * (3 * FORWARD + HEAD)
    assert stage.looks == pytest.approx(2 * look + score)


def test_starting_draws_the_matrices_that_are_new(machine) -> None:
    ends = 258 * 8 + 256 * 8
    assert found(experiment(), machine(), 0).starting == pytest.approx((WEIGHTS + ends) / 1e4)
    assert found(experiment(), machine(), 1).starting == pytest.approx(WEIGHTS / 1e4)


def test_a_cache_is_filled_through_one_stack_from_the_one_before(machine) -> None:
    exp = experiment()
    disk = 8 * 4 * (1 / 1e5 + 1 / 1e6)
    through = FORWARD + 4 * WEIGHTS / 1e6 / 2 / 12  # its blocks are read by one of two threads
    assert found(exp, machine(), 0, trunk="cached").filling == 0
    first = found(exp, machine(), 1, trunk="cached").filling
    assert first == pytest.approx(120 * (through + disk))
    second = found(exp, machine(), 2, trunk="cached").filling
    assert second == pytest.approx(first + 120 * 8 * 4 / 1e6)
    anew = exp.replace(data={"restart": False})
    from_tokens = found(anew, machine(), 2, trunk="cached").filling
    assert from_tokens == pytest.approx(120 * (2 * through + disk))
    assert found(exp, machine(), 2).filling == 0


def test_freezing_packs_and_looks_twice(machine) -> None:
    exp = experiment(precision={"frozen": "nf4"})
    stage = found(exp, machine(), 0)
    assert stage.freezing == pytest.approx(WEIGHTS / 1e4 + 2 * 4 * 6 * (FORWARD + HEAD))
    assert found(exp, machine(), 2).freezing == 0, "what nothing follows stays as it trained"
    assert found(experiment(), machine(), 0).freezing == 0


def test_checkpoints_are_hashed_and_written(machine) -> None:
    """At the border what the stage trained; inside it the moments, too, each time it is due."""
    exp = experiment()
    made, each = sw.stages(exp), 1 / 1e5 + 1 / 1e6
    head, stack = 4 * (256 * 8 + 8), 4 * (WEIGHTS + 16)
    plain = found(exp, machine(), 1).checkpoints
    names = 160 * 7  # of a stack's tensors, in a file that is not written again
    assert plain == pytest.approx((head + stack + names) * each)
    numbers, tensors = 256 * 8 + 8 + WEIGHTS + 16, 9
    inside = 4 * numbers + 8 * numbers + 4 * tensors
    stage = found(exp, machine(), 1)
    often = stage_seconds(
        exp, sw.Placement(checkpoint_seconds=(stage.steps + stage.looks) / 2.5), made, 1, machine()
    )
    assert often.checkpoints == pytest.approx(plain + 2 * inside * each)
    always = stage_seconds(exp, sw.Placement(checkpoint_seconds=1e-9), made, 1, machine())
    steps = steps_of(exp, made[1])
    assert always.checkpoints == pytest.approx(plain + (steps - 1) * inside * each), "one a step"
