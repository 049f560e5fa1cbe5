"""Writes docs/probes.md: `python docs/probes.py`. All its numbers come from the code.

`tests/unit/test_the_probes_page_is_current.py` makes the page again and compares.
"""

from __future__ import annotations

from pathlib import Path

import stackwise as sw
from stackwise.probing import (
    DRIFT_POSITIONS,
    DRIFT_WINDOWS,
    LITTLE,
    USUAL,
    bounded_probes,
    look_count,
)
from stackwise.runs.statistics import NUMBERS, OF_SITE, SITES
from stackwise.training.block_statistics import POSITIONS, SAMPLED

PAGE = """\
# Probes: what a run tells of itself, and what keeps growth in place

Written by `python docs/probes.py`; a test makes it again and compares.

## Statistics of blocks

Every look at held-out text also tells, of each block, how large its activations are, and what the
training step before the look did to it (`eval.statistics`, on by default). `run.statistics()` is a
frame with a row per look and block; the Run panel draws it under *Show the blocks*.

Activations are those of the look's own windows and of the averaged weights, at {positions:,} of its
positions at most, evenly spread, read while the look's forward pass goes by: no product is made for
them. There are three sites: `residual`, the stream as a block leaves it; `attention` and `ffn`,
what a sub-layer adds to it, with gain and gate. For a site, x is a number of P positions and D
features and s_j the mean square of feature j:

{sites}

Of a block beside these:

{others}

`grad_norm` is that of `run.metrics()`. Updates are measured on {sampled:,} numbers of each tensor
at most, evenly spread, of bfloat16 weights on the values that a master keeps. They work for racks
that are streamed, packed or compiled; of a trunk that is read from a cache there are no activations
with `eval.depths=last`, since nothing of it runs, and of what does not train no gradient.

## Drift over a stage

As a stage after the first begins, the path of the stage before reads {windows} held-out windows
under all noise; as it ends its own path reads them again (`eval.drift`, on by default).
`run.drift()` has for each exit that both have `1 - CKA` of {places} positions (linear CKA, arXiv
1905.00414), and for the prediction the mean of KL(before || after) in nats. They are the figures
that `stackwise.drift.representation_drift` gives between kept ends of stages on that text, and no
end has to be kept. What is compared with lies in `drift.safetensors` meanwhile.

## What probing may take

Looks and drift are counted apart (`probe_flops`, `probe_seconds` and `probe_frac` of the result,
the share of the seconds of training and probing) and are planned with the rest:
`sw.plan(exp).probes`. They take at most `eval.probe_frac` of the FLOPs of training. What is over it
is left out, in this order, until the rest fits:

1. evenly spread looks (`eval.points`), by halves, down to the looks at the ends of stages;
2. the losses at every depth (`eval.depths` becomes `last`), with as many looks as fit then;
3. drift.

Windows are never fewer, since losses on others could not be compared. The bound is on planned FLOPs
and not on seconds, so that an experiment is looked at in the same steps on every machine. The plan
says what is left out before anything runs, and the event `probes_bounded` in the run. Without a
`probe_frac` the bound is {usual}, and what takes less than {little} FLOPs is left alone. Two things
are counted with probes and not bounded: the loss before and after stacks are frozen to less, and
the score at the end of a run.

{presets}

What looks and statistics take in seconds and memory: `python benchmarks/probe_cost.py`.

## Terms that hold growth to the rack before

`preserve.consistency` and `preserve.distill` add terms to the loss of the stages in which they mean
something; `run.events("preserved")` has their values at each look, without the weights, and `loss`
is always the loss alone.

{terms}

Copies are in the plan's bytes (`before`) and FLOPs (`held`), and in the checkpoint until the stage
is done, so that a run goes on to the same weights. A stage of a curriculum of one's own may say
`preserve=` itself. `sw.stages(exp)` shows which stages have which; a term that has a meaning in
none is refused.
"""

SITE_SAID = {
    "rms": ("√(mean x²)", "as x"),
    "mean": ("mean x", "as x"),
    "max_abs": ("max \\|x\\|", "as x"),
    "kurtosis": (
        "mean s² / (mean s)², over features: 1 where all are as large, D where one has everything "
        "(arXiv 2405.19279)",
        "none",
    ),
}
OTHERS_SAID = {
    "dead_frac": (
        "part of the feed-forward's hidden units whose gate (`swiglu`) or input (`gelu`) is "
        "positive at no position",
        "none",
    ),
    "grad_norm": ("\\|g\\| before clipping, of all that trains in it", "nats per weight"),
    "grad_to_weight": ("\\|g\\| / \\|w\\|, w after the step", "nats per weight²"),
    "update_to_weight": ("\\|w' - w\\| / \\|w\\|, decay included", "none"),
}


TERMS = {
    "consistency": (
        "mean over positions (with `block_diffusion` noisy and clean ones) of "
        "\\|y - e\\|² / \\|e\\|²: y goes into the frozen suffix, e is the embedding's output as "
        "the stage before left it, which the suffix was trained on",
        "stages that grow a stack at the left of the path before: `right_to_left`",
        "a copy of the embedding where it trains",
    ),
    "distill": (
        "T² KL(before \\|\\| now) at the counted positions, with the weights of the loss, "
        "T = `preserve.temperature` (arXiv 1503.02531)",
        "stages that go on with all stacks of the stage before under the same noise, in blocks of "
        "the same size",
        "copies of what trains of the rack before; its forward pass and its head, less a trunk "
        "that both share",
    ),
}


def page() -> str:
    """The whole text."""
    return PAGE.format(
        positions=POSITIONS,
        sampled=SAMPLED,
        windows=DRIFT_WINDOWS,
        places=DRIFT_POSITIONS,
        usual=USUAL,
        little=f"{LITTLE:.0e}",
        sites=sites(),
        others=others(),
        presets=presets(),
        terms=terms(),
    )


def terms() -> str:
    """A row per term beside the loss."""
    rows = [f"| `preserve.{name}` | {' | '.join(said)} |" for name, said in TERMS.items()]
    head = [
        "| key | term | where it means something | what it takes |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *rows])


def sites() -> str:
    """A row per number of a site."""
    rows = [f"| `SITE_{name}` | {SITE_SAID[name][0]} | {SITE_SAID[name][1]} |" for name in OF_SITE]
    return "\n".join(["| column | formula | unit |", "| --- | --- | --- |", *rows])


def others() -> str:
    """A row per other number of a block."""
    of_sites = {f"{site}_{name}" for site in SITES for name in OF_SITE}
    rows = [
        f"| `{name}` | {OTHERS_SAID[name][0]} | {OTHERS_SAID[name][1]} |"
        for name in NUMBERS
        if name not in of_sites
    ]
    return "\n".join(["| column | formula | unit |", "| --- | --- | --- |", *rows])


def presets() -> str:
    """What probing takes of each preset, by plan."""
    rows = []
    for name in sw.presets():
        exp = sw.Experiment.preset(name)
        made = sw.stages(exp)
        found = bounded_probes(exp, made)
        looks = sum(look_count(exp, made, number) for number in range(len(made)))
        rows.append(f"| `{name}` | {len(made)} | {looks} | {100 * found.frac:.2g} % |")
    head = ["| preset | stages | looks | share of training's FLOPs |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows])


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), encoding="utf-8")
