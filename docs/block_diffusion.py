"""Writes docs/block_diffusion.md: `python docs/block_diffusion.py`. Its numbers come from the code.

`tests/unit/test_the_block_diffusion_page_is_current.py` makes the page again and compares.
"""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import torch

import stackwise as sw
from stackwise.block_diffusion import BlockDiffusion, read_as, rows_read
from stackwise.data.batches import Batch
from stackwise.memory.flops import counted_frac, scores_per_row, stage_flops_per_token
from stackwise.memory.parts import mask_bytes
from stackwise.model.attention import ATTENTION
from stackwise.objective import corrupt, loss_at
from stackwise.report import bytes_text

T, VOCAB, SAMPLES = 128, 256, 2048
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
LONG = 2048
WARM_UP = """\
objective: {kind: block_diffusion, block_by_stage: [1, 4, 16, 128]}
curriculum: end_to_end
data: {corpus: markov, seq_len: 128}
budget: {tokens: 1000000}
"""

PAGE = """\
# Block diffusion

Written by `python docs/block_diffusion.py`; a test makes it again and compares.

`objective=block_diffusion` (BD3-LM, arXiv 2503.09573) writes text in blocks of `objective.block`
tokens from left to right, with masked diffusion inside each. The chain rule goes over blocks, the
bound of masked diffusion holds in each, given the clean blocks before it:

    -log p(x) <= sum over blocks b of E_t [ w(t) * cross-entropy at the masked tokens of block b ]

Both ends are exact. **Blocks of one token** are masked always, with weight 1: the likelihood from
left to right, as of `clm`, by a rack that reads [MASK] in the place that it predicts and not the
token before. It is scored exactly (`estimate: exact`, no masks drawn). **One block** as long as the
sample, or longer, is `objective=diffusion` to the last bit: same draws, same rows, same loss.
Between them is a bound, tighter or not as the rack has learned; with exact conditionals every size
gives the entropy (`tests/unit/test_block_diffusion_has_both_ends.py`).

If blocks do not divide a sample its last one is shorter. Each block of each sample has a time of
its own, spread evenly over all of them (`masking.sampling`); schedules over time go with it, bands
and `rack.time`, which are of a whole sample, do not.

## What it costs

One pass gives the loss of all blocks. It reads the noisy tokens and, after them, the clean ones but
for the last block, which no one sees: R rows for T tokens, at their own positions either time. A
noisy token sees its block, and clean the blocks before it; a clean one the clean blocks up to its
own. A sample of {T} tokens, and the toy preset end to end beside `diffusion`:

{costs}

`counted` is the part of the positions at which the head is computed; `constant` is the loss of a
predictor that holds all {V} entries alike, over log {V}, on {samples} samples: 1 to the error of
drawing, for every size. Scores are counted dense over R rows, as the one call makes them, also
where the mask hides more than half of them. So their share grows faster: at {long} tokens they are
{share} of the FLOPs of the rack's layers forward in blocks of 4, and {whole} in one block. The mask
is made once for all layers: {mask} at {long} tokens in float32.

Memory that grows with tokens grows with rows; plan and ledger have it so, and a trunk's cache too.
[Adapters](adapters.md) go with it, whose products are made for every row, and so do the terms that
[hold a stage](probes.md) to the rack before it: consistency over all rows, distillation where the
loss is. Predictions of a stage with blocks of another size are no target for it.

Attention kinds that can read so: {kinds}. The others are refused: they keep
sums over earlier tokens, or go by the places of rows. `rack.window` goes with it, by position.

## A warm-up in block size

`objective.block_by_stage` gives each stage its size, as `seq_len_by_stage` its length; a curriculum
of one's own says `Stage(block=...)`. `end_to_end` is divided into as many stages, under one
learning-rate schedule, with the optimizer's moments going through. This turns a rack that reads
from left to right into one that denoises:

```yaml
{warm_up}```

{stages}

Looks at held-out text have the stage's blocks, so that curves jump where the size does; the end is
scored with the last. `start=` a finished `clm` run goes on from its weights.

## Text

`semi_autoregressive` writes block after block with the rack's own size, each by an inner sampler
(`ancestral` where nothing is said). Blocks that are done are read clean and once, into the KV
cache; the current one is read at each step; later ones never, also where some of their tokens are
given. With `rack.window` nothing is kept, and all is read again. Samplers that fill a text as a
whole are refused where it is longer than a block.
"""


