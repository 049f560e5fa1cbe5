"""Attention maps: how much each token takes from each other one, in one block of a rack that reads.

The map is read off the layer itself while the rack runs, from the very input that it gets there:
applied to the values it gives the layer's output (`tests/unit/test_attention_maps_*.py`). How a
kind of attention is read stands in `MAPS`; a kind of your own takes an entry there.

Shapes: B samples, H query heads, G key heads, T tokens that look, S tokens that are looked at (as
many), E numbers per head, V numbers of a head's value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from stackwise.errors import closest
from stackwise.model.attention import kind_of
from stackwise.model.attention.heads import cut, scored
from stackwise.model.attention.kernel import FLOOR, Kernel, KernelAttention, features_made
from stackwise.model.attention.linear import Linear, LinearAttention, featured
from stackwise.model.attention.mha import SoftmaxAttention, window_mask
from stackwise.model.attention.mla import LatentAttention
from stackwise.model.attention.window import Window
from stackwise.model.direction import BlockCausal, Direction, start_of
from stackwise.model.shape import attention_shape, stack_ids

if TYPE_CHECKING:
    from stackwise.config import Experiment
    from stackwise.model.rack import Rack


class Read(NamedTuple):
    """What an entry of `MAPS` gives.

    Attributes:
        weights_BHTS: The part that each token takes of each value.
        values_BHSV: The values, one set for each query head.
        note: What a reader of the map should know; empty for nothing.
    """

    weights_BHTS: Tensor
    values_BHSV: Tensor
    note: str = ""


@dataclass(frozen=True)
class AttentionMap:
    """What one block attends to.

    Attributes:
        block: `s0.0`: the stack, and the block's number in it.
        kind: Of attention.
        causal: Whether tokens see only those before them, and themselves; or how, block by block.
        window: Tokens that are seen to each side; None for all.
        weights_BHTS: (B, H, T, T), float32 at least; 0 where a token is not seen. Rows sum to one
            where `note` does not say otherwise.
        values_BHSV: What is summed with these weights.
        output_BTD: What the layer gave.
        note: What a reader of the map should know; empty for nothing.
    """

    block: str
    kind: str
    causal: Direction
    window: int | None
    weights_BHTS: Tensor
    values_BHSV: Tensor
    output_BTD: Tensor
    note: str = ""


@torch.no_grad()
def attention_map(
    rack: Rack,
    ids_BT: Tensor,
    block: str,
    *,
    causal: Direction,
    path: Sequence[str] | None = None,
) -> AttentionMap:
    """What one block attends to when the rack reads these ids.

    Args:
        rack: The rack; it runs up to this block.
        ids_BT: Ids up to V + 1, (B, T). The map is of T x T for each head.
        block: `s0.0`, `s0.1`, ...: a block of the path.
        causal: Attention direction.
        path: Stacks, in the order they run; None for the rack's own at full noise.

    Raises:
        ValueError: If the path has no such block, or its kind of attention has no entry in `MAPS`.
    """
    stacks = rack.path_for(1.0) if path is None else tuple(path)
    names = block_names(rack, stacks)
    if block not in names:
        raise ValueError(f"block {block!r} is not in the path; known: {', '.join(names)}")
    kind = rack.attention.choice
    if kind not in MAPS:
        raise ValueError(
            f"attention {kind!r} has no map: how its weights are read is not said; add it to "
            f"stackwise.attention_maps.MAPS{closest(kind, MAPS)}"
        )
    number = names.index(block)
    layer = list(rack.blocks(stacks))[number].attention
    found: list[tuple[Read, Tensor]] = []

    def look(layer: nn.Module, args: tuple[Any, ...], how: dict[str, Any], output: Tensor) -> None:
        found.append((MAPS[kind](layer, args[0], how["causal"]), output))

    handle = layer.register_forward_hook(look, with_kwargs=True)
    try:
        for depth, _ in enumerate(rack.exits(ids_BT, causal=causal, path=stacks)):
            if depth > number:  # depth 0 is the embedding
                break
    finally:
        handle.remove()
    (read, output_BTD), given = found[0], attention_shape(rack.shape, _place(rack, block))
    shape = kind_of(rack.attention).shaped(given, rack.attention)
    return AttentionMap(
        block, kind, causal, shape.window, *read[:2], output_BTD=output_BTD, note=read.note
    )


def map_flops(exp: Experiment, block: str, path: Sequence[str], tokens: int) -> float:
    """FLOPs of one map, at most: the blocks up to this one, and its attention a second time.

    Args:
        exp: The experiment of the rack.
        block: As for `attention_map`.
        path: Stacks, in the order they run.
        tokens: T.
    """
    from stackwise.memory.flops import block_flops_per_token, block_index

    exp, stack, inside = exp.replace(data={"seq_len": tokens}), *block.split(".")
    before = [i for s in path[: list(path).index(stack)] for i in block_index(exp, s)]
    blocks = [*before, *block_index(exp, stack)[: int(inside) + 1]]
    kind, shape = kind_of(exp.attention), attention_shape(exp.rack, blocks[-1])
    again = 2.0 * kind.matmul_parameters(shape, exp.attention)
    again += kind.score_flops(shape, exp.attention, tokens, False).forward
    if isinstance(exp.attention, Kernel):  # pairs, which a forward pass never writes out
        again += 2.0 * tokens * shape.heads * features_made(exp.attention)
    elif isinstance(exp.attention, Linear | Window):
        again += 2.0 * tokens * shape.heads * shape.head_dim
    return tokens * (again + sum(block_flops_per_token(exp, i, "trunk") for i in blocks))


def block_names(rack: Rack, path: Sequence[str]) -> list[str]:
    """The blocks of a path: `s0.0`, `s0.1`, ..."""
    each = rack.shape.blocks_per_stack
    return [f"{stack}.{i}" for stack in path for i in range(each)]


def _place(rack: Rack, block: str) -> int:
    """A block's number in the whole rack."""
    stack, _, inside = block.partition(".")
    return stack_ids(rack.shape).index(stack) * rack.shape.blocks_per_stack + int(inside)


