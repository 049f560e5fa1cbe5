"""What adapters add, by arithmetic: FLOPs against torch's counter, and what autograd keeps."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import stackwise as sw
from stackwise.adapters import Adapter
from stackwise.data.batches import Batch
from stackwise.memory.bytes import stage_bytes
from stackwise.memory.flops import forward_flops_per_token, stage_flops_per_token, vocab_size
from stackwise.memory.lowrank import adapter_numbers, adapters_of, kept_beside, not_kept
from stackwise.memory.parts import saved_of
from stackwise.memory.stored import state_of
from stackwise.model.adapters import adapter_state, put_on
from stackwise.model.attention.rope import Rotary, table
from stackwise.model.direction import twice
from stackwise.objective import Corrupted, Corruption, corrupt, is_causal
from stackwise.training.optim import Optimizer
from stackwise.training.step import micro_loss, setting_of
from stackwise.training.trained import freeze_all_but
from stackwise.training.updates import OPTIMIZERS

BATCH, LENGTH = 2, 8
ALL = ("s0", "s1", "s2")
PRE = {"stacks": 3, "blocks_per_stack": 2, "d_model": 16, "heads": 2, "d_ff": 32}
POST = {**PRE, "norm_place": "post", "norm": "layernorm", "ffn": "gelu", "bias": True}
TIMED = {**PRE, "time": "sinusoidal"}
KINDS = ["mha", {"kind": "mla"}, {"kind": "mla", "q_rank": 6}, {"kind": "kernel", "features": 8}]


def on(*ranks, targets="all"):
    return tuple(
        Adapter(stack=f"s{i}", rank=rank, targets=targets) for i, rank in enumerate(ranks) if rank
    )


STAGES = {
    "trunk": {"active": ("s2",), "embedding": False, "adapters": on(0, 3)},
    "whole trunk": {"active": ("s2",), "embedding": False, "adapters": on(1, 3)},
    "suffix": {"active": ("s0",), "embedding": False, "head": False, "adapters": on(0, 2, 4)},
    "suffix under the embedding": {"active": ("s0",), "head": False, "adapters": on(0, 2, 4)},
    "dual": {"active": ("s1",), "embedding": False, "adapters": on(2, 0, 4)},
    "alone": {"active": (), "embedding": False, "head": False, "adapters": on(2, 3, 4)},
    "with the head": {"active": (), "embedding": False, "adapters": on(0, 3, 0)},
    "with the embedding": {"active": (), "head": False, "adapters": on(0, 3, 0)},
}
TARGETS = ["all", "attention", "ffn"]


def stage_of(name, targets):
    fields = dict(STAGES[name])
    adapters = [a.model_copy(update={"targets": targets}) for a in fields.pop("adapters")]
    return sw.Stage(path=ALL, **fields, adapters=tuple(adapters))


def rack_of(exp, stage):
    rack = sw.Rack(exp.rack, exp.attention, vocab_size(exp))
    for adapter in stage.adapters:
        put_on(rack.stacks[adapter.stack], adapter, generator=torch.Generator())
    freeze_all_but(rack.parts(), stage)
    return rack


def experiment(rack, attention="mha", **changes):
    sizes = {"data": {"seq_len": LENGTH}, "budget": 10**6}
    return sw.Experiment(rack=rack, attention=attention, **sizes, **changes)


def noisy_of(exp):
    """A batch of an experiment: with `block_diffusion` its own, else one position in three."""
    if exp.objective.choice == "block_diffusion":
        place_B = np.arange(BATCH)
        ids_BT = np.random.default_rng(0).integers(0, 200, (BATCH, LENGTH))
        rule = Corruption(exp.objective, vocab_size(exp), exp.optim.batch, 0)
        return corrupt(rule, Batch(ids_BT, place_B, 0 * place_B, place_B))
    ids_BT = torch.arange(BATCH * LENGTH).view(BATCH, LENGTH) % vocab_size(exp)
    counted_BT, one_B = ids_BT % 3 == 0, torch.ones(BATCH)
    hidden_BT = ids_BT.masked_fill(counted_BT, vocab_size(exp))
    return Corrupted(hidden_BT, ids_BT, counted_BT, one_B, one_B)


def spent(exp, stage):
    """FLOPs of one step: by torch, and by the ledger."""
    rack = rack_of(exp, stage)
    noisy = noisy_of(exp)
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
        micro_loss(rack, noisy, setting, noisy.positions).backward()
    cost = stage_flops_per_token(exp, stage)
    body = (cost.total - cost.head) * noisy.positions
    return counter.get_total_flops(), body + cost.head_per_position * int(noisy.counted_BT.sum())


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("rack", [PRE, POST, TIMED], ids=["pre", "post", "timed"])
@pytest.mark.parametrize("name", STAGES)
def test_every_place_of_an_adapter_costs_what_is_counted(name, rack, targets):
    by_torch, by_ledger = spent(experiment(rack), stage_of(name, targets))
    assert by_ledger == by_torch


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("attention", [*KINDS, "mqa", "linear", "window:4"], ids=str)
@pytest.mark.parametrize("name", ["whole trunk", "alone"])
def test_on_every_attention_kind(name, attention, targets):
    by_torch, by_ledger = spent(experiment(PRE, attention), stage_of(name, targets))
    assert by_ledger == by_torch


def in_blocks(block, rack=PRE, attention="mha"):
    return experiment(rack, attention, objective={"kind": "block_diffusion", "block": block})


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("name", STAGES)
def test_where_text_is_read_noisy_and_clean(name, targets):
    """R/T is no whole number, so to the rounding of a product; of one block as of diffusion."""
    by_torch, by_ledger = spent(in_blocks(3), stage := stage_of(name, targets))
    assert by_ledger == pytest.approx(by_torch, rel=1e-12)
    whole, diffusion = (stage_flops_per_token(e, stage) for e in (in_blocks(8), experiment(PRE)))
    assert whole == diffusion


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("attention", ["mqa", KINDS[2]], ids=str)
@pytest.mark.parametrize(("rack", "block"), [(PRE, 1), (POST, 3)], ids=["pre", "post"])
def test_of_kinds_that_read_block_by_block(rack, block, attention, targets):
    stage = stage_of("alone", targets)
    by_torch, by_ledger = spent(in_blocks(block, rack, attention), stage)
    assert by_ledger == pytest.approx(by_torch, rel=1e-12)


@pytest.mark.parametrize("block", [1, 3, 8])
def test_reading_them_ahead_costs_what_is_counted(block):
    exp, stage = in_blocks(block), stage_of("alone", "all")
    rack, noisy = rack_of(exp, stage), noisy_of(exp)
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        rack.hidden(noisy.input_BT, causal=noisy.direction(False))
    said = forward_flops_per_token(exp, stage.path, adapters_of(stage)) * noisy.positions
    assert said == pytest.approx(counter.get_total_flops(), rel=1e-12)


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_their_optimizer_state_is_counted_and_they_are_float32_always(name, low):
    """Of a rank at which their matrices are large enough for states in bytes."""
    if OPTIMIZERS[name].missing():
        pytest.skip(OPTIMIZERS[name].missing())
    precision = {"weights": "bfloat16", "compute": "bfloat16"} if low else {}
    exp = experiment({**PRE, "d_model": 64}, optim={"name": name}, precision=precision)
    stage = sw.Stage(path=ALL, active=("s2",), embedding=False, head=False, adapters=on(64))
    rack = rack_of(exp, stage)
    named = freeze_all_but(rack.parts(), stage)
    optimizer = Optimizer(exp.optim, named, shape=exp.rack)
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    beside = {p for (part, _), p in named.items() if part == "s0.adapter"}
    assert beside and {p.dtype for p in beside} == {torch.float32}
    held = sum(t.nbytes for p in beside for t in optimizer.state[p].values())
    assert held == state_of(exp, "s0.adapter", stage=stage)
    assert {p for p in beside if "exp_avg_sq" in optimizer.state[p]} == (
        beside if name in ("adamw", "muon") else set()
    )


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("attention", KINDS, ids=str)
def test_the_numbers_of_an_adapter_are_counted(attention, targets):
    exp, stage = experiment(PRE, attention), stage_of("alone", targets)
    rack = rack_of(exp, stage)
    for adapter in stage.adapters:
        tensors = adapter_state(rack.stacks[adapter.stack])
        assert adapter_numbers(exp, adapter) == sum(t.numel() for t in tensors.values())


def constants_of(block, causal, like):
    """What is there once: tables of rotations, and what rows see of each other."""
    rotaries = [m for m in block.modules() if isinstance(m, Rotary)]
    if causal is False:
        return [rotary.table_TF2 for rotary in rotaries]
    parts, device = (causal.noisy, causal.clean), like.device
    tables = [table(parts, m.dim, m.base, m.scaling, device) for m in rotaries]
    return [causal.bias(None, like), *tables]


def kept(block, x_BTD, causal=False):
    """Numbers in the storages that autograd keeps of a block, its weights aside."""
    block(x_BTD, causal=causal)  # tables that grow on first use
    constant = {t.untyped_storage().data_ptr() for t in [*block.parameters(), *block.buffers()]}
    constant |= {t.untyped_storage().data_ptr() for t in constants_of(block, causal, x_BTD)}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in constant:
            seen[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        block(x_BTD, causal=causal)
    return sum(seen.values())


@pytest.mark.parametrize("leads", [False, True], ids=["crossed", "leads"])
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("rack", [PRE, POST], ids=["pre", "post"])
@pytest.mark.parametrize("attention", KINDS[:3], ids=str)
def test_a_block_keeps_what_is_predicted(attention, rack, targets, leads):
    exp, stage = experiment(rack, attention), stage_of("alone", targets)
    block = rack_of(exp, stage).stacks["s1"].blocks[0]
    adapter = stage.adapters[1]
    predicted = saved_of(exp, False).plus(kept_beside(exp, adapter)).bytes(4) / 4
    predicted -= not_kept(exp, adapter).bytes(4) / 4 if leads else 0
    x_BTD = torch.randn(BATCH, LENGTH, 16, requires_grad=not leads)
    assert kept(block, x_BTD) == BATCH * LENGTH * predicted


@pytest.mark.parametrize("leads", [False, True], ids=["crossed", "leads"])
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("attention", KINDS[:3], ids=str)
def test_a_block_keeps_what_is_predicted_of_noisy_and_clean_rows(attention, targets, leads):
    exp, stage = in_blocks(3, attention=attention), stage_of("alone", targets)
    block, adapter = rack_of(exp, stage).stacks["s1"].blocks[0], stage.adapters[1]
    each = saved_of(exp, False).plus(kept_beside(exp, adapter)).bytes(4) / 4
    each -= not_kept(exp, adapter).bytes(4) / 4 if leads else 0
    how = twice(3, LENGTH)
    x_BRD = torch.randn(BATCH, how.rows, 16, requires_grad=not leads)
    assert kept(block, x_BRD, how) == BATCH * how.rows * each


def test_the_plan_counts_rows_of_a_stack():
    exp, stage = in_blocks(3).replace(optim={"batch": BATCH}), stage_of("alone", "all")
    parts = stage_bytes(exp, sw.Placement(device="cpu"), stage, {*ALL})
    stack, how = rack_of(exp, stage).stacks["s1"], twice(3, LENGTH)
    x_BRD = torch.randn(BATCH, how.rows, 16, requires_grad=True)
    assert 4 * kept(stack, x_BRD, how) == parts["s1"].activations
