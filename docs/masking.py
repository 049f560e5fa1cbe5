"""Writes docs/masking.md: `python docs/masking.py`. All its numbers come from the code.

`tests/unit/test_the_masking_page_is_current.py` makes the page again and compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np

import stackwise as sw
from stackwise.bell import USUAL, density
from stackwise.choice import params_of
from stackwise.data.batches import Batch
from stackwise.masking import MATRIX, Sampling, band_edges, mean_mask_frac
from stackwise.objective import Diffusion, corrupt
from stackwise.report import bytes_text
from stackwise.schedules import SCHEDULES, names_of

B, L, BATCHES, STACKS = 32, 128, 200, 4
CURRICULUM = """\
curriculum: left_to_right
rack: {stacks: 3}
data:
  corpus: {kind: mix, corpora: [markov, pcfg], weights: [3, 1]}
  seq_len: 128
  seq_len_by_stage: [32, 64, 128]
  weights_by_stage: [[1, 0], [3, 1], [1, 1]]
budget: {tokens: 1000000}
"""

PAGE = """\
# Masking, and curricula over the data

Written by `python docs/masking.py`; a test makes it again and compares.

## What goes with what

All else is refused before anything runs, with the reason. `sampling` says how diffusion times are
drawn over a batch; the bold entry is the default. Bands tie noise to depth.

{matrix}

Over training progress, `ramp` goes in a straight line from `start` to `end`, up or down. Over
diffusion time, the schedules with the mean part of a sample that each hides:

{schedules}

Over depth, `masking.bands` gives every stack a band of masked fractions, the heaviest to the
leftmost. Inner edges for {stacks} stacks:

{edges}

`equal_mass` gives every band as much diffusion time, `linear` as much of alpha: the latter is how
DiffusionBlocks cuts masked diffusion (arXiv 2506.14202, appendix D.2).

## How times are drawn

The bound does not depend on it; its noise does. Mean and standard deviation, over {batches} batches
of {B} samples of {L} tokens, of a loss that rises from .4 to 1 nat per masked token with the masked
part (the mean is .7, whatever is drawn):

{noise}

- `antithetic`: (u + i/B) mod 1, with i the sample's place in the order of its epoch.
- `stratified_k`: the number of masked tokens itself, spread evenly; weight L/k.
- `iid`: a number for each sample.
- `bell`: the antithetic numbers through the inverse of a normal distribution cut off at both ends
  (`masking.bell_center`, `masking.bell_width`), each time with the weight 1/q. It dwells on middle
  noise, where q is up to {top:.2f}, and keeps the bound. With most schedules that costs variance:
  the lightest noise is drawn {low:.2f} times as often as by the others, and counts {heavy:.1f}
  times. Clipped schedules (BD3-LM, arXiv 2503.09573, section 5.2) draw from an inner interval alone
  and leave out what lies outside, which is another loss.
  Inside a band the bell is over the band's own times.

A mask belongs to seed, sample, epoch and band: order, micro-batch, workers and resuming change
nothing (`tests/unit/test_masks_belong_to_samples.py`). What drawing takes of a step is printed by
`python benchmarks/input_cost.py`, which fails over 3 %.

## What is read, stage by stage

```yaml
{curriculum}```

{stages}

- **Length.** Samples of `data.seq_len` tokens are cut: a stage of half the length reads the first
  halves of a batch in one step and the second halves in the next. So the text comes in the same
  order whatever the lengths; what is left over at a sample's end is not read. Held-out text keeps
  `data.seq_len`, in looks during a stage and at the end, so that all losses can be compared.
- **Mixtures.** Of the first n samples, each corpus has given its share, to within one sample for
  two corpora; nothing is drawn. Each has its own seeded order and epochs, and the last part of each
  is held out. `weights` empty means by length. A weight of 0 in a stage leaves a corpus out, so
  `[[1, 0], [0, 1]]` is one corpus after the other.
- The lists have one entry for each stage. `end_to_end` is divided into as many stages as they have
  entries, with one learning-rate schedule and the optimizer's moments going through: it is the
  control of the same data curriculum.
- A curriculum of one's own sets `seq_len` and `weights` of a `Stage`, and then no list is read for
  it. Budget, FLOPs, memory and time follow a stage's own length.
