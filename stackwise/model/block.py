"""One transformer block: attention and feed-forward, each with its norm and residual.

Pre-norm:  x + g A(norm x), then x + g F(norm x).  Post-norm (BERT):  norm(x + g A(x)), ...
Where a rack has its time as input, what a norm gives and a sub-layer adds change with the noise
level: `conditioning.py`.
The arithmetic of a block's cost stands under its module.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from stackwise.choice import Params
from stackwise.model.attention import build_attention, kind_of
from stackwise.model.conditioning import (
    Change,
    TimeInput,
    time_matrix,
    time_parameters,
    time_saved,
)
from stackwise.model.direction import Direction
from stackwise.model.norm import RMSNorm, cast_once
from stackwise.model.saved import Saved
from stackwise.model.scores import Scores
from stackwise.model.shape import RackShape, attention_shape, d_ff, residual_factor
from stackwise.model.working import Moment, Passing


def make_norm(shape: RackShape) -> nn.Module:
    """The rack's norm over its width."""
    if shape.norm == "rmsnorm":
        return RMSNorm(shape.d_model, shape.norm_eps)
    return nn.LayerNorm(shape.d_model, shape.norm_eps)


def activation(shape: RackShape, x: Tensor) -> Tensor:
    """The rack's GELU, exact or by tanh."""
    return F.gelu(x, approximate="tanh" if shape.ffn == "gelu_tanh" else "none")


class FeedForward(nn.Module):
    """SwiGLU, down(silu(gate x) * up x) (arXiv 2002.05202), or down(gelu(up x))."""

    def __init__(self, shape: RackShape) -> None:
        super().__init__()
        self.shape = shape
        wide = d_ff(shape)
        self.gate = (
            nn.Linear(shape.d_model, wide, bias=shape.bias) if shape.ffn == "swiglu" else None
        )
        self.up = nn.Linear(shape.d_model, wide, bias=shape.bias)
        self.down = nn.Linear(wide, shape.d_model, bias=shape.bias)

    def never_train(self) -> list[str]:
        """Names of the parameters that stay as they start (`rack.frozen_up`)."""
        frozen = ("up.", "gate.") if self.shape.frozen_up else ()
        return [name for name, _ in self.named_parameters() if name.startswith(frozen)]

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D), each position by itself."""
        if self.gate is not None:
            return self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD))
        return self.down(activation(self.shape, self.up(x_BTD)))


class Block(nn.Module):
    """Attention and feed-forward with residuals.

    Args:
        shape: The rack's.
        attention: Parameters of the attention kind.
        number: The block's place in the whole rack, 0 at the left; it decides RoPE base and window.
    """

    def __init__(self, shape: RackShape, attention: Params, number: int) -> None:
        super().__init__()
        self.gain = residual_factor(shape)
        self.post = shape.norm_place == "post"
        self.attention_norm = make_norm(shape)
        self.attention = build_attention(attention_shape(shape, number), attention)
        self.ffn_norm = make_norm(shape)
        self.ffn = FeedForward(shape)
        self.time = None if shape.time == "none" else TimeInput(shape)

    def forward(self, x_BTD: Tensor, *, causal: Direction, time_B: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D).

        Args:
            x_BTD: The residual stream.
            causal: Attention direction.
            time_B: Noise level of each sample, in [0, 1], where the rack has its time as input;
                without it, it is not read.

        Raises:
            ValueError: If the rack has its time as input, and no level is given.
        """
        return self.around(partial(self.attention, causal=causal), x_BTD, time_B)

    def around(
        self,
        attention: Callable[[Tensor], Tensor],
        x_BTD: Tensor,
        time_B: Tensor | None = None,
    ) -> Tensor:
        """The block with this in the place of its attention: a decoder's goes on from a cache."""
        first, second = self._changes(x_BTD, time_B)
        if self.post:
            x_BTD = self._add(x_BTD, attention(cast_once(x_BTD)), first)
            x_BTD = normal(self.attention_norm, x_BTD, first)
            x_BTD = self._add(x_BTD, self.ffn(cast_once(x_BTD)), second)
            return normal(self.ffn_norm, x_BTD, second)
        normal_BTD = cast_once(normal(self.attention_norm, x_BTD, first))
        x_BTD = self._add(x_BTD, attention(normal_BTD), first)
        return self._add(x_BTD, self.ffn(cast_once(normal(self.ffn_norm, x_BTD, second))), second)

    def _changes(
        self, x_BTD: Tensor, time_B: Tensor | None
    ) -> tuple[Change, Change] | tuple[None, None]:
        if self.time is None:
            return None, None
        if time_B is None:
            raise ValueError(
                "time_B: this block reads the noise level of each sample (rack.time), and none is "
                "given; give (B,) numbers in [0, 1], as Rack.time_of does"
            )
        found: tuple[Change, Change] = self.time(time_B, x_BTD.dtype)
        return found

    def _add(self, x_BTD: Tensor, y_BTD: Tensor, change: Change | None) -> Tensor:
        y_BTD = y_BTD if change is None else y_BTD * change.gate
        return x_BTD + y_BTD if self.gain == 1 else x_BTD.add(y_BTD, alpha=self.gain)


