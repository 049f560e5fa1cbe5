"""A head tied to the embedding would change the trunk under its cache: so the two part first.

The control leaves them tied: then a cached trunk and a computed one give other losses.
"""

from __future__ import annotations

import pytest

import stackwise as sw


@pytest.fixture
def exp(tiny) -> sw.Experiment:
    """The embedding trains in the first stage alone, the head in every stage."""
    return tiny.replace(curriculum="left_to_right", rack={"tied": True})


def losses(exp: sw.Experiment, place: sw.Placement, trunk: str) -> list[float]:
    return sw.train(exp, place.replace(trunk=trunk), rerun=True).metrics()["loss"].tolist()


def test_untied_the_losses_are_equal(exp, place) -> None:
    assert losses(exp, place, "cached") == losses(exp, place, "recompute")


def test_tied_they_would_not_be(exp, place, monkeypatch) -> None:
    """The table that the head goes on training is the embedding under the trunk."""
    from stackwise.training import borders

    free = borders.freeze_all_but

    def with_the_table(parts, stage):
        named = free(parts, stage)
        if stage.head and not stage.embedding:
            table = parts["embedding"].table
            named["embedding", "table"] = table.requires_grad_(True)
        return named

    monkeypatch.setattr(sw.Rack, "untie", lambda rack: False)
    monkeypatch.setattr(borders, "freeze_all_but", with_the_table)
    cached, computed = (losses(exp, place, trunk) for trunk in ("cached", "recompute"))
    first = next(n for n, pair in enumerate(zip(cached, computed, strict=True)) if len({*pair}) > 1)
    stages = sw.stages(exp)
    before = (stages[0].tokens or 0) // (exp.optim.batch * exp.data.seq_len)
    assert first == before + 1, "the first step on a table that has moved since it was cached"
