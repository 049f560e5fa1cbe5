"""Racks from the trainer itself, on text of known entropy: near it, never below, unless it leaks.

`tests/unit/test_no_model_beats_the_entropy.py` does the same by a few plain lines.
"""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.model.rack import Embedding

# Letters that depend on the one before, of which a narrow rack learns almost all at once; and
# sentences whose phrases close with the word that they opened with, of which it learns some.
CORPORA = {
    "markov": {"kind": "markov", "order": 1, "symbols": 4, "sharpness": 3, "size_bytes": 200_000},
    "pcfg": {"kind": "pcfg", "categories": 2, "rules": 8, "size_bytes": 200_000},
}
# How far above the entropy, in bits per byte, 150 steps leave each; a unigram model is 0.8 above
# that of the chain and 3.3 above that of the grammar.
EXCESS = {("markov", "clm"): 0.15, ("markov", "diffusion"): 0.3}
EXCESS |= {("pcfg", "clm"): 0.8, ("pcfg", "diffusion"): 2.2}


def small(corpus: str, objective: str) -> sw.Experiment:
    return sw.Experiment(
        title="entropy",
        objective=objective,
        rack={"stacks": 1, "blocks_per_stack": 2, "d_model": 32, "heads": 2, "init_std": 0.05},
        data={"corpus": CORPORA[corpus], "seq_len": 32, "heldout_frac": 0.1},
        optim={"batch": 32, "lr": 0.01},
        budget={"tokens": 150 * 32 * 32},
        eval={"points": 1, "windows": 16, "draws": 1 if objective == "clm" else 2},
    )


def bits_and_entropy(exp: sw.Experiment, place: sw.Placement) -> tuple[float, float]:
    result = sw.train(exp, place).result()
    return result["bits_per_byte"], result["entropy_bits_per_byte"]


@pytest.mark.parametrize("objective", ["clm", "diffusion"])
@pytest.mark.parametrize("corpus", CORPORA)
def test_bits_come_near_the_entropy_and_not_below(corpus, objective, place) -> None:
    """A held-out text of 20,000 bytes has a few hundredths of a bit more or less than the source.

    Each window begins without context, which costs some of the excess.
    """
    bits, entropy = bits_and_entropy(small(corpus, objective), place)
    assert entropy - 0.02 < bits < entropy + EXCESS[corpus, objective]


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_leak_shows_as_bits_below_the_entropy(corpus, place, monkeypatch) -> None:
    """The failing control: every position reads the token it should tell, shifted one too few."""
    honest = Embedding.forward
    monkeypatch.setattr(
        Embedding,
        "forward",
        lambda self, ids_BT, start=0: honest(self, ids_BT.roll(-1, dims=1), start),
    )
    bits, entropy = bits_and_entropy(small(corpus, "clm"), place)
    assert bits < entropy / 2
