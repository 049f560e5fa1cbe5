"""The rules that tie the sections of an experiment together.

Each problem is one line: the key, its value, the rule, the way out. Ranges of single keys stand
with their fields in `config.py` and `model/shape.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stackwise.masking import check_masking
from stackwise.model.attention import check_attention

if TYPE_CHECKING:
    from stackwise.config import Experiment


def problems_of(exp: Experiment) -> list[str]:
    """Everything that is wrong between sections that are each right by themselves."""
    return [
        *check_attention(exp.rack, exp.attention),
        *check_masking(exp.objective, exp.masking, exp.rack.stacks),
        *_bands(exp),
        *_vocabulary(exp),
        *_lengths(exp),
        *_schedule(exp),
    ]


def _bands(exp: Experiment) -> Iterator[str]:
    if exp.masking.bands is not None and exp.curriculum.choice in ("end_to_end", "grow"):
        yield (
            f"masking.bands: {exp.masking.bands} has no meaning with "
            f"curriculum={exp.curriculum.choice}, which trains all stacks together; "
            "use left_to_right or right_to_left, or leave bands empty"
        )


def _vocabulary(exp: Experiment) -> Iterator[str]:
    tokenizer = exp.data.tokenizer
    size = 256 if tokenizer.choice == "bytes" else getattr(tokenizer, "entries", None)
    if exp.rack.vocab is not None and size is not None and exp.rack.vocab < size:
        yield (
            f"rack.vocab: {exp.rack.vocab} < {size} entries of data.tokenizer="
            f"{tokenizer.choice}; raise it or leave it empty"
        )


def _lengths(exp: Experiment) -> Iterator[str]:
    rows = exp.rack.max_positions
    if exp.rack.positions == "learned" and rows is not None and exp.data.seq_len > rows:
        yield (
            f"data.seq_len: {exp.data.seq_len} > rack.max_positions={rows}; "
            "shorten the samples or add positions"
        )


def _schedule(exp: Experiment) -> Iterator[str]:
    optim = exp.optim
    if optim.schedule == "wsd" and optim.warmup_frac + optim.decay_frac > 1:
        yield (
            f"optim.warmup_frac: {optim.warmup_frac} + decay_frac={optim.decay_frac} is over 1; "
            "lower one of them"
        )
