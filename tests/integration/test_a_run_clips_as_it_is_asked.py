"""`optim.clip` bounds what the rule is handed; the norm that is written down is the one before."""

from __future__ import annotations

import pytest

import stackwise as sw


def test_under_a_bound_far_below_eps_hardly_anything_moves(tiny, place) -> None:
    """AdamW moves by lr g / (|g| + eps): all of lr, or a thousandth of it for g of 1e-11."""
    exp = tiny.replace(
        curriculum="end_to_end", optim={"ema": None, "weight_decay": 0.0, "schedule": "constant"}
    )
    begun = sw.Rack(exp.rack, exp.attention, sw.vocab_size(exp), seed=exp.seed).state_dict()
    moved, first = [], []
    for clip in (None, 1e-9):
        run = sw.train(exp.replace(optim={"clip": clip}), place)
        ended = run.rack().state_dict()
        moved.append(max(float((ended[key] - begun[key]).abs().max()) for key in begun))
        first.append(run.metrics()["grad_norm"].iloc[0])
    assert moved[0] > exp.optim.lr
    assert 0 < moved[1] < 0.2 * 16 * exp.optim.lr and moved[1] < 0.2 * moved[0]
    assert first[0] == pytest.approx(first[1]) and first[0] > 1e-3
