"""Multi-head latent attention: keys and values are read from one small latent per token.

Source: DeepSeek-V2 (arXiv 2405.04434, section 2.1). Every head's key is two slices: one from the
latent, without positions, and one turned by RoPE that all heads share. A cache holds the latent and
that shared slice only.

Shapes: H heads, N numbers without positions, R with, C the key-value latent, V a head's value.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from stackwise.choice import Params
from stackwise.model.adapters import weight_of
from stackwise.model.attention.cached import Kept, go_on, visible
from stackwise.model.attention.mha import MASK_BYTES, SHORT, attend, most
from stackwise.model.attention.rope import Rotary
from stackwise.model.direction import BlockCausal, Direction, start_of
from stackwise.model.norm import RMSNorm, cast_once
from stackwise.model.saved import Saved
from stackwise.model.scores import Scores
from stackwise.model.shape import AttentionShape
from stackwise.model.working import Working


class Mla(Params):
    """Keys and values from a latent. Published sizes: nope 128, rope 64, v 128, kv_rank 512."""

    kind: Literal["mla"] = "mla"
    kv_rank: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="numbers in the key-value latent; empty: four heads' worth as published, "
        "at most half of all heads'",
    )
    q_rank: int | None = Field(
        None, ge=1, le=65536, description="numbers in the query latent; empty: full queries"
    )
    nope_dim: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="numbers per head without positions; empty: what rope_dim leaves of head_dim",
    )
    rope_dim: int | None = Field(
        None,
        ge=0,
        le=1024,
        description="numbers of the shared key that RoPE turns; empty: half of head_dim, "
        "none without RoPE",
    )
    v_dim: int | None = Field(
        None, ge=1, le=1024, description="numbers of a head's value; empty: head_dim"
    )


class Sizes(NamedTuple):
    """Every size of the sub-layer, none empty but `q_rank`."""

    q_rank: int | None
    kv_rank: int
    nope: int
    rope: int
    value: int

    @property
    def key(self) -> int:
        """Numbers per head that a query and a key are compared by."""
        return self.nope + self.rope

    @property
    def wide(self) -> int:
        """Numbers per head that the kernel sees: fused kernels want keys as wide as values."""
        return max(self.key, self.value)


def sizes(shape: AttentionShape, params: Mla) -> Sizes:
    """The sizes on this shape. By default queries, keys and values are head_dim wide, as in mha."""
    rope = params.rope_dim
    if rope is None:
        rope = 0 if shape.rope_base is None else max(2, shape.head_dim // 4 * 2)
    return Sizes(
        q_rank=params.q_rank,
        kv_rank=params.kv_rank
        or max(1, min(4 * shape.head_dim, shape.heads * shape.head_dim // 2)),
        nope=params.nope_dim or max(1, shape.head_dim - rope),
        rope=rope,
        value=params.v_dim or shape.head_dim,
    )


class LatentAttention(nn.Module):
    """Softmax attention whose keys and values are read from a latent."""

    def __init__(self, shape: AttentionShape, params: Mla) -> None:
        super().__init__()
        self.shape, self.sizes = shape, sizes(shape, params)
        size, bias = self.sizes, shape.bias
        self.q_down = nn.Linear(shape.d_model, size.q_rank, bias=bias) if size.q_rank else None
        self.q_norm = RMSNorm(size.q_rank, shape.norm_eps) if size.q_rank else None
        self.q = nn.Linear(size.q_rank or shape.d_model, shape.heads * size.key, bias=bias)
        self.kv_down = nn.Linear(shape.d_model, size.kv_rank, bias=bias)
        self.kv_norm = RMSNorm(size.kv_rank, shape.norm_eps)
        self.k_rope = nn.Linear(shape.d_model, size.rope, bias=bias) if size.rope else None
        self.k = nn.Linear(size.kv_rank, shape.heads * size.nope, bias=bias)
        self.v = nn.Linear(size.kv_rank, shape.heads * size.value, bias=bias)
        self.out = nn.Linear(shape.heads * size.value, shape.d_model, bias=bias)
        self.rotary = (
            Rotary(size.rope, shape.rope_base, shape.rope_scaling)
            if size.rope and shape.rope_base is not None
            else None
        )

    def forward(self, x_BTD: Tensor, *, causal: Direction) -> Tensor:
        """(B, T, D) to (B, T, D); token i sees j <= i if causal, else every j in its window.

        Rows that are read block by block see what the direction says (`model/direction.py`).
        """
        return self._written_out(x_BTD, *self.latent(x_BTD, start_of(causal)), causal)

    def decode(
        self, x_BTD: Tensor, kept: Kept | None, seen: int, *, together: bool = False
    ) -> tuple[Tensor, Kept]:
        """What `forward` gives new tokens causally, absorbed; kept are latents and shared keys.

        With `together` new tokens are a block: they see each other, too.
        """
        latent_BTC, shared_B1TR = self.latent(x_BTD, seen)
        new = (latent_BTC,) if shared_B1TR is None else (latent_BTC, shared_B1TR)
        (latent_BSC, *shared), after = go_on(kept, new, self.shape.window)
        if kept is None:  # as many queries as keys: these are worth writing out
            return self._written_out(x_BTD, latent_BTC, shared_B1TR, not together), after
        lengths = (x_BTD.shape[1], latent_BSC.shape[1])
        mask_TS = visible(*lengths, self.shape.window, x_BTD.device, together)
        shared_B1SR = shared[0] if shared else None
        return absorbed(self, x_BTD, latent_BSC, shared_B1SR, start=seen, seen_TS=mask_TS), after

    def _written_out(
        self, x_BTD: Tensor, latent_BTC: Tensor, shared_B1TR: Tensor | None, causal: Direction
    ) -> Tensor:
        """The output, with the keys and values of every head made from the latents."""
        size = self.sizes
        q_BHTE = self.queries(x_BTD, start_of(causal))
        k_BHTE = self._heads(self.k(latent_BTC), size.nope)
        if shared_B1TR is not None:
            wide_BHTR = shared_B1TR.expand(-1, self.shape.heads, -1, -1)
            k_BHTE = _joined(k_BHTE, wide_BHTR)
        v_BHTV = self._heads(self.v(latent_BTC), size.value)
        y_BHTE = attend(
            _padded(q_BHTE, size.wide),
            _padded(k_BHTE, size.wide),
            _padded(v_BHTV, size.wide),
            causal=causal,
            window=self.shape.window,
            scale=size.key**-0.5,
        )
        y_BTD: Tensor = self.out(y_BHTE[..., : size.value].transpose(1, 2).flatten(2))
        return y_BTD

    def queries(self, x_BTD: Tensor, start: int | BlockCausal = 0) -> Tensor:
        """(B, H, T, N + R), the last R turned by position, of which `start` is the first."""
        if self.q_down is not None and self.q_norm is not None:
            x_BTD = self.q_norm(self.q_down(x_BTD))
        q_BHTE = self._heads(self.q(x_BTD), self.sizes.key)
        if self.rotary is None:
            return q_BHTE
        q_BHTN, q_BHTR = q_BHTE.split((self.sizes.nope, self.sizes.rope), dim=-1)
        return _joined(q_BHTN, self.rotary(q_BHTR, start))

    def latent(self, x_BTD: Tensor, start: int | BlockCausal = 0) -> tuple[Tensor, Tensor | None]:
        """What a cache holds: the normalised latent (B, T, C), and the shared key (B, 1, T, R).

        Position `start` is the first one.
        """
        latent_BTC = cast_once(self.kv_norm(self.kv_down(x_BTD)))
        if self.k_rope is None:
            return latent_BTC, None
        shared_B1TR = self.k_rope(x_BTD)[:, None]
        return latent_BTC, shared_B1TR if self.rotary is None else self.rotary(shared_B1TR, start)

    def _heads(self, x_BTF: Tensor, width: int) -> Tensor:
        return x_BTF.unflatten(-1, (-1, width)).transpose(1, 2)


def _joined(left_BHTN: Tensor, right_BHTR: Tensor) -> Tensor:
    """Both slices side by side, laid out token by token: the output then needs no copy."""
    parts = (left_BHTN.transpose(1, 2), right_BHTR.transpose(1, 2))
    return torch.cat(parts, dim=-1).transpose(1, 2)


def _padded(x_BHTE: Tensor, width: int) -> Tensor:
    """Zeros on the last axis up to `width`: they add nothing to a score or a sum."""
    missing = width - x_BHTE.shape[-1]
    return F.pad(x_BHTE.transpose(1, 2), (0, missing)).transpose(1, 2) if missing else x_BHTE


def absorbed(
    layer: LatentAttention,
    x_BTD: Tensor,
    latent_BSC: Tensor,
    shared_B1SR: Tensor | None,
    *,
    start: int = 0,
    seen_TS: Tensor | None = None,
) -> Tensor:
    """The layer's output on queries from `x_BTD`, keys never written out.

    The key matrix moves to the query side and the value matrix past the sum, so that a decoder
    reads its cache as it is. A key bias adds the same to all scores of a query, and drops out.
    Equal to `forward` to rounding: `tests/unit/test_mla_forms_agree.py`.

    Args:
        layer: The layer.
        x_BTD: What queries are made of.
        latent_BSC: The cached latents, as `layer.latent` gives them; their length may differ.
        shared_B1SR: The cached shared keys, if the layer has any.
        start: Position of the first query.
        seen_TS: True where a query sees a cached token; None: each sees all.
    """
    size = layer.sizes
    key_HNC, value_HVC = (
        weight_of(linear).unflatten(0, (layer.shape.heads, -1)) for linear in (layer.k, layer.v)
    )
    q_BHTN, q_BHTR = layer.queries(x_BTD, start).split((size.nope, size.rope), dim=-1)
    scores_BHTS = (q_BHTN @ key_HNC) @ latent_BSC[:, None].mT
    if shared_B1SR is not None:
        scores_BHTS = scores_BHTS + q_BHTR @ shared_B1SR.mT
    scores_BHTS = scores_BHTS * size.key**-0.5
    if seen_TS is not None:
        scores_BHTS = scores_BHTS.masked_fill(~seen_TS, -torch.inf)
    y_BHTV = (scores_BHTS.softmax(-1) @ latent_BSC[:, None]) @ value_HVC.mT
    if layer.v.bias is not None:
        y_BHTV = y_BHTV + layer.v.bias.unflatten(0, (-1, 1, size.value))
    y_BTD: Tensor = layer.out(y_BHTV.transpose(1, 2).flatten(2))
    return y_BTD


def parameters(shape: AttentionShape, params: Mla) -> int:
    """Every trainable number of the sub-layer."""
    size = sizes(shape, params)
    read = size.key + size.nope + size.value
    biases = (size.q_rank or 0) + size.kv_rank + size.rope + shape.heads * read + shape.d_model
    norms = (size.q_rank or 0) + size.kv_rank
    return matmul_parameters(shape, params) + biases * shape.bias + norms


def matmul_parameters(shape: AttentionShape, params: Mla) -> int:
    """Weights in matrix products."""
    size = sizes(shape, params)
    queries = shape.heads * size.key
    if size.q_rank is None:
        count = shape.d_model * queries
    else:
        count = size.q_rank * (shape.d_model + queries)
    count += shape.d_model * (size.kv_rank + size.rope)
    count += size.kv_rank * shape.heads * (size.nope + size.value)
    return count + shape.heads * size.value * shape.d_model


def input_parameters(shape: AttentionShape, params: Mla) -> int:
    """Those whose product reads what the sub-layer is given: into the latents, the shared key."""
    size = sizes(shape, params)
    return shape.d_model * ((size.q_rank or shape.heads * size.key) + size.kv_rank + size.rope)


def score_flops(shape: AttentionShape, params: Mla, length: int, causal: Direction) -> Scores:
    """FLOPs per token, forward, of queries on keys and weights on values, padding included."""
    return Scores(4.0 * length * shape.heads * sizes(shape, params).wide)


def decode_flops(shape: AttentionShape, params: Mla, new: int, seen: int) -> float:
    """FLOPs per new token of the absorbed form: queries and weights on latents, and shared keys.

    The key and value matrices are used once per token, as `matmul_parameters` has them.
    """
    size = sizes(shape, params)
    kept = seen if shape.window is None else min(seen, shape.window)
    return 2.0 * (kept + new) * shape.heads * (2 * size.kv_rank + size.rope)


def saved_floats(
    shape: AttentionShape, params: Mla, length: int, causal: Direction, trains: bool
) -> Saved:
    """Numbers per token that autograd keeps: queries, keys, values, output, log-sum-exp, latents.

    A norm keeps what it read and one number; a weight that trains keeps its input. Where values
    are narrower than keys, the output without its padding is a second copy.
    """
    size = sizes(shape, params)
    full = shape.heads + size.kv_rank + 1
    compute = 4 * shape.heads * size.wide
    if size.q_rank is not None:
        full += size.q_rank + 1
    if trains:
        compute += shape.d_model + size.kv_rank + (size.q_rank or 0)
        compute += shape.heads * size.value * (size.value < size.wide)
    return Saved(full, compute)


def working_floats(
    shape: AttentionShape, params: Mla, length: int, causal: Direction, low: bool, trains: bool
) -> Working:
    """Numbers per token held at once: as in `mha`, with the latents beside."""
    size = sizes(shape, params)
    wide, latents = shape.heads * size.wide, size.kv_rank + (size.q_rank or 0)
    blocks = isinstance(causal, BlockCausal)
    masked = blocks or (shape.window is not None and shape.window < length - 1)
    copied = low and not masked and length <= SHORT
    kept = Saved(shape.heads + latents, 4 * wide + latents * trains)
    core = kept.plus(Saved(8 * wide * copied, wide + 3 * wide * (not copied)))
    beside = Saved(0, latents + size.rope)
    return Working(
        forward=beside.plus(Saved(4 * wide * copied, 3 * wide + wide * (not copied))),
        core=most(core, low=low),
        product=beside.plus(Saved(latents, 3 * wide + 2 * shape.d_model)),
        squares=MASK_BYTES * (masked and not blocks),  # block by block all layers share one
    )


def cache_floats(shape: AttentionShape, params: Mla) -> int:
    """Numbers per token in a KV cache: the latent and the shared key."""
    size = sizes(shape, params)
    return size.kv_rank + size.rope


def check(shape: AttentionShape, params: Mla) -> list[str]:
    """What `mla` cannot be combined with."""
    found = []
    if shape.kv_heads != shape.heads:
        found.append(
            f"attention: mla has no groups of key heads, but rack.kv_heads={shape.kv_heads} and "
            f"rack.heads={shape.heads}; leave kv_heads empty or use attention=gqa"
        )
    if shape.qk_norm:
        found.append(
            "attention: mla normalises its latents, but rack.qk_norm=True; "
            "set qk_norm=false or use attention=mha"
        )
    found += _ranks_that_do_not_fit(shape, params)
    if shape.rope_base is None and params.rope_dim:
        found.append(
            f"attention.rope_dim: {params.rope_dim} numbers are turned by RoPE, and this rack has "
            "none; leave rope_dim empty, or set rack.positions=rope"
        )
    if shape.rope_base is not None and sizes(shape, params).rope % 2:
        found.append(f"attention.rope_dim: {params.rope_dim} must be even, since RoPE turns pairs")
    return found


def _ranks_that_do_not_fit(shape: AttentionShape, params: Mla) -> list[str]:
    """Latents that were asked for and are wider than what they are between."""
    found, size = [], sizes(shape, params)
    for name, rank, made, what in (
        ("kv_rank", params.kv_rank, size.nope + size.value, "keys and values"),
        ("q_rank", params.q_rank, size.key, "queries"),
    ):
        most = min(shape.d_model, shape.heads * made)
        if rank is not None and rank > most:
            found.append(
                f"attention.{name}: {rank} > {most}: a latent lies between d_model="
                f"{shape.d_model} and the {shape.heads * made} numbers of all heads' {what}; use "
                f"at most {most}, or attention=mha"
            )
    if params.nope_dim is None and (params.rope_dim or 0) >= shape.head_dim:
        found.append(
            f"attention.rope_dim: {params.rope_dim} leaves nothing of head_dim={shape.head_dim} "
            "without positions; lower it, or give nope_dim"
        )
    return found