def softmax_map(layer: nn.Module, x_BTD: Tensor, causal: Direction) -> Read:
    """Of `mha`, `gqa`, `mqa` and `window`: softmax(q k / sqrt E) over what may be seen."""
    assert isinstance(layer, SoftmaxAttention)
    q_BHTE, k_BGTE, v_BGTE = scored(
        layer.qkv(x_BTD), layer.shape, layer.q_norm, layer.k_norm, layer.rotary, start_of(causal)
    )
    each = layer.shape.heads // layer.shape.kv_heads  # query heads that share a key head
    k_BHTE, v_BHTE = (x.repeat_interleave(each, dim=1) for x in (k_BGTE, v_BGTE))
    scale = layer.shape.head_dim**-0.5
    return Read(_softmax(q_BHTE, k_BHTE, v_BHTE, layer.shape.window, causal, scale), v_BHTE)


def latent_map(layer: nn.Module, x_BTD: Tensor, causal: Direction) -> Read:
    """Of `mla`: the same, of keys that are read from the latent and the shared slice."""
    assert isinstance(layer, LatentAttention)
    size = layer.sizes
    q_BHTE = layer.queries(x_BTD, start_of(causal))
    latent_BTC, shared_B1TR = layer.latent(x_BTD, start_of(causal))
    k_BHTE = layer.k(latent_BTC).unflatten(-1, (-1, size.nope)).transpose(1, 2)
    if shared_B1TR is not None:
        wide_BHTR = shared_B1TR.expand(-1, layer.shape.heads, -1, -1)
        k_BHTE = torch.cat((k_BHTE, wide_BHTR.to(k_BHTE.dtype)), dim=-1)
    v_BHTV = layer.v(latent_BTC).unflatten(-1, (-1, size.value)).transpose(1, 2)
    scale = size.key**-0.5
    return Read(_softmax(q_BHTE, k_BHTE, v_BHTV, layer.shape.window, causal, scale), v_BHTV)


