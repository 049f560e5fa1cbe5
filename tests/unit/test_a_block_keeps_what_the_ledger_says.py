"""Parameters and kept numbers of a block, by arithmetic and as torch has them."""

import pytest
import torch

from stackwise.choice import parse
from stackwise.model.attention import ATTENTION, window
from stackwise.model.attention.kernel import features_made
from stackwise.model.attention.rope import Rotary
from stackwise.model.attention.sums import chunked
from stackwise.model.block import Block, block_parameters, block_saved, frozen_names
from stackwise.model.shape import RackShape

BATCH, LENGTH = 3, 16
TOKENS = BATCH * LENGTH

ATTENTIONS = [
    {"kind": "mha"},
    {"kind": "gqa"},
    {"kind": "mla"},
    {"kind": "mla", "q_rank": 12, "v_dim": 4},
    {"kind": "mla", "nope_dim": 8, "rope_dim": 8, "kv_rank": 5, "v_dim": 24},
    {"kind": "kernel", "features": 16, "chunk": 4},
    {"kind": "kernel", "map": "gaussian", "features": 16, "chunk": 8},
    {"kind": "kernel", "map": "laplacian", "features": 10, "chunk": 8},
    {"kind": "kernel", "map": "uniform", "features": 10, "chunk": 8},
    {"kind": "kernel", "features": 6, "chunk": 5},  # the last chunk is filled up
    {"kind": "kernel", "map": "gaussian", "features": 6, "chunk": 7},
    {"kind": "kernel", "features": 6, "chunk": 64},
    {"kind": "mqa"},
    {"kind": "linear", "chunk": 4},
    {"kind": "linear", "chunk": 5},
    {"kind": "linear", "chunk": 64},
    {"kind": "window", "window": 2},
    {"kind": "window", "window": 3},
    {"kind": "window", "window": 6},  # a span of 18 or 12 tokens
]
OPTIONS = [
    {},
    {"norm": "layernorm", "norm_place": "post", "bias": True, "ffn": "gelu", "positions": "none"},
    {"ffn": "gelu_tanh", "norm": "layernorm"},
    {"residual_gain": 0.5, "bias": True},
    {"qk_norm": True},
    {"frozen_up": True},
    {"frozen_up": True, "ffn": "gelu", "norm": "layernorm", "norm_place": "post", "bias": True},
    {"time": "sinusoidal", "time_width": 16},
    {"time": "learned", "time_width": 32, "norm": "layernorm", "norm_place": "post", "bias": True},
    {"time": "sinusoidal", "time_width": 16, "residual_gain": 0.5, "frozen_up": True},
]


@pytest.fixture(autouse=True)
def short_spans(monkeypatch):
    """Windows cut texts into chunks of four, or of as many tokens as they see."""
    monkeypatch.setattr(window, "LEAST", 4)


def made(attention, options):
    """A block, its shape and parameters; None where the two do not go together."""
    kv_heads = 2 if attention["kind"] in ("gqa", "window") else None
    shape = RackShape(d_model=32, heads=4, kv_heads=kv_heads, d_ff=96, **options)
    params = parse(ATTENTION, attention, "attention", "kind")
    if shape.qk_norm and params.choice in ("mla", "kernel"):
        pytest.skip("refused")
    torch.manual_seed(0)
    return Block(shape, params, 0), shape, params


def kept(block, causal):
    """Numbers in the storages that autograd keeps, parameters, buffers and tables aside."""
    x_BTD = torch.randn(BATCH, LENGTH, 32, requires_grad=True)
    time_B = torch.rand(BATCH)
    block(x_BTD, causal=causal, time_B=time_B)
    constant = [*block.parameters(), *block.buffers()]
    for module in block.modules():
        if isinstance(module, Rotary):
            constant.append(module.table_TF2)
    skipped = {tensor.untyped_storage().data_ptr() for tensor in constant}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in skipped:
            seen[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y_BTD = block(x_BTD, causal=causal, time_B=time_B)
    assert y_BTD.requires_grad
    return sum(seen.values())


def tolerated(params, shape, causal):
    """What a ledger has over what is kept: it counts whole numbers per token, and no masks."""
    wide = shape.d_model // shape.heads
    if params.choice == "window":
        return window_over(params.window, wide, shape, causal)
    if params.choice not in ("kernel", "linear"):
        return 0
    made = features_made(params) if params.choice == "kernel" else wide
    chunk, filled = chunked(params.chunk, LENGTH, causal)
    state = made * (wide + 1)
    others = 2 * (made + wide + 1) + chunk * causal
    whole = -(-(others + -(-state // chunk)) * filled // LENGTH)
    over = TOKENS * shape.heads * (whole - (others + state / chunk) * filled / LENGTH)
    fourier = params.choice == "kernel" and params.map != "softmax_positive"
    return over - fourier * (LENGTH if causal else 1)


def window_over(seen, wide, shape, causal):
    """A mask for each call, of its queries on their span; and keys up to a whole one per token."""
    chunk, sides = max(seen, window.LEAST), 1 if causal else 2
    span = chunk + sides * seen
    if span > LENGTH:
        return -LENGTH * LENGTH
    most = chunk * ((LENGTH - (sides - 1) * seen) // chunk)  # tokens of whole chunks
    masks = span * (chunk + chunk * (most > chunk) + LENGTH - most)  # first, those between, last
    copies = (most // chunk + (most < LENGTH)) * span - LENGTH
    numbers = 2 * shape.kv_heads * wide * copies / LENGTH
    return TOKENS * (-(-numbers // 1) - numbers) - masks


@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_block_has_the_parameters_that_are_counted(attention, options):
    block, shape, params = made(attention, options)
    assert block_parameters(shape, params) == sum(p.numel() for p in block.parameters())


@pytest.mark.parametrize("trains", [True, False], ids=["trains", "frozen"])
@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_block_keeps_what_is_predicted(attention, options, causal, trains):
    block, shape, params = made(attention, options)
    block.requires_grad_(trains)
    for name in frozen_names(block):
        block.get_parameter(name).requires_grad_(False)
    predicted = TOKENS * block_saved(shape, params, LENGTH, causal, trains).bytes(4) / 4
    over = tolerated(params, shape, causal)
    assert predicted - kept(block, causal) == pytest.approx(over, abs=1e-6)


def test_every_kind_is_tried():
    assert {attention["kind"] for attention in ATTENTIONS} == set(ATTENTION)
