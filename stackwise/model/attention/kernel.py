"""Attention by random features, linear in the number of tokens.

A kernel k(q, k) is the mean of products of features, so that sums over keys are taken once and
shared by all queries: FAVOR+ (arXiv 2009.14794) for the softmax kernel exp(q.k), Fourier features
(Rahimi and Recht 2007; in attention arXiv 2103.02143) for kernels of the distance |q - k|. Queries
and keys are normalised to one length, so features are bounded by a constant: no maximum over keys
and no epsilon is needed, and nothing about a later token reaches an earlier one.

Fourier features can make the sum of weights small or negative. It is kept at or over FLOOR times
the number of tokens seen, a bound that knows no data and so keeps causality exact.

The sums are in `sums.py`. Shapes: H heads, E numbers per head, M features.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from stackwise.choice import Params
from stackwise.model.attention.cached import Kept
from stackwise.model.attention.heads import cut, qkv_linear
from stackwise.model.attention.rope import rotary_of
from stackwise.model.attention.sums import (
    attend,
    attend_causal,
    attend_on,
    chunked,
    kept_sums,
    sum_flops,
    sums_at_once,
)
from stackwise.model.saved import Saved
from stackwise.model.scores import Scores
from stackwise.model.shape import AttentionShape
from stackwise.model.working import Working

FLOOR = 0.01
LARGEST_EXPONENT = 60.0

Map = Literal["softmax_positive", "gaussian", "laplacian", "uniform"]


class Kernel(Params):
    """Random-feature attention."""

    kind: Literal["kernel"] = "kernel"
    map: Map = Field(
        "softmax_positive",
        description="softmax_positive: exp(q.k) by FAVOR+; gaussian, laplacian, uniform: kernels "
        "of the distance, by Fourier features with frequencies of that law",
    )
    features: int = Field(128, ge=2, le=65536, description="random features per head")
    gain: float = Field(
        0.5,
        gt=0,
        le=1,
        description="standard deviation of normalised queries and keys; the error of "
        "softmax_positive grows steeply over 0.5",
    )
    chunk: int = Field(64, ge=1, le=4096, description="tokens per chunk of the causal form")
    feature_seed: int = Field(0, ge=0, lt=1 << 31, description="of the random directions")


class KernelAttention(nn.Module):
    """Attention by random features, causal or bidirectional. Its directions never train."""

    def __init__(self, shape: AttentionShape, params: Kernel) -> None:
        super().__init__()
        self.shape, self.params = shape, params
        self.floor = None if params.map == "softmax_positive" else FLOOR
        self.qkv = qkv_linear(shape)
        self.out = nn.Linear(shape.heads * shape.head_dim, shape.d_model, bias=shape.bias)
        self.rotary = rotary_of(shape)
        omega_EM = directions(params, shape.head_dim).to(self.qkv.weight.device)
        self.register_buffer("omega_EM", omega_EM)

    def forward(self, x_BTD: Tensor, *, causal: bool) -> Tensor:
        """(B, T, D) to (B, T, D); token i sees j <= i if causal, else every j."""
        q_BHTE, k_BHTE, v_BHTE = cut(self.qkv(x_BTD), self.shape)
        with torch.autocast(x_BTD.device.type, enabled=False):
            q_BHTM, k_BHTM = self.features(q_BHTE), self.features(k_BHTE)
            v_BHTE = v_BHTE.to(q_BHTM.dtype)
            if causal:
                y_BHTE = attend_causal(q_BHTM, k_BHTM, v_BHTE, self.params.chunk, self.floor)
            else:
                y_BHTE = attend(q_BHTM, k_BHTM, v_BHTE, self.floor)
        return self.out(y_BHTE.transpose(1, 2).flatten(2))

    def decode(self, x_BTD: Tensor, kept: Kept | None, seen: int) -> tuple[Tensor, Kept]:
        """What `forward` gives new tokens causally; kept is the sum over keys."""
        q_BHTE, k_BHTE, v_BHTE = cut(self.qkv(x_BTD), self.shape)
        with torch.autocast(x_BTD.device.type, enabled=False):
            q_BHTM, k_BHTM = self.features(q_BHTE, seen), self.features(k_BHTE, seen)
            state = None if kept is None else kept[0]
            y_BHTE, state = attend_on(
                q_BHTM, k_BHTM, v_BHTE.to(q_BHTM.dtype), self.params.chunk, self.floor, state, seen
            )
        return self.out(y_BHTE.transpose(1, 2).flatten(2)), (state,)

    def features(self, x_BHTE: Tensor, start: int = 0) -> Tensor:
        """Queries or keys from position `start` on to their features, at least in float32."""
        omega_EM = self.get_buffer("omega_EM")
        x_BHTE = x_BHTE.to(omega_EM.dtype)
        x_BHTE = F.rms_norm(x_BHTE, x_BHTE.shape[-1:], eps=self.shape.norm_eps) * self.params.gain
        if self.rotary is not None:
            x_BHTE = self.rotary(x_BHTE, start)
        return feature_map(x_BHTE, omega_EM, self.params.map)


def directions(params: Kernel, width: int) -> Tensor:
    """Random directions, (E, M) or, for Fourier features, (E, M/2): the same for equal seeds.

    Normal ones come in orthogonal blocks with the lengths of normal vectors (arXiv 2009.14794);
    `laplacian` has Cauchy and `uniform` uniform entries, of variance one.
    """
    generator = torch.Generator().manual_seed(params.feature_seed)
    count = directions_needed(params)
    if params.map == "laplacian":
        return torch.empty(width, count, device="cpu").cauchy_(generator=generator) / width**0.5
    if params.map == "uniform":
        drawn = torch.rand(width, count, generator=generator, device="cpu")
        return (2 * drawn - 1) * math.sqrt(3)
    blocks = []
    for _ in range(-(-count // width)):
        normal = torch.randn(width, width, generator=generator, device="cpu")
        lengths = torch.randn(width, width, generator=generator, device="cpu").norm(dim=0)
        basis, upper = torch.linalg.qr(normal)
        # The sign that qr chooses is no random one: without this, exp(omega.x) is biased.
        blocks.append(basis * upper.diagonal().sign() * lengths)
    return torch.cat(blocks, dim=1)[:, :count].contiguous()


def directions_needed(params: Kernel) -> int:
    """Columns of omega: Fourier features are pairs, a cosine and a sine of each."""
    return params.features if params.map == "softmax_positive" else params.features // 2


def feature_map(x_BHTE: Tensor, omega_EM: Tensor, name: Map) -> Tensor:
    """Features whose products estimate the kernel at x * E^(-1/4).

    softmax_positive: exp(q.k / sqrt E), always positive. The others are cosines and sines:
    exp(-|q - k|^2 / (2 sqrt E)), exp(-|q - k|_1 / E^(3/4)), and the product of
    sinc(sqrt 3 (q - k) / E^(1/4)) over the E coordinates.
    """
    x_BHTE = x_BHTE * x_BHTE.shape[-1] ** -0.25
    angle_BHTM = x_BHTE @ omega_EM
    count = omega_EM.shape[-1]
    if name == "softmax_positive":
        half_BHT1 = x_BHTE.square().sum(-1, keepdim=True) / 2
        return (angle_BHTM - half_BHT1 - math.log(count) / 2).exp()
    return torch.cat((angle_BHTM.cos(), angle_BHTM.sin()), dim=-1) * count**-0.5


def parameters(shape: AttentionShape, params: Kernel) -> int:
    """Every trainable number of the sub-layer; the random directions are none."""
    biases = 3 * shape.heads * shape.head_dim + shape.d_model
    return matmul_parameters(shape, params) + biases * shape.bias


def matmul_parameters(shape: AttentionShape, params: Kernel) -> int:
    """Weights in matrix products."""
    return 4 * shape.d_model * shape.heads * shape.head_dim


def input_parameters(shape: AttentionShape, params: Kernel) -> int:
    """Those whose product reads what the sub-layer is given: all but the output's."""
    return 3 * shape.d_model * shape.heads * shape.head_dim


