"""Seconds of a step against sums done by hand, on a machine of round rates.

The rack: width 8, two heads of 4, feed-forward 16 wide, 256 entries; so a block has products with
8 x 24 + 8 x 8 + 3 x 8 x 16 = 640 weights and keeps, per token, 2 x (8 + 1) for norms, 2 for
log-sum-exp, 4 x 8 of attention and 8 of its input, 3 x 16 + 16 + 8 of the feed-forward: 132.
"""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.memory.flops import stage_flops_per_token
from stackwise.planner.seconds import CALLS, step_seconds

RACK = {"blocks_per_stack": 1, "d_model": 8, "heads": 2, "d_ff": 16, "vocab": 256}
WEIGHTS, KEPT, TENSORS = 640, 132, 640 + 16
TOKENS = 12  # two samples of six


def experiment(**changes) -> sw.Experiment:
    base = sw.Experiment(
        rack={**RACK, "stacks": 2},
        objective="clm",
        data={"seq_len": 6},
        optim={"batch": 2, "clip": None, "ema": None},
        budget={"tokens": 600},
    )
    return base.replace(**changes)


def seconds(exp: sw.Experiment, machine, number: int = -1, **placed):
    return step_seconds(exp, sw.Placement(**placed), sw.stages(exp)[number], machine)


def test_products_take_the_ledgers_flops(machine) -> None:
    """With all else for free, seconds times the rate are the FLOPs, of every role."""
    free = machine(
        attention={key: ((1.0, 1e6),) for key in machine().attention},
        around={key: ((1.0, 1e30),) for key in machine().around},
        loss={key: ((1.0, 1e30),) for key in machine().loss},
        dequantise={key: ((1.0, 1e30),) for key in machine().dequantise},
    )
    for name in ("end_to_end", "left_to_right", "right_to_left"):
        for objective in ("clm", "diffusion"):
            exp = experiment(curriculum=name, objective=objective)
            for stage in sw.stages(exp):
                found = step_seconds(exp, sw.Placement(), stage, free)
                worked = found.trunk + found.forward + found.backward + found.head
                flops = TOKENS * stage_flops_per_token(exp, stage).total
                assert worked == pytest.approx(flops / 1e6)


def test_a_block_forward_and_backward(machine) -> None:
    found = seconds(experiment(), machine())
    pairs = 4 * 6 * 8  # FLOPs per token of scores and sums
    forward = TOKENS * (2 * WEIGHTS / 1e6 + pairs / 1e5 + KEPT / 1e4)
    backward = TOKENS * (4 * WEIGHTS / 1e6 + 2 * pairs / 1e5 + KEPT / 1e4)
    assert found.forward == pytest.approx(2 * forward)
    assert found.backward == pytest.approx(2 * backward)
    assert found.trunk == found.recompute == found.streaming == found.accumulate == 0


def test_the_head_and_the_embedding(machine) -> None:
    found = seconds(experiment(), machine())
    assert found.head == pytest.approx(TOKENS * (6 * 8 * 256 / 1e6 + 256 / 1e3))
    assert found.embedding == pytest.approx(TOKENS * 8 / 1e3 + 4 * 8 * 256 / 1e6)


def test_many_logits_are_made_a_second_time_where_the_head_trains(machine, monkeypatch) -> None:
    monkeypatch.setattr("stackwise.planner.passes.LOGITS_AT_ONCE", 100)
    found = seconds(experiment(), machine())
    assert found.head == pytest.approx(TOKENS * (8 * 8 * 256 / 1e6 + 2 * 256 / 1e3))


def test_checkpointing_repeats_forward(machine) -> None:
    found = seconds(experiment(), machine(), checkpointing=True)
    assert found.recompute == pytest.approx(found.forward)
    assert found.forward == pytest.approx(seconds(experiment(), machine()).forward)


