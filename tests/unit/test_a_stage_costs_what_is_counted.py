"""The ledger of a whole stage against torch's counter, in every role that a stack can have.

The oracle is one training step, forward and backward, with torch's plain attention, since its
counter is blind to the fused one (`test_flops_equal_the_counter.py`). Equal to the last FLOP.
"""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import stackwise as sw
from stackwise.memory.flops import stage_flops_per_token, vocab_size
from stackwise.objective import Corrupted, is_causal
from stackwise.training.step import micro_loss, setting_of
from stackwise.training.trained import freeze_all_but

BATCH, LENGTH = 2, 8
ALL = ("s0", "s1", "s2")

PRE = {"stacks": 3, "blocks_per_stack": 2, "d_model": 16, "heads": 2, "d_ff": 32}
POST = {**PRE, "norm_place": "post", "norm": "layernorm", "ffn": "gelu", "bias": True}
RACKS = {
    "pre": PRE,
    "pre, tied": {**PRE, "tied": True},
    "pre, transform": {**PRE, "head_transform": True},
    "post": POST,
    "post, tied": {**POST, "tied": True},
    "bert": {**POST, "tied": True, "head_transform": True, "head_bias": True, "embed_norm": True},
}
RACKS |= {
    f"{place}, {name}": {**rack, **option}
    for place, rack in (("pre", PRE), ("post", POST))
    for name, option in (
        ("sinusoidal", {"time": "sinusoidal", "time_width": 6}),
        ("learned", {"time": "learned", "time_width": 5}),
        ("frozen up", {"frozen_up": True}),
    )
}
STAGES = {
    "all": {"active": ALL},
    "all but embedding": {"active": ALL, "embedding": False},
    "all but head": {"active": ALL, "head": False},
    "blocks alone": {"active": ALL, "embedding": False, "head": False},
    "trunk, active": {"active": ("s2",), "embedding": False},
    "trunk, active, suffix": {"active": ("s1",), "embedding": False, "head": False},
    "embedding, suffix, active": {"active": ("s1",)},
    "active, suffix": {"active": ("s0",), "embedding": False, "head": False},
    "active, suffix, active": {"active": ("s0", "s2"), "embedding": False},
    "embedding alone": {"active": (), "head": False},
    "head alone": {"active": (), "embedding": False},
    "both ends": {"active": ()},
}
ATTENTIONS = [
    {"kind": "mla"},
    {"kind": "mla", "q_rank": 6},
    {"kind": "kernel", "features": 8, "chunk": 3},
    {"kind": "linear", "chunk": 3},
    {"kind": "window", "window": 2},
]


def spent(exp, stage):
    """FLOPs of one step on BATCH samples: by torch, and by the ledger."""
    rack = sw.Rack(exp.rack, exp.attention, vocab_size(exp))
    if exp.rack.tied and stage.head != stage.embedding:
        rack.untie()
    freeze_all_but(rack.parts(), stage)
    ids_BT = torch.arange(BATCH * LENGTH).view(BATCH, LENGTH) % vocab_size(exp)
    counted_BT = ids_BT % 3 == 0
    one_B = torch.ones(BATCH)
    noisy = Corrupted(
        ids_BT.masked_fill(counted_BT, rack.mask_id), ids_BT, counted_BT, one_B, one_B
    )
    setting = setting_of(
        rack,
        stage,
        causal=is_causal(exp.objective),
        micro_batch=None,
        checkpointing=False,
        compute=torch.float32,
        device=torch.device("cpu"),
        clip=None,
    )
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        micro_loss(rack, noisy, setting, ids_BT.numel()).backward()
    cost = stage_flops_per_token(exp, stage)
    body = (cost.total - cost.head) * ids_BT.numel()
    return counter.get_total_flops(), body + cost.head_per_position * int(counted_BT.sum())


def experiment(rack, attention="mha", objective="diffusion"):
    return sw.Experiment(
        rack=rack, attention=attention, objective=objective, data={"seq_len": LENGTH}, budget=10**6
    )


@pytest.mark.parametrize("rack", RACKS.values(), ids=RACKS)
@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_every_role_costs_what_is_counted(rack, stage):
    by_torch, by_ledger = spent(experiment(rack), sw.Stage(path=ALL, **stage))
    assert by_ledger == by_torch


@pytest.mark.parametrize("objective", ["diffusion", "clm"])
@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
@pytest.mark.parametrize("rack", [PRE, POST], ids=["pre", "post"])
@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_every_attention_kind_costs_what_is_counted(rack, stage, attention, objective):
    exp = experiment(rack, attention, objective)
    by_torch, by_ledger = spent(exp, sw.Stage(path=ALL, **stage))
    assert by_ledger == by_torch


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_stage_of_another_length_costs_what_is_counted_at_that_length(stage):
    """The scores of attention depend on it, and those alone."""
    exp = experiment(PRE).replace(data={"seq_len": 4 * LENGTH})
    by_torch, by_ledger = spent(exp, sw.Stage(path=ALL, seq_len=LENGTH, **stage))
    assert by_ledger == by_torch != spent(exp, sw.Stage(path=ALL, **stage))[1]


def test_an_objective_without_a_schedule_pays_for_the_head_at_every_position(monkeypatch):
    """Nothing says where a user's own objective counts: all positions is what it cannot exceed."""
    monkeypatch.setitem(sw.OBJECTIVES, "mine", lambda rule, batch, progress: None)
    own, causal = experiment(PRE, objective="mine"), experiment(PRE, objective="clm")
    stage = sw.Stage(path=ALL, active=ALL)
    assert stage_flops_per_token(own, stage) == stage_flops_per_token(causal, stage)
    scheduled = own.replace(masking={"schedule": "linear"})
    half = stage_flops_per_token(scheduled, stage)
    assert half.head == pytest.approx(half.head_per_position / 2)
