"""Writes docs/optimizers.md: `python docs/optimizers.py`. All its numbers come from the code.

`tests/unit/test_the_optimizers_page_is_current.py` makes the page again and compares.
"""

from __future__ import annotations

import math
from pathlib import Path

import stackwise as sw
from stackwise.memory.flops import step_flops_of
from stackwise.memory.stored import block_shapes, state_of
from stackwise.report import bytes_text, count_text
from stackwise.training import muon, paged
from stackwise.training.optim_costs import step_bytes
from stackwise.training.updates import OPTIMIZERS

PRESETS = ("toy", "gpt2-small", "8b")
WIDE = "8b"

PAGE = """\
# Optimizers

Written by `python docs/optimizers.py`; a test makes it again and compares.

`optim.name` says how weights move. What a block of width {width:,} (preset `{wide}`, {numbers}
numbers) takes while it trains in float32, beside its weights, gradients and average: the state,
what a step holds meanwhile on a CPU, and FLOPs of matrix products in a step.

{costs}

- `adamw` is torch's fused one, to the last bit (`tests/unit/test_adamw_is_torchs.py`).
- `adamw8bit`, `lion8bit` are bitsandbytes' kernels, called on slices
  (`tests/unit/test_8bit_updates_equal_bitsandbytes.py`).
- `paged_adamw8bit` is `adamw8bit` whose bytes lie in unified memory where a card computes, of
  tensors from {paged:,} numbers on: the driver keeps on the card what it has room for, and the
  rest in the host's memory. A plan counts them with the host (`paged`), and not in the card's
  peak. On a CPU there is nothing to page: it is `adamw8bit`, and a note of the run says so
  (`tests/unit/test_state_may_lie_in_unified_memory.py`). The memory is bitsandbytes' own, which
  gives none back; a piece that is free serves the next state of its size.
- `adafactor` keeps of a matrix the means of its squares by row and by column (arXiv 1804.04235),
  and no momentum; `beta1`, `beta2` and `eps` are refused with it. The paper's step is relative to
  the size of the weights. Here `optim.lr` is the rate as it stands, as in transformers' with
  `scale_parameter=False, relative_step=False`, which it equals to rounding
  (`tests/unit/test_adafactor_is_transformers.py`). Decay is decoupled, as with all of them.
- `muon` moves the matrices of stacks along their momentum ({momentum}, Nesterov's), made
  orthogonal by five Newton-Schulz iterations in bfloat16, as torch.optim.Muon to the last bit
  (`tests/unit/test_muon_is_torchs.py`). Embedding, head, norms and biases move by `adamw`, with
  `beta1`, `beta2` and `eps`. One `optim.lr` serves both: a matrix's step is scaled by 0.2
  √max(rows, columns), which makes it as large as AdamW's (arXiv 2502.16982, eq. 4; torch's
  `match_rms_adamw`). Queries, keys and values that are one matrix of the rack are made orthogonal
  together, as torch.optim.Muon does with a matrix that it is handed; Jordan suggests to part
  them.

Every one of them takes float32 and bfloat16 weights, with a master or stochastic rounding, whole
gradients or steps in backward, and goes on to the same bits after a stop
(`tests/integration/test_every_kind_of_run_goes_on_to_the_same_weights.py`) and after a growth
with `optimizer_state: keep` (`tests/unit/test_optimizers_go_on_where_they_were.py`). A frozen
tensor moves under none, nor decays (`tests/unit/test_frozen_tensors_never_move.py`). `muon` and
`adafactor` see a matrix whole before its rows move.

## What muon's products cost

They are as many however few tokens a batch has, and the ledger counts them, per token of a batch:
so arms at equal FLOPs pay for them (`tests/unit/test_newton_schulz_is_in_the_ledger.py`). Their
share of all FLOPs of training end to end, by preset:

{shares}

## Learning rates

Over its span a schedule rises linearly over `warmup_frac`. Then `constant` stays, `linear` and
`cosine` fall to zero, and `wsd` stays and falls linearly to zero over the last `decay_frac`. At a
growth `curriculum.lr` says whether a stage has a schedule of its own (`per_stage`), goes on in
one over all stages (`continue`), or goes on in it after rising from zero again (`rewarm`)
(`tests/unit/test_learning_rates_decay_to_zero.py`).

`stackwise lr-find EXPERIMENT` tries rates in each stage (Smith, arXiv 1506.01186): from 1e-6 to 1
in a hundred steps on the stage's own batches, with what trains and what is frozen there. It says
before and after what that costs. Each loss is compared with that of the same batch under the same
masks before the ramp, since batches differ by more than a step changes. Suggested is a tenth of
the rate at which the loss is lowest: a place to begin a grid, no tuned rate. A stage begins where
a run's would: at the end of the stage before as `--run` has kept it, or after `--lead-steps` of
each stage before at `optim.lr`. Nothing is written
(`tests/integration/test_a_range_test_finds_a_rate.py`).
"""


def page() -> str:
    """The whole text."""
    exp = sw.Experiment.preset(WIDE)
    block = sum(math.prod(shape) for shape in block_shapes(exp.rack, exp.attention))
    return PAGE.format(
        width=exp.rack.d_model,
        wide=WIDE,
        numbers=count_text(block),
        costs=costs(),
        paged=paged.LEAST_PAGED,
        momentum=muon.MOMENTUM,
        shares=shares(),
    )


def costs() -> str:
    """One row per optimizer of the registry."""
    rows = []
    for name in OPTIMIZERS:
        exp = training(WIDE, name)
        (stage,) = sw.stages(exp)
        each, shapes = exp.rack.blocks_per_stack, block_shapes(exp.rack, exp.attention)
        state, numbers = state_of(exp, "s0") / each, sum(map(math.prod, shapes))
        held = step_bytes(exp.optim, exp.precision, whole={(shape, True) for shape in shapes})
        rows.append(
            [
                f"`{name}`",
                bytes_text(state),
                f"{state / numbers:.3g}",
                bytes_text(held),
                count_text(step_flops_of(exp, stage) / len(stage.path) / each),
            ]
        )
    return table(["optimizer", "state", "bytes per number", "a step's own", "FLOPs"], rows)


def shares() -> str:
    """Muon's share of all FLOPs, one row per preset."""
    rows = []
    for name in PRESETS:
        exp = training(name, "muon")
        (stage,) = sw.stages(exp)
        cost = sw.stage_flops_per_token(exp, stage)
        tokens = exp.optim.batch * exp.data.seq_len
        share = f"{100 * cost.optimizer / cost.total:.1f} %"
        rows.append([f"`{name}`", str(exp.rack.d_model), f"{tokens:,}", share])
    return table(["preset", "width", "tokens of a batch", "share"], rows)


def training(preset: str, name: str) -> sw.Experiment:
    """A preset end to end in float32, under an optimizer."""
    exp = sw.Experiment.preset(preset)
    return exp.replace(
        curriculum="end_to_end",
        precision=sw.Experiment().precision.model_dump(),
        optim={"name": name, "grads": "whole"},
        masking={"bands": None},
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), encoding="utf-8")
