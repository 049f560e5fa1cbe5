"""placement.deterministic: torch is told, then told otherwise; a step that has none says so."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.training.same_bits import CUBLAS
from stackwise.training.start import TrainingError


def told() -> tuple[bool, bool]:
    filled = torch.utils.deterministic.fill_uninitialized_memory
    return torch.are_deterministic_algorithms_enabled(), filled


@pytest.mark.parametrize("asked", [True, False])
def test_it_holds_while_the_run_trains(tiny, place, monkeypatch, asked) -> None:
    monkeypatch.delenv(CUBLAS, raising=False)
    before, seen = told(), set()
    run = sw.train(
        tiny.replace(budget={"tokens": 4 * 64}),
        place.replace(deterministic=asked),
        on_step=lambda work, numbers: seen.add(told()),
    )
    assert seen == {(True, False)} if asked else {before}
    assert told() == before
    assert run.determinism()["promised"] is True


def test_a_step_without_such_a_kernel_ends_the_run(tiny, place) -> None:
    def step(work, numbers):
        raise RuntimeError(
            "cumsum_cuda_kernel does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'."
        )

    why = "cumsum_cuda_kernel does not have a deterministic implementation; the last checkpoint is"
    with pytest.raises(TrainingError, match=why):
        sw.train(tiny, place.replace(deterministic=True), on_step=step)
    with pytest.raises(RuntimeError, match="but you set"):
        sw.train(tiny, place.replace(deterministic=False), rerun=True, on_step=step)
    assert not torch.are_deterministic_algorithms_enabled()
