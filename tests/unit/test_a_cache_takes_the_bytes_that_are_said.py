"""Bytes of a decoder's cache by arithmetic, and as its tensors lie in memory."""

import pytest
import torch

import stackwise as sw
from stackwise.memory.bytes import cache_bytes_per_token, decoding_bytes
from stackwise.model.attention import ATTENTION
from stackwise.model.decoding import decode
from stackwise.model.rack import Rack
from stackwise.model.shape import attention_shape

EXP = sw.Experiment(
    rack={"stacks": 2, "blocks_per_stack": 2, "d_model": 32, "heads": 4},
    data={"seq_len": 24},
    objective="clm",
    curriculum="end_to_end",
)
CASES = [
    ({"kind": "mha"}, {}),
    ({"kind": "gqa"}, {"kv_heads": 2, "qk_norm": True}),
    ({"kind": "mqa"}, {}),
    ({"kind": "mla"}, {}),
    ({"kind": "mla", "kv_rank": 9, "rope_dim": 4, "nope_dim": 6}, {}),
    ({"kind": "kernel", "features": 12}, {}),
    ({"kind": "kernel", "map": "gaussian", "features": 9}, {}),
    ({"kind": "linear"}, {}),
    ({"kind": "window", "window": 7}, {"kv_heads": 2}),
    ({"kind": "mha"}, {"window": (7, None)}),
    ({"kind": "mla"}, {"window": 7}),
]
SAMPLES, TOKENS = 3, 24


def cache_of(exp, dtype, pieces):
    rack = Rack(exp.rack, exp.attention, 256, dtype=dtype).requires_grad_(False)
    ids_BT = torch.arange(SAMPLES * TOKENS).view(SAMPLES, TOKENS) % 256
    cache, sizes = None, []
    for part_BT in ids_BT.split(pieces, dim=1):
        _, cache = decode(rack, part_BT, cache)
        sizes.append((cache.seen, cache.bytes))
    return sizes


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("attention", "rack"), CASES, ids=str)
def test_a_cache_takes_what_is_predicted(attention, rack, precision):
    exp = EXP.replace(
        attention=attention, rack=rack, precision={"compute": precision, "weights": precision}
    )
    path = sw.stack_ids(exp.rack)
    for tokens, found in cache_of(exp, getattr(torch, precision), [5, 1, 1, 3, 14]):
        assert found == SAMPLES * decoding_bytes(exp, path, tokens)
    kind = ATTENTION[exp.attention.choice]
    shape = attention_shape(exp.rack, 0)
    bounded = kind.shaped(shape, exp.attention).window is not None
    if not kind.state_floats(shape, exp.attention) and not bounded:
        assert found == SAMPLES * TOKENS * cache_bytes_per_token(exp, path)


def test_every_kind_is_tried():
    assert {attention["kind"] for attention, _ in CASES} == set(ATTENTION)


def test_windows_and_states_stop_growing():
    path = sw.stack_ids(EXP.rack)
    for attention in ("linear", "kernel", "window:7"):
        exp = EXP.replace(attention=attention)
        assert decoding_bytes(exp, path, 100) == decoding_bytes(exp, path, 10**6)
    whole = EXP.replace(attention="mha")
    assert decoding_bytes(whole, path, 200) == 2 * decoding_bytes(whole, path, 100)


def test_a_plan_says_what_a_sample_takes():
    exp = EXP.replace(attention="linear", curriculum="left_to_right")
    rows = sw.plan_rows(exp, sw.Placement(), sw.stages(exp))
    block = 4 * 4 * 8 * 9  # four heads, a sum of 8 features times 8 numbers and one, 4 bytes each
    assert [row["decoding_bytes"] for row in rows] == [2 * block, 4 * block]