def test_what_trains_moves_once_per_step(machine) -> None:
    exp = experiment(optim={"clip": 1.0, "ema": 0.99})
    found, numbers = seconds(exp, machine()), 2 * TENSORS + 258 * 8 + 256 * 8 + 8
    assert found.optimizer == pytest.approx(numbers * (1 / 1e4 + 1 / 2e4 + 1 / 4e4))
    assert found.average == pytest.approx(numbers / 1e4)
    cut = seconds(exp, machine(), micro_batch=1)
    assert (cut.optimizer, cut.average) == (found.optimizer, found.average)
    assert seconds(exp, machine(), micro_batch=2).accumulate == 0
    assert cut.accumulate == pytest.approx(numbers / 1e5)
    assert cut.forward == pytest.approx(found.forward)


def test_a_trunk_runs_forward_alone(machine) -> None:
    exp = experiment(curriculum="left_to_right")
    found = seconds(exp, machine())
    pairs = 4 * 6 * 8
    forward = TOKENS * (2 * WEIGHTS / 1e6 + pairs / 1e5 + KEPT / 1e4)
    assert found.trunk == pytest.approx(forward) == pytest.approx(found.forward)


def test_frozen_weights_are_dequantised_in_each_pass(machine) -> None:
    left = experiment(curriculum="left_to_right", precision={"frozen": "nf4"})
    plain = experiment(curriculum="left_to_right")
    more = seconds(left, machine()).trunk - seconds(plain, machine()).trunk
    assert more == pytest.approx(WEIGHTS / 1e4)
    right = experiment(curriculum="right_to_left", precision={"frozen": "nf4"})
    plain = experiment(curriculum="right_to_left")
    there, without = seconds(right, machine()), seconds(plain, machine())
    assert there.forward - without.forward == pytest.approx(WEIGHTS / 1e4)
    assert there.backward - without.backward == pytest.approx(WEIGHTS / 1e4)


def test_float32_weights_are_cast_for_bfloat16_products(machine) -> None:
    wide = experiment(precision={"compute": "bfloat16"})
    low = experiment(precision={"compute": "bfloat16", "weights": "bfloat16"})
    assert seconds(wide, machine()).fresh == 0
    assert seconds(low, machine()).fresh == 0
    found, without = seconds(wide, machine()), seconds(low, machine())
    assert found.forward - without.forward == pytest.approx(2 * WEIGHTS / 5e4)
    assert found.backward - without.backward == pytest.approx(2 * WEIGHTS / 5e4)


def test_reading_ahead_takes_a_thread_and_what_it_is_late(machine) -> None:
    """One block of 640 float32 numbers comes by; on two threads half of that is lost."""
    exp = experiment(curriculum="left_to_right")
    read = 4 * WEIGHTS / 1e6
    found = seconds(exp, machine(), trunk="streamed")
    assert found.streaming == pytest.approx(read / 2)
    slow = machine(page_read=100.0)
    late = seconds(exp, slow, trunk="streamed")
    assert late.total == pytest.approx(4 * WEIGHTS / 100.0)


def test_on_a_card_reading_is_hidden_as_long_as_computing_takes_longer(machine) -> None:
    exp = experiment(curriculum="left_to_right")
    card = machine(kind="cuda", link_rate=1e6, threads=1)
    assert seconds(exp, card, trunk="streamed").streaming == 0
    slow = machine(kind="cuda", link_rate=100.0, threads=1)
    found = seconds(exp, slow, trunk="streamed", stream_from="host")
    assert found.total == pytest.approx(4 * WEIGHTS / 100.0)


def test_a_cached_trunk_is_read(machine) -> None:
    found = seconds(experiment(curriculum="left_to_right"), machine(), trunk="cached")
    assert found.trunk == pytest.approx(TOKENS * 8 / 1e5)
    assert found.embedding == found.streaming == 0


def test_calls_on_a_card_count_where_they_take_longer_than_the_work(machine) -> None:
    exp = experiment()
    fast = machine(kind="cuda", threads=1, calls_overlap=True, call_seconds=1.0)
    found = seconds(exp, fast)
    tensors = 2 * 7 + 3  # of two blocks; the table, the head and its norm
    assert found.total == pytest.approx(2 * sum(CALLS.values()) + 12 * tensors)
    slow = machine(kind="cuda", threads=1, calls_overlap=True, call_seconds=1e-9)
    assert seconds(exp, slow).launching == 0


