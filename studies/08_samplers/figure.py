"""Study 8: samplers, quality against steps, on text of a Markov chain that is known exactly.

A sample's score is what the chain itself thinks of it, in nats per token; perfect samples have its
entropy, `expected`. Lower is no better: it is text that is too likely. So the entropy of the tokens
of all samples together stands beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas as pd
from common import Claim, between, compared, every, rows_of
from drawing import by_factors, panels_of, style, titled

import stackwise as sw
from stackwise.sampling.quality import count_entropy, markov_reference, quality
from stackwise_widgets import PaperFigure

METHODS = ("ancestral", "remask", "confidence", "margin", "entropy", "random")
EXACT = "first_hitting"  # takes as many steps as there are masks
STEPS = (4, 8, 16, 32, 64)
SAMPLES = 96
REAL = "held-out text"
TOLERANCE = {"nats": 0.05, "impossible_frac": 0.01, "entropy": 0.05, "pooled_entropy": 0.05}


def measure(studies: list[sw.Study]) -> pd.DataFrame:
    """The runs, and a row for each rack, sampler and number of steps."""
    (study,) = studies
    found = [row for _, seed, run in study.result().runs for row in scores_of(run, seed)]
    return pd.concat([rows_of(studies), pd.DataFrame(found)], ignore_index=True)


def scores_of(run: sw.Run, seed: int) -> Iterator[dict[str, Any]]:
    """What the chain thinks of samples, and of as much held-out text."""
    data, rack = run.experiment.data, run.rack()
    chain, length = markov_reference(data.corpus), data.seq_len
    text = sw.open_dataset(data.corpus, data.tokenizer, seq_len=length)
    asked = [(name, steps) for name in METHODS for steps in STEPS] + [(EXACT, None)]
    drawn = {
        (name, steps or length): sw.sample_ids(
            rack, [[]] * SAMPLES, length=length, method=name, steps=steps, seed=seed
        ).numpy()
        for name, steps in asked
    }
    drawn[REAL, length] = text.heldout_windows(range(SAMPLES))
    for (name, steps), ids_NT in drawn.items():
        found = quality(ids_NT, chain)
        yield {
            "kind": "measured",
            "arm": name,
            "seed": seed,
            "steps": steps,
            "nats": found.nats_per_token,
            "expected": chain.expected_nats_per_token(length),
            "impossible_frac": found.impossible_frac,
            "entropy": found.entropy,
            "pooled_entropy": count_entropy(ids_NT),
        }


table = compared


def scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over racks: a row for each sampler and number of steps."""
    rows = frame[frame["kind"] == "measured"]
    columns = ["nats", "expected", "entropy", "pooled_entropy", "impossible_frac"]
    return rows.groupby(["arm", "steps"], sort=False)[columns].mean().reset_index()


more = scores


def claims(frame: pd.DataFrame) -> list[Claim]:
    """What was predicted."""
    found = scores(frame)
    nats = found.pivot(index="steps", columns="arm", values="nats")
    pooled = found.pivot(index="steps", columns="arm", values="pooled_entropy")
    most, expected = max(STEPS), found["expected"].iloc[0]
    ancestral = nats["ancestral"][list(STEPS)]
    halves = ancestral.diff().dropna()
    return [
        Claim("ancestral sampling scores lower with each doubling of the steps",
              bool((halves < 0).all())),
        Claim("the last doubling gains less than a quarter of what the first does",
              between(halves.iloc[-1] / halves.iloc[0], -10, 0.25)),
        Claim("first_hitting scores within 0.05 nats of ancestral at as many steps as masks",
              between(nats[EXACT][most] - nats["ancestral"][most], -0.05, 0.05)),
        Claim("confidence at 16 steps scores lower than ancestral and has a lower entropy",
              every(bool(nats["confidence"][16] < nats["ancestral"][16]),
                    bool(pooled["confidence"][16] < pooled["ancestral"][16]))),
        Claim("random order scores within 0.1 nats of ancestral at 16 steps",
              between(nats["random"][16] - nats["ancestral"][16], -0.1, 0.1)),
        Claim("first_hitting ends within 0.3 nats of the chain's own entropy",
              between(nats[EXACT][most] - expected, -0.3, 0.3)),
    ]  # fmt: skip


def draw(frame: pd.DataFrame) -> PaperFigure:
    """Score and entropy against steps; dotted: held-out text."""
    figure, (panels,) = panels_of(2, 3.8)
    found = scores(frame)
    shown = (("nats", "a   score under the chain", "nats per token"),
             ("pooled_entropy", "b   variety: entropy of all tokens", "nats"))  # fmt: skip
    for axes, (column, title, label) in zip(panels, shown, strict=True):
        for place, name in enumerate((*METHODS, EXACT)):
            mine = found[found["arm"] == name]
            colour, marker = style(place)
            axes.plot(mine["steps"], mine[column], marker=marker, color=colour, label=name, ms=5)
        axes.axhline(found[found["arm"] == REAL][column].iloc[0], color="0.3", ls=":", lw=1)
        by_factors(axes, 2)
        titled(axes, title, "steps", label)
    panels[1].legend(frameon=False, fontsize=8.5, loc="center right")
    return figure


if __name__ == "__main__":
    from figures import main

    sys.exit(main([Path(__file__).parent.name[:2]]))