def kernel_map(layer: nn.Module, x_BTD: Tensor, causal: bool) -> Read:
    """Of `kernel`: the weights that its sums imply, which it never writes out itself."""
    assert isinstance(layer, KernelAttention)
    q_BHTE, k_BHTE, v_BHTE = cut(layer.qkv(x_BTD), layer.shape)
    with torch.autocast(x_BTD.device.type, enabled=False):
        q_BHTM, k_BHTM = layer.features(q_BHTE), layer.features(k_BHTE)
        weights_BHTS = q_BHTM @ k_BHTM.mT
        if causal:
            weights_BHTS = weights_BHTS.tril()
        sum_BHT1 = weights_BHTS.sum(-1, keepdim=True)
        note = "the weights that random features imply; the layer itself never writes them out"
        if layer.params.map != "softmax_positive":
            seen_T1 = torch.arange(1, x_BTD.shape[1] + 1, device=x_BTD.device)[:, None]
            least_T1 = FLOOR * (seen_T1 if causal else seen_T1[-1:]).to(sum_BHT1)
            low = float((sum_BHT1 < least_T1).float().mean())
            sum_BHT1 = sum_BHT1.maximum(least_T1)
            note += "; Fourier features can make a weight negative"
            if low:
                note += f", and {100 * low:.1f} % of the rows sum to less than one, at the floor"
        v_BHTE = v_BHTE.to(weights_BHTS.dtype)
    return Read(weights_BHTS / sum_BHT1, v_BHTE, note)


def linear_map(layer: nn.Module, x_BTD: Tensor, causal: bool) -> Read:
    """Of `linear`: the weights that its sums imply, which it never writes out itself."""
    assert isinstance(layer, LinearAttention)
    q_BHTE, k_BHTE, v_BHTE = featured(layer.heads(x_BTD))
    with torch.autocast(x_BTD.device.type, enabled=False):
        weights_BHTS = q_BHTE @ k_BHTE.mT
        if causal:
            weights_BHTS = weights_BHTS.tril()
        note = "the weights that products of features imply; the layer itself never writes them out"
        return Read(weights_BHTS / weights_BHTS.sum(-1, keepdim=True), v_BHTE, note)


def _softmax(
    q_BHTE: Tensor,
    k_BHTE: Tensor,
    v_BHTV: Tensor,
    window: int | None,
    causal: Direction,
    scale: float,
) -> Tensor:
    """softmax(scale q k) over what is seen, at least in float32, of what `attend` is given."""
    wide = torch.promote_types(v_BHTV.dtype, torch.float32)
    q_BHTE, k_BHTE = (x.to(v_BHTV.dtype).to(wide) for x in (q_BHTE, k_BHTE))
    length = q_BHTE.shape[-2]
    with torch.autocast(q_BHTE.device.type, enabled=False):
        scores_BHTS = scale * (q_BHTE @ k_BHTE.mT)
        if isinstance(causal, BlockCausal):
            seen_TT: Tensor | None = causal.seen(window, q_BHTE.device)
        else:
            seen_TT = window_mask(length, window, causal, q_BHTE.device)
        if seen_TT is None and causal:
            seen_TT = torch.ones(length, length, dtype=torch.bool, device=q_BHTE.device).tril()
        if seen_TT is not None:
            scores_BHTS = scores_BHTS.masked_fill(~seen_TT, -torch.inf)
        return scores_BHTS.softmax(-1)


MAPS: dict[str, Callable[[nn.Module, Tensor, Any], Read]] = {
    "mha": softmax_map,
    "gqa": softmax_map,
    "mqa": softmax_map,
    "mla": latent_map,
    "kernel": kernel_map,
    "linear": linear_map,
    "window": softmax_map,
}
