"""Blocks under bfloat16 autocast on a CPU: what is kept, how exact, and in which numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stackwise.model.attention.mha import SHORT, attend
from stackwise.model.attention.rope import Rotary
from stackwise.model.block import Block, block_matmul_parameters, block_saved
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape

BATCH, LENGTH = 2, 48
KINDS = ["mha", "gqa", "mqa", "mla"]
SHAPES = [
    {},
    {"norm": "layernorm", "norm_place": "post", "bias": False, "ffn": "gelu"},
    {"residual_gain": 0.5},
    {"time": "sinusoidal", "time_width": 48},
    {"time": "learned", "time_width": 48, "residual_gain": 0.5},
]


def kept_bytes(block: Block, x_BTD: Tensor) -> int:
    """Storages that autograd keeps, parameters and rotary tables aside."""
    seen: dict[int, int] = {}
    time_B = torch.rand(len(x_BTD))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        block(x_BTD, causal=False, time_B=time_B)
        tables = [m.table_TF2 for m in block.modules() if isinstance(m, Rotary)]
        skipped = {t.untyped_storage().data_ptr() for t in [*block.parameters(), *tables]}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in skipped:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16):
        block(x_BTD, causal=False, time_B=time_B)
    return sum(seen.values())


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_kept_bytes_are_the_ledgers_and_a_copy_of_every_weight(
    kind: str, options: dict, params
) -> None:
    """Autocast's own copies of the weights, 2 bytes each, do not grow with the tokens."""
    shape = RackShape(d_model=64, heads=4, kv_heads=2 if kind == "gqa" else None, **options)
    chosen = params.attention(kind)
    block = Block(shape, chosen, 0)
    x_BTD = torch.randn(BATCH, LENGTH, 64, requires_grad=True)
    weights = 2 * block_matmul_parameters(shape, chosen)
    expected = BATCH * LENGTH * block_saved(shape, chosen, LENGTH, False, True).bytes(2) + weights
    factors = 4 * 64  # of a sample, in float32; the ledger has whole numbers for each token
    over = BATCH * (-(-factors // LENGTH) * LENGTH - factors) if "time" in options else 0
    assert kept_bytes(block, x_BTD) == expected - 4 * over


def worst(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    return max(float((a.double() - b).abs().max()) for a, b in zip(found, exact, strict=True))


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_short_sequences_are_attended_in_float32(groups: int, causal: bool) -> None:
    """Output and gradients: rounded to bfloat16 at the end alone, 2^-8 of numbers up to 4."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, LENGTH, 16, generator=generator)
    k, v = torch.randn(2, 2, groups, LENGTH, 16, generator=generator)
    grad = torch.randn(2, 4, LENGTH, 16, generator=generator)

    def run(dtype: torch.dtype, call: object) -> tuple[Tensor, ...]:
        inputs = [x.bfloat16().to(dtype).requires_grad_() for x in (q, k, v)]
        y = call(*inputs)
        return (y.detach(), *torch.autograd.grad(y, inputs, grad.bfloat16().to(dtype)))

    ours = run(torch.bfloat16, lambda q, k, v: attend(q, k, v, causal=causal, window=None))
    exact = run(
        torch.float64,
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True),
    )
    assert LENGTH <= SHORT
    assert ours[0].dtype == torch.bfloat16
    assert worst(ours, exact) < 4 * 2**-8


@pytest.mark.parametrize("kind", [*KINDS, "kernel", "linear", "window"])
def test_a_rack_says_nearly_the_same_in_bfloat16(kind: str, params) -> None:
    shape = RackShape(stacks=2, d_model=64, heads=4, kv_heads=2 if kind == "gqa" else None)
    rack = Rack(shape, params.attention(kind), 50)
    ids_BT = torch.randint(50, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    exact = rack(ids_BT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x_BTD = rack.hidden(ids_BT)
        low = rack.logits(x_BTD)
    assert x_BTD.dtype == torch.float32
    low.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in rack.stacks.parameters())
    # Each of the 4 blocks rounds what it adds to 2^-9 of it.
    assert (low - exact).norm() < 4 * 2**-8 * exact.norm()
