"""What reading block by block costs, by the ledger and as torch has it: FLOPs, bytes, rows."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import stackwise as sw
from stackwise.choice import parse
from stackwise.corruption import Corruption
from stackwise.data.batches import Batch
from stackwise.evaluation import evaluate
from stackwise.memory.counted import most_counted
from stackwise.memory.flops import evaluation_flops, stage_flops_per_token, vocab_size
from stackwise.memory.parts import mask_bytes
from stackwise.model.attention import ATTENTION
from stackwise.model.attention.rope import Rotary, table
from stackwise.model.block import Block, block_saved
from stackwise.model.direction import twice
from stackwise.model.shape import RackShape
from stackwise.objective import corrupt
from stackwise.training.step import micro_loss, setting_of
from stackwise.training.trained import freeze_all_but

BATCH, LENGTH = 2, 8
ALL = ("s0", "s1", "s2")
PRE = {"stacks": 3, "blocks_per_stack": 2, "d_model": 16, "heads": 2, "d_ff": 32}
POST = {**PRE, "norm_place": "post", "norm": "layernorm", "ffn": "gelu", "bias": True}
STAGES = {
    "all": {"active": ALL},
    "all but embedding": {"active": ALL, "embedding": False},
    "trunk, active, suffix": {"active": ("s1",), "embedding": False, "head": False},
}


def experiment(block, rack=None, attention="mha", **changes):
    return sw.Experiment(
        rack=rack or PRE,
        attention=attention,
        objective={"kind": "block_diffusion", "block": block},
        data={"seq_len": LENGTH},
        budget=10**6,
        **changes,
    )


def noisy_of(exp, rows=BATCH, seed=0, length=LENGTH, block=None):
    objective = exp.objective if block is None else exp.objective.replace(block=block)
    rule = Corruption(objective, vocab_size(exp), exp.optim.batch, seed)
    place_B = np.arange(rows)
    ids_BT = np.random.default_rng(0).integers(0, 200, (rows, length))
    return corrupt(rule, Batch(ids_BT, place_B, 0 * place_B, place_B))


def spent(exp, stage, noisy):
    """FLOPs of a step, by torch and by the ledger."""
    rack = sw.Rack(exp.rack, exp.attention, vocab_size(exp))
    freeze_all_but(rack.parts(), stage)
    setting = setting_of(
        rack,
        stage,
        causal=False,
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
    ledger = body + cost.head_per_position * int(noisy.counted_BT.sum())
    return counter.get_total_flops(), ledger


@pytest.mark.parametrize("rack", [PRE, POST], ids=["pre", "post"])
@pytest.mark.parametrize("attention", [kind for kind in ATTENTION if ATTENTION[kind].blocks])
@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
@pytest.mark.parametrize("block", [1, 3, 8])
def test_a_step_costs_what_is_counted(rack, attention, stage, block):
    """R/T is no whole number, so to the rounding of a product."""
    exp = experiment(block, rack, attention)
    by_torch, by_ledger = spent(exp, sw.Stage(path=ALL, **stage), noisy_of(exp))
    assert by_ledger == pytest.approx(by_torch, rel=1e-12)


def test_a_stage_of_other_blocks_costs_what_is_counted_with_those():
    exp, stage = experiment(8), sw.Stage(path=ALL, active=ALL, block=2, seq_len=4)
    by_torch, by_ledger = spent(exp, stage, noisy_of(exp, length=4, block=2))
    assert by_ledger == pytest.approx(by_torch, rel=1e-12)
    whole = stage_flops_per_token(exp, sw.Stage(path=ALL, active=ALL))
    diffusion = exp.replace(objective="diffusion")
    assert whole == stage_flops_per_token(diffusion, sw.Stage(path=ALL, active=ALL))


@pytest.mark.parametrize("block", [1, 3])
def test_a_score_costs_what_is_counted(block):
    exp = experiment(block)
    rack = sw.Rack(exp.rack, exp.attention, vocab_size(exp))
    windows_NT = np.random.default_rng(0).integers(0, 200, (5, LENGTH))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        evaluate(rack, windows_NT, 40, objective=exp.objective, seed=exp.seed, batch=2)
    found = evaluation_flops(exp, rack, 5)
    assert found == pytest.approx(counter.get_total_flops(), rel=1e-12)


@pytest.mark.parametrize("trains", [True, False], ids=["trains", "frozen"])
@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"positions": "none"}], ids=str)
@pytest.mark.parametrize("attention", [{"kind": "mha"}, {"kind": "mqa"}, {"kind": "mla"}], ids=str)
def test_a_block_keeps_what_is_predicted_beside_the_mask_that_all_share(attention, options, trains):
    if attention["kind"] == "mla" and "qk_norm" in options:
        pytest.skip("refused")
    shape = RackShape(d_model=32, heads=4, d_ff=96, **options)
    params = parse(ATTENTION, attention, "attention", "kind")
    how, x_BRD = twice(3, LENGTH), torch.randn(BATCH, 14, 32, requires_grad=True)
    block = Block(shape, params, 0)
    block.requires_grad_(trains)
    mask_RR, tables = how.bias(None, x_BRD), []
    for module in block.modules():
        if isinstance(module, Rotary):
            parts = ((how.noisy, how.clean), module.dim, module.base, module.scaling)
            tables.append(table(*parts, x_BRD.device))
    constant = {t.untyped_storage().data_ptr() for t in (*block.parameters(), *tables)}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in constant:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        block(block(x_BRD, causal=how), causal=how)
    each = BATCH * 14 * block_saved(shape, params, 14, how, trains).bytes(4)
    exp = experiment(3, rack={**PRE, **options}, attention=attention)
    assert seen[mask_RR.untyped_storage().data_ptr()] == mask_bytes(exp) == 4 * 14 * 14
    # the output of the first is the input of the second, and stands once
    assert sum(seen.values()) == 2 * each + mask_bytes(exp)


@pytest.mark.parametrize("sampling", ["antithetic", "iid", "stratified_k", "bell"])
@pytest.mark.parametrize("block", [1, 4, 7])
def test_the_largest_batch_is_planned(block, sampling):
    """To 6 % of the tokens, in the mean over seeds, as of masked diffusion."""
    length, batch, micro, steps = 64, 6, 2, 40
    exp = experiment(block, masking={"sampling": sampling}, optim={"batch": batch}).replace(
        data={"seq_len": length}, budget={"tokens": steps * batch * length}
    )
    (stage,) = sw.stages(exp)
    largest = []
    for seed in range(8):
        rule = Corruption(exp.objective, 50, batch, seed, None, sampling)
        place_N = np.arange(steps * batch)
        found = corrupt(
            rule, Batch(np.zeros((len(place_N), length)), place_N, 0 * place_N, place_N)
        )
        largest.append(max(int(part.counted_BT.sum()) for part in found.split(micro)))
    planned = most_counted(exp, sw.Placement(micro_batch=micro), stage)
    assert planned == pytest.approx(np.mean(largest), abs=0.06 * micro * length)
