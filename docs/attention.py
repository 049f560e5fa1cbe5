"""Writes docs/attention.md: `python docs/attention.py`. All its numbers come from the code.

`tests/unit/test_the_attention_page_is_current.py` makes the page again and compares.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F

from stackwise.choice import parse
from stackwise.model.attention import ATTENTION, kind_of
from stackwise.model.attention.kernel import Kernel, directions, feature_map
from stackwise.model.attention.sums import attend
from stackwise.model.attention.window import Window
from stackwise.model.block import block_cache_floats, block_cache_tokens
from stackwise.model.shape import AttentionShape, RackShape, attention_shape

WIDTH, HEADS, GROUPS, TOKENS = 1024, 16, 4, 2048
HEAD, FEATURES, LENGTH, DRAWS = 32, 128, 128, 10
STDS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0)

PAGE = """\
# Attention kinds

Written by `python docs/attention.py`; a test makes it again and compares.

What the attention of one block costs, at width {width:,} with {heads} heads of {head} ({groups} key
heads for `gqa`), float32, reading {tokens:,} tokens in both directions. FLOPs are those of the
forward pass: products with weights, and others. The cache is what one token adds to a KV cache, the
state what a decoder keeps however long the text is; last, both after {tokens:,} tokens.

{costs}

Every kind reads in both directions, as each call asks, and goes on from a cache: `sw.decode(rack,
ids, cache)` gives what the full causal pass gives, to rounding, and `autoregressive` sampling uses
it. `mla` decodes in its absorbed form, from the latent and the shared key as they are cached.
`mqa` is `gqa` with one group. `kernel` and `linear` keep sums over keys, in float32; `linear` is
the attention of features elu(x) + 1, exact for what it is, and no approximation of softmax.

`window` compares each token with those near it: `attention.window` to each side, here {window}. The
text is cut into chunks, so that cost and cache end where the window does. `rack.window` is another
thing, a mask over all pairs for `mha`, `gqa`, `mqa` and `mla`, which imported models have and which
may differ from block to block: it bounds the cache, and no FLOPs. Both together are refused.
How time and FLOPs of each kind grow with the length: `python benchmarks/attention_length.py`.

`kernel` compares queries and keys through {features} random features, so that its cost per token
does not grow with the length of the text, and its cache not at all. What that takes in accuracy
depends on how large queries and keys are. Relative errors of FAVOR+ (`map=softmax_positive`)
against exact softmax attention, over {length} tokens of normal queries and keys with the standard
deviation `std`, {head_dim} numbers per head and {features} features; mean of {draws} draws:

{errors}

The second row is the error of exp(q·k / √d) over all pairs. It has a heavy tail: from 0.5 on a few
pairs decide it. That is why `attention.gain`, the standard deviation that queries and keys are
normalised to, is 0.5 by default and should not be raised: at 0.75 the output is further from exact
attention than zero would be. Lower is more exact, and a flatter attention.
"""


def page() -> str:
    """The whole text."""
    return PAGE.format(
        width=WIDTH,
        heads=HEADS,
        head=WIDTH // HEADS,
        tokens=TOKENS,
        groups=GROUPS,
        costs=costs(),
        window=Window().window,
        features=FEATURES,
        length=LENGTH,
        head_dim=HEAD,
        draws=DRAWS,
        errors=errors(),
    )


def costs() -> str:
    """One row per kind of the registry."""
    head = ["kind", "parameters", "FLOPs per token, weights", "others", "cache, bytes per token"]
    head += ["state, bytes", f"all after {TOKENS:,} tokens"]
    rows = []
    for name in ATTENTION:
        params, shape = parse(ATTENTION, name, "attention", "kind"), shape_of(name)
        kind = kind_of(params)
        numbers = (
            kind.parameters(shape, params),
            2 * kind.matmul_parameters(shape, params),
            round(kind.score_flops(shape, params, TOKENS, False).forward),
            4 * kind.cache_floats(shape, params),
            4 * kind.state_floats(shape, params),
            4
            * block_cache_floats(rack_of(name), params)
            * block_cache_tokens(rack_of(name), params, 0, TOKENS)
            + 4 * kind.state_floats(shape, params),
        )
        rows.append([f"`{name}`", *(f"{number:,}" for number in numbers)])
    return table(head, rows)


def shape_of(name: str) -> AttentionShape:
    """The shape of the page's first table."""
    return attention_shape(rack_of(name), 0)


def rack_of(name: str) -> RackShape:
    """A rack of this width, with groups for `gqa`."""
    groups = GROUPS if name == "gqa" else None
    return RackShape(d_model=WIDTH, heads=HEADS, kv_heads=groups)


def errors() -> str:
    """One column per standard deviation."""
    measured = [error(std) for std in STDS]
    rows = [
        ["output", *(f"{output:.2g}" for output, _ in measured)],
        ["kernel", *(f"{kernel:.2g}" for _, kernel in measured)],
    ]
    return table(["relative error at std", *(f"{std:g}" for std in STDS)], rows)


def error(std: float) -> tuple[float, float]:
    """Relative error of attention's output, and of the kernel over all pairs."""
    outputs, kernels = [], []
    for seed in range(DRAWS):
        generator = torch.Generator().manual_seed(seed)
        q, k, v = torch.randn(3, 1, 1, LENGTH, HEAD, generator=generator).double()
        q, k = q * std, k * std
        omega = directions(Kernel(features=FEATURES, feature_seed=seed), HEAD).double()
        made_q, made_k = (feature_map(x, omega, "softmax_positive") for x in (q, k))
        outputs.append(relative(attend(made_q, made_k, v), F.scaled_dot_product_attention(q, k, v)))
        kernels.append(relative(made_q @ made_k.mT, (q @ k.mT / math.sqrt(HEAD)).exp()))
    return sum(outputs) / DRAWS, sum(kernels) / DRAWS


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The norm of the difference over that of what is exact."""
    return float((found - exact).norm() / exact.norm())


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), "utf-8")
