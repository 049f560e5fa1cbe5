"""Text that goes on from a cache, in any pieces, against reading all of it at once."""

import random

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import stackwise as sw
from stackwise.choice import parse
from stackwise.model.adapters import adapter_state, put_on
from stackwise.model.attention import ATTENTION
from stackwise.model.attention.mla import LatentAttention
from stackwise.model.block import block_matmul_parameters
from stackwise.model.decoding import decode, decodes, reading
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape, attention_shape

MAPS = ["softmax_positive", "gaussian", "laplacian", "uniform"]
KINDS = [
    {"kind": "mha"},
    {"kind": "gqa"},
    {"kind": "mqa"},
    {"kind": "mla"},
    {"kind": "mla", "q_rank": 12, "kv_rank": 9, "nope_dim": 6, "rope_dim": 4, "v_dim": 5},
    {"kind": "mla", "rope_dim": 0},
    *({"kind": "kernel", "map": name, "features": 12, "chunk": 4} for name in MAPS),
    {"kind": "linear", "chunk": 4},
    {"kind": "window", "window": 5},
]
POST = {"norm_place": "post", "norm": "layernorm", "bias": True, "ffn": "gelu"}
LEARNED = {"positions": "learned", "max_positions": 40}
OPTIONS = [{}, {**POST, **LEARNED}, {"qk_norm": True, "residual_gain": 0.5}, {"window": (3, None)}]


def rack_of(attention, dtype=torch.float64, **options):
    """A rack whose attention is far from even; None where the two do not go together."""
    kind = attention["kind"]
    options |= {"kv_heads": 2} if kind in ("gqa", "window") else {}
    shape = RackShape(stacks=2, blocks_per_stack=2, d_model=32, heads=4, d_ff=48, **options)
    if ATTENTION[kind].check(attention_shape(shape, 0), params_of(attention)):
        return None
    rack = Rack(shape, attention, 50, seed=2)
    for parameter in rack.parameters():
        parameter.data.mul_(3.0)
    return rack.to(dtype).requires_grad_(False)


def params_of(attention):
    return parse(ATTENTION, attention, "attention", "kind")


def ids_of(samples=2, length=33, seed=0):
    return torch.randint(0, 50, (samples, length), generator=torch.Generator().manual_seed(seed))


def in_pieces(rack, ids_BT, pieces, path=None):
    """Hidden states of all tokens, read so many at a time; and the cache at the end."""
    cache, found = None, []
    for part_BT in ids_BT.split(pieces, dim=1):
        x_BTD, cache = decode(rack, part_BT, cache, path=path)
        found.append(x_BTD)
    return torch.cat(found, 1), cache


def random_pieces(length, seed):
    """A prompt, single tokens and uneven pieces, that add up to a length."""
    draw, pieces = random.Random(seed), []
    while sum(pieces) < length:
        pieces.append(min(draw.choice([1, 1, 2, 5, 9]), length - sum(pieces)))
    return pieces


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("attention", KINDS, ids=str)
def test_any_pieces_give_what_all_at_once_gives(attention, options):
    rack = rack_of(attention, **options)
    if rack is None:
        pytest.skip("refused")
    ids_BT = ids_of()
    whole = rack.hidden(ids_BT, causal=True)
    for seed in range(2):
        found, cache = in_pieces(rack, ids_BT, random_pieces(33, seed))
        # Sums of some tens of float64 numbers in another order, through four blocks.
        assert (found - whole).abs().max() < 1e-11 * whole.abs().max()
        assert cache.seen == 33


@pytest.mark.parametrize("attention", KINDS, ids=str)
def test_a_prompt_and_then_single_tokens_give_the_same_logits_in_float32(attention):
    rack, ids_BT = rack_of(attention, torch.float32), ids_of()
    found, _ = in_pieces(rack, ids_BT, [20, *[1] * 13])
    exact = rack_of(attention).forward(ids_BT, causal=True)
    plain = (rack(ids_BT, causal=True).double() - exact).abs().max()
    # Another order of the same float32 sums: as far off as the full forward is, or a few times.
    assert (rack.logits(found).double() - exact).abs().max() < 8 * plain


@pytest.mark.parametrize("attention", [KINDS[1], KINDS[3], KINDS[-2], KINDS[-1]], ids=str)
def test_bfloat16_racks_go_on_as_they_read(attention):
    shape = RackShape(stacks=2, d_model=32, heads=4, kv_heads=rack_of(attention).shape.kv_heads)
    rack = Rack(shape, attention, 50, seed=2, dtype=torch.bfloat16).requires_grad_(False)
    whole = rack.hidden(ids_of(), causal=True)
    found, _ = in_pieces(rack, ids_of(), [5, *[1] * 20, 8])
    # Each of the 4 blocks rounds what it adds to 2^-9 of it.
    assert (found - whole).norm() < 4 * 2**-8 * whole.norm()


def test_a_path_through_some_stacks_has_a_cache_of_its_own():
    rack, ids_BT = rack_of({"kind": "gqa"}), ids_of()
    found, cache = in_pieces(rack, ids_BT, [7, 1, 25], path=("s1",))
    whole = rack.hidden(ids_BT, causal=True, path=("s1",))
    assert (found - whole).abs().max() < 1e-11 * whole.abs().max()
    with pytest.raises(ValueError, match=r"cache: of 2 blocks, but the path has 4; use the path"):
        decode(rack, ids_BT, cache)