def score_flops(shape: AttentionShape, params: Kernel, length: int, causal: bool) -> Scores:
    """FLOPs per token, forward: sums over keys, queries on sums, pairs in a chunk; and features.

    Features are products of queries and keys with directions, which never train.
    """
    features = 4.0 * shape.heads * shape.head_dim * directions_needed(params)
    made = features_made(params)
    each = sum_flops(made, shape.head_dim, params.chunk, length, causal)
    return Scores(shape.heads * each, features)


def chunks(params: Kernel, length: int, causal: bool) -> tuple[int, int]:
    """Tokens that share a sum over keys, and all tokens once the last chunk is filled up."""
    return chunked(params.chunk, length, causal)


def features_made(params: Kernel) -> int:
    """Features per head: `features`, or the even number below it for Fourier features."""
    return directions_needed(params) * (1 if params.map == "softmax_positive" else 2)


def saved_floats(
    shape: AttentionShape, params: Kernel, length: int, causal: bool, trains: bool
) -> Saved:
    """Numbers per token that autograd keeps.

    Queries and keys before and after their norm, features, values as they came and with ones, sums
    over keys and of values; causal also the pairs in a chunk, and sums for each chunk, to the end
    of the last one. Features that are filled up for that are kept beside what the exponential
    keeps. A weight that trains keeps its input.
    """
    made, wide = features_made(params), shape.head_dim
    _, filled = chunks(params, length, causal)
    if params.map == "softmax_positive":
        each = 2 * (2 * wide + 1 + made * (filled > length)) + wide
    else:
        each = 2 * (wide + 1 + directions_needed(params)) + wide + 1
    each += kept_sums(made, wide, params.chunk, length, causal)
    return Saved(shape.heads * each, trains * (shape.d_model + shape.heads * wide))


