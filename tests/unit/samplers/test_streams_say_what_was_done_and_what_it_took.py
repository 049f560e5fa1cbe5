"""A step's counts, against the calls that were made and torch's own FLOP counter."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import stackwise as sw
from stackwise.memory.flops import (
    forward_flops_per_token,
    head_flops,
    head_flops_per_position,
    read_flops_per_token,
)
from stackwise.model.adapters import put_on
from stackwise.sampling import SAMPLERS, choose, logits_at
from stackwise.schedules import time_schedule
from tests.unit.samplers.conftest import BANDS


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_flops_are_those_that_torch_counts(name, rack_of):
    """For every sampler and every step, prompts of several lengths of masks, bands and all."""
    rack = rack_of("clm" if name == "autoregressive" else "diffusion", paths=BANDS)
    ids_BT = torch.full((3, 9), rack.mask_id)
    ids_BT[1, :4] = 0
    ids_BT[2, 3:] = 1
    steps = sw.stream(rack, ids_BT, method=name)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for step in steps:
            assert step.flops == counter.get_total_flops()
    assert step.flops > 0


@pytest.mark.parametrize("objective", ["diffusion", "clm"])
def test_adapters_that_a_rack_carries_are_among_them(objective, rack_of):
    rack = rack_of(objective)
    put_on(rack.stacks["s1"], sw.Adapter(stack="s1", rank=3), generator=torch.Generator())
    put_on(rack.stacks["s2"], sw.Adapter(stack="s2", rank=2, targets="ffn"))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for step in sw.stream(rack, [[0, 1]], length=5):
            assert step.flops == counter.get_total_flops()


@pytest.mark.parametrize("time", ["none", "sinusoidal"])
def test_a_rack_alone_costs_what_the_experiment_says(time):
    exp = sw.Experiment.preset("toy").replace(objective="diffusion", rack={"time": time})
    ids = sw.stack_ids(exp.rack)
    length = exp.data.seq_len
    found = read_flops_per_token(exp.rack, exp.attention, ids[1:], length, False)
    assert found == pytest.approx(forward_flops_per_token(exp, ids[1:]), rel=1e-12)
    assert head_flops(exp.rack, sw.vocab_size(exp)) == head_flops_per_position(exp)


def test_forwards_are_the_calls_that_were_made(toy_law):
    law = toy_law(length=6)
    for step in sw.stream(law, [[3] * 6, [0, 1, 2, 3, 3, 3]], method="first_hitting"):
        assert step.forwards == len(law.calls) == step.number
        assert step.samples == sum(len(ids_BT) for ids_BT, _ in law.calls)
        assert step.flops is None, "what a law costs is not known"
    assert step.samples == 6 + 3


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_empty_steps_cost_nothing_and_change_nothing(schedule, toy_law, params):
    """500 steps of ancestral: the samples of a loop that reads at every one of them, and no more
    reads of a sample than first-hitting takes."""
    law, steps, seed = toy_law(length=5), 500, 3
    start_BT = torch.full((4, 5), law.mask_id)
    *_, last = sw.stream(law, start_BT, method=f"ancestral:{schedule}", steps=steps, seed=seed)
    *_, hitting = sw.stream(law, start_BT, method="first_hitting")
    assert last.number == steps
    assert last.samples <= hitting.samples == start_BT.numel()

    generator = torch.Generator().manual_seed(seed)
    alpha = time_schedule(params.schedule(schedule)).alpha(np.linspace(1, 0, steps + 1))
    ids_BT, reads = start_BT, 0
    for number in range(steps):
        logits_BTV = law.logits(law.hidden(ids_BT, causal=False))
        reads += len(ids_BT)
        u_BT = torch.rand(ids_BT.shape, generator=generator, dtype=torch.float64)
        stays = (1 - alpha[number + 1]) / (1 - alpha[number])
        leaves_BT = (ids_BT == law.mask_id) & (u_BT >= stays)
        if leaves_BT.any():
            chosen_N = choose(logits_BTV[leaves_BT], 1.0, generator)
            ids_BT = ids_BT.masked_scatter(leaves_BT, chosen_N)
    assert torch.equal(last.ids_BT, ids_BT)
    assert reads >= 100 * last.samples


def test_logits_that_are_used_again_would_be_the_same(toy_law):
    """What the loop above rests on: what a sample reads depends on its ids alone."""
    law = toy_law(length=4)
    ids_BT = torch.tensor([[3, 0, 3, 3], [3, 3, 1, 2]])
    masked_BT = ids_BT == law.mask_id
    both_NV = logits_at(law, ids_BT, masked_BT)
    assert torch.equal(both_NV[:3], logits_at(law, ids_BT[:1], masked_BT[:1]))


def test_nothing_is_read_before_the_first_step_is_asked_for(toy_law):
    law = toy_law()
    steps = sw.stream(law, [], length=3)
    assert law.calls == []
    next(steps)
    assert len(law.calls) <= 1


def test_the_caller_of_a_stream_keeps_its_gradients(rack_of):
    for step in sw.stream(rack_of(), [], length=3, method="random"):
        assert torch.is_grad_enabled() and not step.ids_BT.requires_grad


def test_a_stream_a_trajectory_and_a_sample_are_the_same(rack_of):
    rack = rack_of()
    start_BT = torch.tensor([[1, 2, *[rack.mask_id] * 5]])
    asked = {"method": "margin", "steps": 3, "temperature": 0.8, "seed": 4}
    streamed = [step.ids_BT for step in sw.stream(rack, start_BT, **asked)]
    walked = list(sw.trajectory(rack, start_BT, "margin", 3, 0.8, 4))
    assert all(torch.equal(a, b) for a, b in zip(streamed, walked, strict=True))
    assert torch.equal(sw.sample_ids(rack, [[1, 2]], length=5, **asked), streamed[-1])


def test_text_is_shown_while_it_is_written(toy_law):
    class Letters:
        def decode(self, ids):
            return "".join("abc"[i] for i in ids)

    law = toy_law()
    assert sw.text_of(torch.tensor([0, 3, 3, 2]), Letters(), law.mask_id) == "a\u2592\u2592c"
    assert sw.text_of(torch.tensor([3]), Letters(), law.mask_id, hidden="_") == "_"


@pytest.mark.parametrize("attention", list(sw.ATTENTION))
@pytest.mark.parametrize("window", [None, 3])
def test_reading_on_from_a_cache_costs_what_torch_counts(attention, window, causal_rack):
    """A prompt at once, then one token at a time, over its end and a window's."""
    rack = causal_rack(attention, window)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for step in sw.stream(rack, [[0, 1, 2, 3]] * 2, length=7):
            assert step.flops == counter.get_total_flops()
    assert (step.forwards, step.samples) == (7, 14)


def test_a_cache_saves_what_was_read_before(causal_rack):
    """Against a rack that reads everything again: of 40 tokens some twenty times as much."""
    rack = causal_rack("mha", None)
    *_, last = sw.stream(rack, [], length=40)
    again = sum(
        n * read_flops_per_token(rack.shape, rack.attention, rack.held(), n, True)
        for n in range(1, 41)
    )
    assert last.flops - 40 * head_flops(rack.shape, rack.vocab) < again / 10