@pytest.mark.parametrize("attention", KINDS, ids=str)
def test_a_cache_may_be_gone_on_from_twice(attention):
    rack, ids_BT = rack_of(attention), ids_of()
    _, cache = decode(rack, ids_BT[:, :20])
    first, _ = decode(rack, ids_BT[:, 20:], cache)
    decode(rack, ids_of(seed=1)[:, :9], cache)
    again, _ = decode(rack, ids_BT[:, 20:], cache)
    assert torch.equal(first, again)


def test_mla_decodes_without_writing_keys_out():
    rack, ids_BT = rack_of({"kind": "mla"}), ids_of()
    _, cache = decode(rack, ids_BT[:, :20])
    layers = [m for m in rack.modules() if isinstance(m, LatentAttention)]
    calls = []
    for layer in layers:
        layer.k.register_forward_hook(lambda *_: calls.append(1))
        layer.v.register_forward_hook(lambda *_: calls.append(1))
    decode(rack, ids_BT[:, 20:], cache)
    assert len(layers) == 4 and not calls


def test_adapters_on_a_latents_matrices_are_decoded_too():
    """Absorbed, these matrices are read, not called: an adapter around one must not be lost."""
    rack, ids_BT = rack_of({"kind": "mla"}, bias=True), ids_of()
    plain, generator = rack.hidden(ids_BT, causal=True), torch.Generator().manual_seed(0)
    for stack, module in rack.stacks.items():
        put_on(module, sw.Adapter(stack=stack, rank=2), generator=generator)
        for name, tensor in adapter_state(module).items():
            if ".lora_B" in name:
                tensor.normal_(std=0.1, generator=generator)
    rack = rack.double()
    whole = rack.hidden(ids_BT, causal=True)
    found, _ = in_pieces(rack, ids_BT, [20, *[1] * 13])
    assert (found - whole).abs().max() < 1e-11 * whole.abs().max()
    assert (whole - plain).abs().max() > 1e-2 * whole.abs().max()


def test_what_cannot_be_gone_on_with_is_refused(monkeypatch):
    rack, ids_BT = rack_of({"kind": "mha"}, **LEARNED), ids_of()
    _, cache = decode(rack, ids_BT)
    with pytest.raises(ValueError, match="cache: of 2 samples, but ids has 3; begin with None"):
        decode(rack, ids_of(3), cache)
    with pytest.raises(ValueError, match=r"ids: no new tokens; give \(B, T\) with T of 1 or more"):
        decode(rack, ids_BT[:, :0], cache)
    with pytest.raises(ValueError, match="41 tokens > max_positions=40; shorten them"):
        decode(rack, ids_BT[:, :8], cache)
    entry = ATTENTION["mha"]
    monkeypatch.setitem(ATTENTION, "mha", type(entry)(**{**vars(entry), "decode": None}))
    with pytest.raises(ValueError, match="attention 'mha' says nothing of how it goes on from a"):
        decode(rack, ids_BT)


def test_every_kind_that_ships_goes_on_from_a_cache():
    assert {attention["kind"] for attention in KINDS} == set(ATTENTION)
    assert all(entry.decode is not None for entry in ATTENTION.values())


@pytest.mark.parametrize("attention", KINDS, ids=str)
def test_samples_are_those_of_reading_everything_again(attention, monkeypatch):
    rack = rack_of(attention)
    how = {"length": 16, "method": "autoregressive", "seed": 4}
    cached = sw.sample_ids(rack, ids_of(3, 5), **how)
    entry = ATTENTION[attention["kind"]]
    monkeypatch.setitem(
        ATTENTION, attention["kind"], type(entry)(**{**vars(entry), "decode": None})
    )
    assert not decodes(rack)
    assert torch.equal(cached, sw.sample_ids(rack, ids_of(3, 5), **how))
    assert len(set(cached[0].tolist())) > 5


def test_masks_between_given_tokens_are_filled_as_before(monkeypatch):
    rack, ids_BT = rack_of({"kind": "gqa"}), ids_of(2, 14)
    ids_BT[:, [2, 3, 9]] = rack.mask_id
    ids_BT[0, 12] = rack.mask_id
    *_, cached = sw.trajectory(rack, ids_BT, "autoregressive", seed=1)
    entry = ATTENTION["gqa"]
    monkeypatch.setitem(ATTENTION, "gqa", type(entry)(**{**vars(entry), "decode": None}))
    *_, again = sw.trajectory(rack, ids_BT, "autoregressive", seed=1)
    assert torch.equal(cached, again)


def flops_of(rack, length):
    read = reading(rack)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for end in range(1, length + 1):
            read(ids_of(1)[:, :end])
    return counter.get_total_flops()


def test_a_token_costs_its_weights_and_its_scores(monkeypatch):
    """Each is read once: 2 FLOPs for each weight, 4 for each number that it is compared with."""
    rack = rack_of({"kind": "gqa"}, torch.float32)
    weights = 4 * block_matmul_parameters(rack.shape, rack.attention)
    scores = 4 * 4 * rack.shape.d_model
    found = flops_of(rack, 12)
    assert found == 12 * 2 * weights + scores * 12 * 13 // 2
    entry = ATTENTION["gqa"]
    monkeypatch.setitem(ATTENTION, "gqa", type(entry)(**{**vars(entry), "decode": None}))
    assert flops_of(rack, 12) > 6 * found  # six and a half times the weights


@pytest.mark.parametrize("attention", [{"kind": "linear"}, {"kind": "kernel", "features": 8}])
def test_sums_cost_the_same_for_every_token(attention):
    rack = rack_of(attention, torch.float32)
    assert flops_of(rack, 9) == 3 * flops_of(rack, 3)
