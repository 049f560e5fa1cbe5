"""Rows that are read block by block see what they should, to the last token, for every kind.

Oracles: perturbation, one pass over each block by itself, and a mask written with two loops.
"""

from itertools import product

import numpy as np
import pytest
import torch

import stackwise as sw
from stackwise.model.attention import ATTENTION
from stackwise.model.decoding import decode
from stackwise.model.direction import BlockCausal, twice

V = 13
KINDS = [name for name, kind in ATTENTION.items() if kind.blocks]
OPTIONS = {
    "rope": {},
    "learned": {"positions": "learned", "max_positions": 16},
    "none, post": {"positions": "none", "norm_place": "post", "norm": "layernorm", "bias": True},
    "window": {"window": 3},
    "windows": {"window": (None, 2)},
    "qk norm": {"qk_norm": True},
}
SIZES = [(1, 6), (2, 6), (3, 7), (4, 7), (6, 7)]


def rack_of(kind, options):
    if kind == "mla" and options.get("qk_norm"):
        pytest.skip("refused")
    heads = {"kv_heads": 2} if kind == "gqa" else {}
    shape = sw.RackShape(stacks=1, blocks_per_stack=2, d_model=16, heads=4, **heads, **options)
    rack = sw.Rack(shape, kind, V, seed=3).double().eval()
    for parameter in rack.parameters():  # a start at zero would see nothing
        torch.nn.init.normal_(parameter, std=0.4, generator=torch.Generator().manual_seed(1))
    return rack


def texts(length, seed=0):
    """Clean ids and the same with some masked, (2, T)."""
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(V, (2, length), generator=generator)
    masked_BT = torch.rand(2, length, generator=generator) < 0.5
    return ids_BT, ids_BT.masked_fill(masked_BT, V)


def sees(size, noisy, i, j):
    """The table of `model/direction.py`, for one pair of rows."""
    (i_clean, i), (j_clean, j) = ((row >= noisy, row % noisy if noisy else row) for row in (i, j))
    if i_clean:
        return j_clean and j // size <= i // size
    return j // size < i // size if j_clean else j // size == i // size


@pytest.mark.parametrize(("size", "length"), SIZES)
def test_the_mask_is_the_table(size, length):
    how = twice(size, length)
    expected = [[sees(size, length, i, j) for j in range(how.rows)] for i in range(how.rows)]
    assert how.seen(None, torch.device("cpu")).tolist() == expected
    assert how.clean == (-(-length // size) - 1) * size
    bias_RR = how.bias(None, torch.zeros(1))
    assert torch.equal(bias_RR == 0, torch.tensor(expected)) and bias_RR.min() == -torch.inf
    assert how.bias(None, torch.zeros(1)) is bias_RR  # made once


@pytest.mark.parametrize("options", ["rope", "none, post"])
@pytest.mark.parametrize("kind", KINDS)
def test_changing_a_row_changes_those_that_see_it_and_no_others(kind, options):
    """Through two layers: what a row sees of others is clean, which sees no more than it does."""
    size, length = 2, 5
    rack, how = rack_of(kind, OPTIONS[options]), twice(size, length)
    ids_BT, noisy_BT = texts(length)
    ids_BR = torch.cat([noisy_BT, ids_BT[:, : how.clean]], 1)
    before = rack.hidden(ids_BR, causal=how)
    for j in range(how.rows):
        changed_BR = ids_BR.clone()
        changed_BR[:, j] = (changed_BR[:, j] + 1) % V
        moved = (rack.hidden(changed_BR, causal=how) - before).abs().amax((0, 2)) > 0
        assert moved.tolist() == [sees(size, length, i, j) for i in range(how.rows)], j


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_pass_is_a_pass_for_each_block(kind, options):
    """Each block by itself after the clean ones before it, in float64, to rounding."""
    rack = rack_of(kind, OPTIONS[options])
    for size, length in SIZES:
        how, (ids_BT, noisy_BT) = twice(size, length), texts(length)
        whole = rack(torch.cat([noisy_BT, ids_BT[:, : how.clean]], 1), causal=how)
        for start in range(0, length, size):
            stop = min(start + size, length)
            part_BT = torch.cat([ids_BT[:, :start], noisy_BT[:, start:stop]], 1)
            alone = rack(part_BT, causal=BlockCausal(size, 0, stop))
            assert torch.allclose(whole[:, start:stop], alone[:, start:], atol=1e-11, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_block_is_read_as_a_whole_and_blocks_of_one_are_causal(kind):
    rack, (ids_BT, _) = rack_of(kind, {}), texts(6)
    for how, plain in ((BlockCausal(6, 0, 6), False), (BlockCausal(1, 0, 6), True)):
        found, expected = rack(ids_BT, causal=how), rack(ids_BT, causal=plain)
        assert torch.allclose(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("kind", "options"), [*product(KINDS, ["rope", "learned", "none, post"])])
def test_a_cache_goes_on_block_by_block(kind, options):
    rack, (ids_BT, _), size = rack_of(kind, OPTIONS[options]), texts(7), 3
    whole, cache = rack.hidden(ids_BT, causal=BlockCausal(size, 0, 7)), None
    for start in range(0, 7, size):
        x_BTD, cache = decode(rack, ids_BT[:, start : start + size], cache, together=True)
        assert torch.allclose(x_BTD, whole[:, start : start + size], atol=1e-11, rtol=0)
    assert cache.seen == 7


@pytest.mark.parametrize("kind", ["mha", "mla"])
def test_it_is_traced_without_a_graph_break(kind):
    rack, (ids_BT, noisy_BT), how = rack_of(kind, {}).float(), texts(6), twice(2, 6)
    x_BRD = rack.embedding(torch.cat([noisy_BT, ids_BT[:, : how.clean]], 1))
    block = next(rack.blocks(("s0",)))
    traced = torch.compile(block, backend="eager", fullgraph=True)
    assert torch.allclose(traced(x_BRD, causal=how), block(x_BRD, causal=how), atol=1e-5)


def test_rows_of_bfloat16_see_the_same():
    rack = rack_of("mha", {}).float()
    how, (ids_BT, noisy_BT) = twice(2, 6), texts(6)
    ids_BR = torch.cat([noisy_BT, ids_BT[:, : how.clean]], 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = rack.hidden(ids_BR, causal=how)
        changed_BR = ids_BR.clone()
        changed_BR[:, 8] = (changed_BR[:, 8] + 1) % V  # clean token 2, of the second block
        after = rack.hidden(changed_BR, causal=how)
    moved = (after - before).abs().amax((0, 2)) > 0
    assert np.flatnonzero(moved.numpy()).tolist() == [4, 5, 8, 9]
