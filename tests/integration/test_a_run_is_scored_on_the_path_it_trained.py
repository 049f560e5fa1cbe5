"""What a run reports of a finished rack is what its last stage trained, whatever the order."""

from __future__ import annotations

import numpy as np
import pytest

import stackwise as sw
from stackwise.evaluation import evaluate
from stackwise.training.start import dataset_of


def crossing(exp):
    yield sw.Stage(path=("s0", "s1", "s3"))
    yield sw.Stage(path=("s3", "s0"))


@pytest.fixture
def run(tiny, place, monkeypatch) -> sw.Run:
    monkeypatch.setitem(sw.CURRICULA, "crossing", crossing)
    exp = tiny.replace(
        curriculum="crossing", objective="clm", eval={"windows": 10_000, "final": None}
    )
    return sw.train(exp, place)


def test_the_result_is_the_last_look(run, place) -> None:
    # Both read all held-out windows, with the same weights, left to right: the likelihood is exact.
    # Sums of some thousand float32 terms in another order: 2^-24 each, far below 1e-5.
    last = run.evals()["loss"].iloc[-1]
    np.testing.assert_allclose(run.result()["nats_per_token"], last, rtol=1e-5)
    # It did not grow to the left alone, so depths are exits: at the last, the whole path.
    assert run.result()["depth_losses"][-1] == pytest.approx(last, rel=1e-5)


def test_opened_again_it_scores_and_writes_the_same(run, place) -> None:
    rack, data = run.rack(), dataset_of(run.experiment, place.data_dir)
    assert rack.path_for(1.0) == ("s3", "s0")
    again = evaluate(
        rack, data.heldout_windows(), data.heldout_bytes(), objective=run.experiment.objective
    )
    assert again.bits_per_byte == run.result()["bits_per_byte"]
    text = sw.sample(rack, "a", tokenizer=run.tokenizer(), length=4, method="autoregressive")
    assert len(text) >= 1