def test_calls_are_those_that_a_block_makes_in_its_role(machine) -> None:
    left = experiment(curriculum="left_to_right")
    fast = machine(kind="cuda", threads=1, calls_overlap=True, call_seconds=1.0)
    tensors = 7 + 3  # of the block that trains; the table is done, the head has a norm
    own = sum(CALLS.values()) + 12 * (tensors - 1)
    assert seconds(left, fast).total == pytest.approx(own + CALLS["forward"])
    assert seconds(left, fast, trunk="cached").total == pytest.approx(own)
    again = seconds(left, fast, trunk="cached", checkpointing=True)
    assert again.total == pytest.approx(own + CALLS["forward"])


def test_reading_hides_calls_as_computing_does(machine) -> None:
    left = experiment(curriculum="left_to_right")
    slow = machine(kind="cuda", threads=1, calls_overlap=True, call_seconds=1.0, link_rate=10.0)
    found = seconds(left, slow, trunk="streamed")
    assert found.launching == 0 and found.total == pytest.approx(4 * WEIGHTS / 10.0)


def test_every_micro_batch_reads_what_is_lent(machine) -> None:
    """Three samples, two at a time, are two passes."""
    exp = experiment(curriculum="left_to_right", optim={"batch": 3})
    found = seconds(exp, machine(page_read=100.0), trunk="streamed", micro_batch=2)
    assert found.total == pytest.approx(2 * 4 * WEIGHTS / 100.0)


def test_large_gradients_are_cleared_page_by_page(machine, monkeypatch) -> None:
    """The table of 258 x 8 numbers and the head of 256 x 8, as no other tensor is so large."""
    monkeypatch.setattr("stackwise.planner.moving.MAPPED_BYTES", 4 * 2000)
    found = seconds(experiment(), machine(), micro_batch=1)
    assert found.fresh == pytest.approx(2 * 4 * (258 + 256) * 8 / 1e6)
    shared = experiment(optim={"grads": "in_backward"})
    assert seconds(shared, machine()).fresh == 0
    assert seconds(experiment(), machine(kind="cuda", threads=1)).fresh == 0


def test_a_last_micro_batch_may_be_smaller(machine) -> None:
    exp = experiment(optim={"batch": 5}, budget={"tokens": 6000})
    whole, cut = seconds(exp, machine()), seconds(exp, machine(), micro_batch=2)
    assert cut.forward == pytest.approx(whole.forward)
    assert cut.accumulate == pytest.approx(2 * seconds(exp, machine(), micro_batch=3).accumulate)


def test_products_of_an_optimizer_go_at_the_rate_of_bfloat16_ones(machine) -> None:
    """Muon's of the six matrices of a block: 5 (4 m m n + 2 m m m), m the shorter side of each."""
    made = {"optim": {"name": "muon"}, "rack": {"stacks": 1}}
    exp = experiment(**made)
    plain = experiment(**made | {"optim": {"name": "adamw"}})
    shapes = [(24, 8), (8, 8), (16, 8), (16, 8), (8, 16)]
    flops = sum(5 * (4 * min(s) ** 2 * max(s) + 2 * min(s) ** 3) for s in shapes)
    found, without = seconds(exp, machine()), seconds(plain, machine())
    assert found.optimizer - without.optimizer == pytest.approx(flops / 2e6)


def test_slices_go_at_the_rate_of_each_tensor(machine) -> None:
    """A rule of slices at two sizes: the matrices of one block by themselves."""
    kinds = {key: ((1.0, 1e4),) for key in machine().optimizer}
    kinds["adamw8bit/float32/master"] = ((64.0, 64.0), (128.0, 128.0))
    exp = experiment(optim={"name": "adamw8bit"}, rack={"stacks": 1})
    found = seconds(exp, machine(optimizer=kinds))
    numbers = TENSORS + 258 * 8 + 256 * 8 + 8
    matrices = [192, 64, 128, 128, 128, 2064, 2048]
    own = sum(n / min(max(n, 64), 128) for n in matrices) + 3 * 1.0  # three norms of 8: as 64 do
    assert found.optimizer == pytest.approx(own + numbers / 2e4)