"""


def page() -> str:
    """The whole text."""
    ends, middle = density(np.array([0.0, 0.5]), USUAL)
    return PAGE.format(
        matrix=matrix(),
        schedules=schedules(),
        stacks=STACKS,
        edges=edges(),
        batches=BATCHES,
        B=B,
        L=L,
        noise=noise(),
        top=middle,
        low=ends,
        heavy=1 / ends,
        curriculum=CURRICULUM,
        stages=stages(),
    )


def rows(head: list[str], body: list[list[str]]) -> str:
    """A table of Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body])


def matrix() -> str:
    """What is allowed."""
    body = []
    for row in MATRIX:
        kinds = {"time": names_of("time"), "progress": names_of("progress")}
        names = kinds.get(row.schedule, [row.schedule])
        sampling = [f"**{name}**" if name == "antithetic" else name for name in row.sampling]
        drawn = ", ".join(sampling) if "diffusion" in row.objective else "none"
        bands = "with or without" if len(row.bands) > 1 else "without"
        body.append([f"`{row.objective}`", ", ".join(names), bands, drawn])
    return rows(["objective", "schedules", "bands", "sampling"], body)


def built(name: str) -> sw.Params:
    """A schedule with its usual parameters."""
    return params_of(SCHEDULES, name, "schedule", "name")()


def schedules() -> str:
    """Schedules over time, with what they say of themselves."""
    body = []
    for name in names_of("time"):
        told = (type(built(name)).__doc__ or "").splitlines()[0]
        body.append([f"`{name}`", told, f"{mean_mask_frac(built(name)):.3f}"])
    return rows(["schedule", "", "hidden"], body)


def edges() -> str:
    """Inner edges of bands."""
    body = []
    for rule in ("equal_mass", "linear", "exponential"):
        for name in names_of("time") if rule == "equal_mass" else ["linear"]:
            inner = band_edges(rule, STACKS, built(name))[1:-1]
            shown = name if rule == "equal_mass" else "any"
            body.append([f"`{rule}`", shown, *(f"{edge:.3f}" for edge in inner)])
    return rows(["bands", "schedule", *(f"e{i}" for i in range(1, STACKS))], body)


def deviation(sampling: Sampling, name: str) -> tuple[float, float]:
    """Mean and deviation over batches of the loss that is described in the page."""
    ids_BT, places_B = np.zeros((B * BATCHES, L), dtype=np.int64), np.arange(B * BATCHES)
    rule = sw.Corruption(Diffusion(), 2, B, 0, built(name), sampling)
    noisy = corrupt(rule, Batch(ids_BT, places_B, 0 * places_B, places_B))
    part_B = noisy.mask_frac_B.double()
    loss_B = noisy.weight_B.double() * part_B * (0.4 + 0.6 * part_B)
    means = loss_B.view(BATCHES, B).mean(1)
    return float(means.mean()), float(means.std())


def noise() -> str:
    """Mean and deviation for every sampling and schedule."""
    names, body = names_of("time"), []
    for sampling in get_args(Sampling):
        takes = [n for n in names if sampling != "stratified_k" or n == "linear"]
        found = {name: deviation(sampling, name) for name in takes}
        cells = [f"{found[n][0]:.2f} ± {found[n][1]:.4f}" if n in found else "" for n in names]
        body.append([f"`{sampling}`", *cells])
    return rows(["", *(f"`{name}`" for name in names)], body)


def stages() -> str:
    """The stages of the example, with what they cost."""
    exp = sw.Experiment.from_yaml(CURRICULUM)
    plan = sw.plan(exp)
    body = [
        [
            stage.name,
            str(stage.seq_len),
            ", ".join(f"{weight:g}" for weight in stage.weights or ()),
            str(row["steps"]),
            f"{stage.tokens:,}",
            f"{row['flops_per_token']['total']:,.0f}",
            bytes_text(row["bytes"]["activations"]),
        ]
        for stage, row in zip(sw.stages(exp), plan.rows, strict=True)
    ]
    head = ["stage", "seq_len", "weights", "steps", "tokens", "FLOPs per token", "activations"]
    return rows(head, body)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), "utf-8")