def normal(norm: nn.Module, x_BTD: Tensor, change: Change | None) -> Tensor:
    """A norm's output, changed with the noise level where there is a change."""
    normal_BTD: Tensor = norm(x_BTD)
    return normal_BTD if change is None else change.normal(normal_BTD)


def frozen_names(part: nn.Module) -> set[str]:
    """Names of those parameters of a part that stay as they start wherever the part trains."""
    layers = ((name, m) for name, m in part.named_modules() if isinstance(m, FeedForward))
    return {f"{name}.{inner}" for name, layer in layers for inner in layer.never_train()}


def ffn_matmul_parameters(shape: RackShape) -> int:
    """Weights of the feed-forward."""
    return (3 if shape.ffn == "swiglu" else 2) * shape.d_model * d_ff(shape)


def norm_parameters(shape: RackShape) -> int:
    """Numbers of one norm over the width."""
    return shape.d_model * (1 if shape.norm == "rmsnorm" else 2)


def block_parameters(shape: RackShape, attention: Params) -> int:
    """Every number of one block, of which `rack.frozen_up` lets a part stay as it starts."""
    biases = shape.d_model + d_ff(shape) * (2 if shape.ffn == "swiglu" else 1)
    return (
        kind_of(attention).parameters(attention_shape(shape, 0), attention)
        + ffn_matmul_parameters(shape)
        + biases * shape.bias
        + 2 * norm_parameters(shape)
        + time_parameters(shape)
    )


def block_matmul_parameters(shape: RackShape, attention: Params) -> int:
    """Weights of one block in matrix products: 2 FLOPs each per token, forward."""
    inside = kind_of(attention).matmul_parameters(attention_shape(shape, 0), attention)
    return inside + ffn_matmul_parameters(shape)


def block_sample_parameters(shape: RackShape) -> int:
    """Weights of one block whose product is made once for a sample: its readout of the level."""
    return time_matrix(shape)


def block_frozen_parameters(shape: RackShape) -> int:
    """Weights of one block in matrix products that stay as they start: their gradient is not made.

    Biases beside them stay as they start too.
    """
    return shape.frozen_up * (ffn_matmul_parameters(shape) - shape.d_model * d_ff(shape))


def block_input_parameters(shape: RackShape, attention: Params) -> int:
    """Those of them whose product reads what the block is given, with no weight in between.

    None where a norm comes first: its own weights need the gradient through these products.
    """
    if shape.norm_place == "pre":
        return 0
    return kind_of(attention).input_parameters(attention_shape(shape, 0), attention)


def block_scores(
    shape: RackShape, attention: Params, number: int, length: int, causal: Direction
) -> Scores:
    """FLOPs per token, forward, of one block that are not products with weights."""
    kind = kind_of(attention)
    return kind.score_flops(attention_shape(shape, number), attention, length, causal)


def block_cache_floats(shape: RackShape, attention: Params) -> int:
    """Numbers per token that one block holds in a KV cache."""
    return kind_of(attention).cache_floats(attention_shape(shape, 0), attention)


def block_cache_tokens(shape: RackShape, attention: Params, number: int, tokens: int) -> int:
    """Of so many tokens, those that one block holds in a KV cache: at most its window's."""
    window = kind_of(attention).shaped(attention_shape(shape, number), attention).window
    return tokens if window is None else min(tokens, window)


def block_state_floats(shape: RackShape, attention: Params) -> int:
    """Numbers of the running state that one block holds of a sample, however long the text."""
    return kind_of(attention).state_floats(attention_shape(shape, 0), attention)