def working_floats(
    shape: AttentionShape, params: Kernel, length: int, causal: bool, low: bool, trains: bool
) -> Working:
    """Numbers per token held at once, in float32 whatever products are in."""
    made, wide = features_made(params), shape.head_dim
    inside = sums_at_once(made, wide, params.chunk, length, causal)
    kept = saved_floats(shape, params, length, causal, False)
    heads, cut = shape.heads, 3 * shape.heads * wide
    return Working(
        forward=Saved(heads * (3 * made + 2 * wide + inside), cut),
        core=kept.plus(Saved(heads * inside, heads * wide)),
        product=Saved(0, 2 * cut + shape.d_model),
    )


def cache_floats(shape: AttentionShape, params: Kernel) -> int:
    """Numbers per token in a cache: none, since the state does not grow with the text."""
    return 0


def state_floats(shape: AttentionShape, params: Kernel) -> int:
    """Numbers of that state: the sum of key features times values, with the sum of features."""
    return shape.heads * features_made(params) * (shape.head_dim + 1)


def check(shape: AttentionShape, params: Kernel) -> list[str]:
    """What `kernel` cannot be combined with."""
    found = []
    if shape.kv_heads != shape.heads:
        found.append(
            "attention: kernel has one key head per query head, but "
            f"rack.kv_heads={shape.kv_heads} and rack.heads={shape.heads}; "
            "leave kv_heads empty or use attention=gqa"
        )
    if shape.window is not None:
        found.append(
            f"attention: kernel sums over all tokens, but rack.window={shape.window}; "
            "leave window empty or use attention=mha"
        )
    if shape.qk_norm:
        found.append(
            "attention: kernel normalises queries and keys itself, but rack.qk_norm=True; "
            "set qk_norm=false"
        )
    if params.map == "softmax_positive" and largest_exponent(shape, params) > LARGEST_EXPONENT:
        most = params.gain * LARGEST_EXPONENT / largest_exponent(shape, params)
        found.append(
            f"attention.gain: {params.gain} lets features overflow float32 with "
            f"head_dim={shape.head_dim}; use at most {math.floor(most * 100) / 100}"
        )
    return found


def largest_exponent(shape: AttentionShape, params: Kernel) -> float:
    """Bound on the exponent of a product of two features: twice |omega| |x|.

    The length of a normal vector exceeds sqrt(E) + 4 once in 10^7.
    """
    longest = params.gain * shape.head_dim**0.25
    return 2 * longest * (math.sqrt(shape.head_dim) + 4)
