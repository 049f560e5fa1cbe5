"""All looks of a run read the same windows under the same noise, so that the best is the best."""

from __future__ import annotations

import numpy as np
import pytest

import stackwise as sw
from stackwise.training import watch


@pytest.fixture
def masked(monkeypatch) -> list[float]:
    """Masked fractions of the looks."""
    seen = []
    real = watch.exit_losses

    def noted(rack, noisy, **choices):
        seen.append(float(noisy.mask_frac_B.mean()))
        return real(rack, noisy, **choices)

    monkeypatch.setattr(watch, "exit_losses", noted)
    return seen


def test_a_ramp_does_not_make_one_look_easier_than_another(tiny, place, masked) -> None:
    ramp = {"name": "ramp", "start": 0.75, "end": 0.25}
    exp = tiny.replace(objective="mlm", masking={"schedule": ramp}, optim={"lr": 1e-9})
    run = sw.train(exp, place)
    assert masked == [0.25] * 5, "four looks and the depths at the end, at the ramp's end"
    # A rack that does not move is as good at every look; 1e-9 moves float32 weights by nothing.
    np.testing.assert_allclose(run.evals()["loss"], run.evals()["loss"][0], rtol=1e-6)


def test_looking_reads_the_windows_it_looks_at_and_no_others(tiny, place, monkeypatch) -> None:
    from stackwise.data.dataset import Dataset

    whole = []
    real = Dataset.heldout_windows

    def counted(self, numbers=None):
        windows_NT = real(self, numbers)
        whole.append(len(windows_NT))
        return windows_NT

    monkeypatch.setattr(Dataset, "heldout_windows", counted)
    sw.train(tiny, place)
    assert sorted(whole)[:-1] == [8] * 5, "eval.windows at each look; all of them once, at the end"
    assert max(whole) > 8