def norm_saved(shape: RackShape) -> Saved:
    """Numbers per token that one norm over the width keeps: its input and its statistics.

    Whether it trains makes no difference: its input's gradient takes the same as its weight's.
    """
    return Saved(shape.d_model + (2 if shape.norm == "layernorm" else 1), 0)


def block_saved(
    shape: RackShape, attention: Params, length: int, causal: Direction, trains: bool
) -> Saved:
    """Numbers per token that one block keeps for backward, crossed or trained."""
    inner = attention_shape(shape, 0)
    inside = kind_of(attention).saved_floats(inner, attention, length, causal, trains)
    wide = d_ff(shape)
    read = shape.d_model * (trains and not shape.frozen_up)
    ffn = wide * (3 if shape.ffn == "swiglu" else 1) + trains * wide + read
    norm, time = norm_saved(shape), time_saved(shape, length, trains)
    return inside.plus(norm).plus(norm).plus(Saved(0, ffn)).plus(time)


def block_forward(
    shape: RackShape, attention: Params, number: int, passing: Passing, trains: bool
) -> Moment:
    """The highest moment of a forward pass that keeps nothing, the block's input included.

    What attention read is held until the feed-forward is done: it has a name.
    """
    kind, wide, width = kind_of(attention), d_ff(shape), shape.d_model
    inner = attention_shape(shape, number)
    inside = kind.working_floats(inner, attention, *passing, trains)
    read = Saved(0, width) if passing.low else Saved(width, 0)
    attended = Saved(width, 0).plus(read).plus(inside.forward)
    fed = Saved(2 * width, wide * (3 if shape.ffn == "swiglu" else 2)).plus(read).plus(read)
    highest = max(attended, fed, key=lambda count: count.bytes(2 if passing.low else 4))
    return Moment(highest, 0, 0, inside.squares)


def block_backward(
    shape: RackShape, attention: Params, number: int, passing: Passing, trains: bool
) -> tuple[Moment, ...]:
    """The moments of a block's backward of which one is its highest, in their order.

    The products down, gate and up of the feed-forward and what lies between them, attention's last
    product, attention, and the products that read its input. The residual's gradient is float32,
    and there throughout.
    """
    kind, wide, width = kind_of(attention), d_ff(shape), shape.d_model
    inner = attention_shape(shape, number)
    inside = kind.working_floats(inner, attention, *passing, trains)
    saved = block_saved(shape, attention, passing.length, passing.causal, trains)
    timed = shape.time != "none"
    norm = norm_saved(shape).plus(Saved(timed * trains * width, 0))  # changed, its output is kept
    gated = shape.ffn == "swiglu"
    one, weights = width * wide, block_matmul_parameters(shape, attention)
    ffn, cast = ffn_matmul_parameters(shape), width * passing.low
    still = trains * block_frozen_parameters(shape)
    learns = trains and not still
    residual = Saved(width, 0)
    added = Saved(0, timed * width * (not passing.low))  # with a gate, what is added has a gradient
    saved = saved.plus(Saved(0, -timed * trains * width))  # and what was added is gone
    below = saved.plus(Saved(0, -wide * (3 if gated else 1) - trains * wide - learns * width))
    down = saved.plus(residual).plus(added).plus(Saved(0, cast + wide))
    between = saved.plus(residual).plus(Saved(0, (3 if gated else 2) * wide - trains * wide))
    first = below.plus(residual).plus(Saved(0, wide + learns * width + (1 + gated) * width))
    under = norm.plus(residual).plus(Saved(0, width * trains))
    read = kind.input_parameters(inner, attention)
    attended = kind.saved_floats(inner, attention, passing.length, passing.causal, trains)
    out = norm.plus(residual).plus(attended).plus(Saved(0, inner.heads * inner.head_dim))
    out, made = out.plus(added), weights - still
    end = (Moment(residual, made + time_matrix(shape), time_matrix(shape), still=still),)
    return (
        Moment(down, one, one, after=saved.plus(residual)),
        Moment(between, one, 0),
        Moment(
            first,
            ffn - still,
            one if learns else 0,
            after=first.plus(Saved(0, -width - (not gated) * wide)),
        ),
        Moment(
            out.plus(Saved(0, cast)),
            made - read,
            weights - read - ffn,
            after=out,
            still=still,
        ),
        Moment(
            under.plus(inside.core).plus(Saved(0, cast)),
            made - read,
            0,
            inside.squares,
            still=still,
        ),
        Moment(under.plus(inside.product), made, read, still=still),
        *(end if timed else ()),
    )