def page() -> str:
    """The whole text."""
    share, whole = (f"{score_share(size):.0%}" for size in (4, LONG))
    return PAGE.format(
        T=T,
        V=VOCAB,
        samples=f"{SAMPLES:,}",
        costs=costs(),
        long=f"{LONG:,}",
        share=share,
        whole=whole,
        mask=bytes_text(mask_bytes(experiment(4, LONG))),
        kinds=", ".join(f"`{name}`" for name, kind in ATTENTION.items() if kind.blocks),
        warm_up=WARM_UP,
        stages=stages(),
    )


def rows(head: list[str], body: list[list[str]]) -> str:
    """A table of Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body])


def experiment(size: int, tokens: int = T) -> sw.Experiment:
    """The toy preset, end to end, in blocks of `size` tokens."""
    return sw.Experiment.preset("toy").replace(
        objective=BlockDiffusion(block=size), curriculum="end_to_end", data={"seq_len": tokens}
    )


def constant(size: int) -> float:
    """What a predictor pays that holds all entries alike, over log V."""
    ids_BT, places_B = np.zeros((SAMPLES, T), dtype=np.int64), np.arange(SAMPLES)
    rule = sw.Corruption(BlockDiffusion(block=size), VOCAB, 32, 0)
    noisy = corrupt(rule, Batch(ids_BT, places_B, 0 * places_B, places_B))
    logits_NV = torch.zeros(1, VOCAB).expand(len(noisy.target_N), VOCAB)
    return float(loss_at(logits_NV, noisy.target_N, noisy.weight_N, noisy.positions)) / log(VOCAB)


def costs() -> str:
    """Rows, FLOPs, counted positions and the constant's loss, by size."""
    body = []
    plain = experiment(T).replace(objective="diffusion")
    (stage,) = sw.stages(plain)
    base = stage_flops_per_token(plain, stage).total
    for size in SIZES:
        exp = experiment(size)
        read = rows_read(exp.objective, T)
        body.append(
            [
                str(size),
                str(read),
                f"{read / T:.2f}",
                f"{stage_flops_per_token(exp, stage).total / base:.2f}",
                f"{counted_frac(exp, stage):.2f}",
                f"{constant(size):.3f}",
            ]
        )
    return rows(
        ["block", "rows", "rows per token", "FLOPs to those of diffusion", "counted", "constant"],
        body,
    )


def score_share(size: int) -> float:
    """The part of a block's FLOPs, forward, that are scores, at the long length."""
    exp = experiment(size, LONG)
    blocks = read_as(exp.objective, LONG)
    scores = scores_per_row(exp, 0).forward * (LONG if blocks is None else blocks.rows) / LONG
    frozen = sw.Stage(path=("s0",), active=(), embedding=False)
    each = stage_flops_per_token(exp, frozen).trunk / exp.rack.blocks_per_stack
    return scores / each


def stages() -> str:
    """The stages of the example, with what they cost."""
    exp = sw.Experiment.from_yaml(WARM_UP)
    body = [
        [
            stage.name,
            str(stage.block),
            f"{stage.tokens:,}",
            f"{row['flops_per_token']['total']:,.0f}",
            bytes_text(row["bytes"]["activations"]),
        ]
        for stage, row in zip(sw.stages(exp), sw.plan(exp).rows, strict=True)
    ]
    return rows(["stage", "block", "tokens", "FLOPs per token", "activations"], body)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), "utf-8")
