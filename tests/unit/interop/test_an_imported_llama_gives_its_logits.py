"""Logits of an imported rack against transformers', and what a rack has beyond a Llama."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

import stackwise as sw
from stackwise.interop.llama import DRAWN, special_rows

VOCAB, LENGTH = 31, 40
# Both sides compute in float64, but for RoPE's tables, which both make in float32: angles of one
# formula agree to the last bit or the one before, 2^-23 of up to LENGTH radians.
ROTATED = {"rtol": 0, "atol": LENGTH * 2**-23}


@torch.no_grad()
def test_logits_are_those_of_transformers(kind, llama, tmp_path):
    theirs = llama(**kind)
    ours = sw.open_model(sw.import_model(theirs, tmp_path / "ours"), dtype=torch.float64)
    model = AutoModelForCausalLM.from_pretrained(theirs).double().eval()
    ids_BT = torch.randint(VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    want_BTV = model(ids_BT).logits
    size = float(want_BTV.abs().max())
    torch.testing.assert_close(ours(ids_BT, causal=True) / size, want_BTV / size, **ROTATED)


@torch.no_grad()
def test_stacks_cut_the_layers_and_change_nothing(llama, tmp_path):
    theirs = llama()
    ids_BT = torch.arange(12).view(2, 6)
    cuts = [
        sw.open_model(sw.import_model(theirs, tmp_path / str(n), blocks_per_stack=n))
        for n in (1, 2, 4)
    ]
    assert [rack.held() for rack in cuts] == [("s0", "s1", "s2", "s3"), ("s0", "s1"), ("s0",)]
    first, *others = (rack(ids_BT, causal=True) for rack in cuts)
    assert all(torch.equal(first, other) for other in others)


def test_bfloat16_weights_are_the_same_numbers_in_float32(llama, tensors, tmp_path):
    theirs = llama(torch.bfloat16)
    rack = sw.open_model(sw.import_model(theirs, tmp_path / "ours"))
    assert rack.objective.choice == "clm", "so that no sampler fills masks with it"
    want_DF = tensors(theirs)["model.layers.3.mlp.down_proj.weight"].float()
    assert torch.equal(rack.stacks["s3"].blocks[0].ffn.down.weight, want_DF)


@pytest.mark.parametrize("bos", [None, VOCAB, -1])
def test_without_a_bos_mask_and_start_are_those_of_a_fresh_rack(bos, llama, tmp_path):
    theirs = llama(bos_token_id=bos)
    for seed in (0, 7):
        ours = sw.import_model(theirs, tmp_path / str(seed), seed=seed)
        model = sw.read_model(ours)
        fresh = sw.Rack(model.rack, model.attention, VOCAB, seed=seed)
        assert torch.equal(sw.open_model(ours).embedding.special, fresh.embedding.special)


@torch.no_grad()
@pytest.mark.parametrize("bos", [5, 0, VOCAB - 1, [5, 6]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_start_is_the_bos_bit_for_bit(bos, dtype, llama, changed, tmp_path):
    """So that a text is read as transformers reads it behind the BOS that its tokenizer puts."""
    theirs = llama(dtype)
    changed(theirs, {"bos_token_id": bos})
    ours = sw.import_model(theirs, tmp_path / "ours", seed=7)
    model, rack = sw.read_model(ours), sw.open_model(ours, dtype=dtype)
    token = bos[0] if isinstance(bos, list) else bos
    mask_D, start_D = rack.embedding.special
    assert torch.equal(start_D, rack.embedding.table[token])
    fresh = sw.Rack(model.rack, model.attention, VOCAB, seed=7).embedding.special
    assert torch.equal(mask_D, fresh[0].to(dtype))
    ids_BT = torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(1))
    ours_BT, theirs_BT = ids_BT.clone(), ids_BT.clone()
    ours_BT[:, 0], theirs_BT[:, 0] = rack.start_id, token
    assert torch.equal(rack(ours_BT, causal=True), rack(theirs_BT, causal=True))


@pytest.mark.parametrize(
    ("vocab", "width"),
    [(5, 2), (DRAWN // 64 + 1, 64), (DRAWN // 64 - 2, 64), (2 * DRAWN // 64 + 7, 64)],
)
def test_the_last_draws_are_those_of_one_draw(vocab, width):
    """Tables smaller than a piece, of whole pieces, and a little over."""
    shape = sw.RackShape(stacks=1, d_model=width, heads=1, init_std=0.3)
    whole = sw.Rack(shape, "mha", vocab, stacks=(), seed=3).embedding.special
    assert torch.equal(special_rows(shape, vocab, 3), whole)
