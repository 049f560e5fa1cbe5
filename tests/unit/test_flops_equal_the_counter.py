"""The closed form of a block's FLOPs against torch's counter, forward and backward."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stackwise.choice import parse
from stackwise.model.attention import ATTENTION, window
from stackwise.model.block import Block, block_matmul_parameters, block_scores
from stackwise.model.shape import RackShape

BATCH, LENGTH = 2, 12
ATTENTIONS = [
    {"kind": "mha"},
    {"kind": "gqa"},
    {"kind": "mla"},
    {"kind": "mla", "q_rank": 12, "v_dim": 11, "nope_dim": 6},
    {"kind": "kernel", "features": 16, "chunk": 4},
    {"kind": "kernel", "features": 16, "chunk": 5},
    {"kind": "kernel", "map": "gaussian", "features": 9, "chunk": 64},
    {"kind": "mqa"},
    {"kind": "linear", "chunk": 4},
    {"kind": "linear", "chunk": 5},
    {"kind": "window", "window": 2},
    {"kind": "window", "window": 3},  # all twelve tokens: no shorter than a span
]


@pytest.fixture(autouse=True)
def short_spans(monkeypatch):
    """Windows cut texts into chunks of four, or of as many tokens as they see."""
    monkeypatch.setattr(window, "LEAST", 4)


def counted(attention, causal, trains, ffn="swiglu"):
    """FLOPs of one pass forward and backward, by torch; the shape and parameters."""
    kv_heads = 2 if attention["kind"] in ("gqa", "window") else None
    shape = RackShape(d_model=32, heads=4, kv_heads=kv_heads, d_ff=64, ffn=ffn)
    params = parse(ATTENTION, attention, "attention", "kind")
    block = Block(shape, params, 0).requires_grad_(trains)
    x_BTD = torch.randn(BATCH, LENGTH, 32, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        y_BTD = block(x_BTD, causal=causal)
        forward = counter.get_total_flops()
        y_BTD.sum().backward()
    return forward, counter.get_total_flops(), shape, params


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
@pytest.mark.parametrize("trains", [True, False], ids=["trains", "frozen"])
@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
def test_a_block_costs_what_is_counted(attention, causal, trains):
    forward, total, shape, params = counted(attention, causal, trains)
    tokens = BATCH * LENGTH
    weights = 2 * tokens * block_matmul_parameters(shape, params)
    scores = block_scores(shape, params, 0, LENGTH, causal)
    assert forward == weights + tokens * scores.forward
    backward = tokens * (2 * scores.pairs + scores.constant)
    assert total - forward == (2 if trains else 1) * weights + backward


@pytest.mark.parametrize("ffn", ["gelu", "gelu_tanh"])
def test_a_feed_forward_without_gate_has_two_matrices(ffn):
    forward, _, shape, params = counted({"kind": "mha"}, False, True, ffn)
    scores = block_scores(shape, params, 0, LENGTH, False).forward
    assert forward == BATCH * LENGTH * (2 * block_matmul_parameters(shape, params) + scores)


def test_the_counter_is_blind_to_the_fused_kernel_of_a_cpu():
    """Why the test above asks for the plain one: the counter would find no scores at all."""
    q_BHTE = torch.randn(1, 2, 8, 4)
    with FlopCounterMode(display=False) as counter:
        F.scaled_dot_product_attention(q_BHTE, q_BHTE, q_BHTE)
    assert counter.get_total_flops() == 0
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        F.scaled_dot_product_attention(q_BHTE, q_BHTE, q_BHTE)
    assert counter.get_total_flops() == 4 * 2 * 8 * 8 * 4


def test_every_kind_is_tried():
    assert {attention["kind"] for attention in ATTENTIONS} == set(ATTENTION)
