"""What a run says of its threads is what it computed with, and a caller's own are given back."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw


@pytest.fixture
def tiny(tiny) -> sw.Experiment:
    """Of few steps: threads that wait for one another take long where others compute too."""
    return tiny.replace(budget={"tokens": 4 * 64}, eval={"points": 1, "windows": 1, "final": 1})


@pytest.mark.parametrize("threads", [None, 2, 3])
def test_they_are_used_recorded_and_given_back(tiny, place, threads) -> None:
    before = torch.get_num_threads()
    used = []
    run = sw.train(
        tiny,
        place.replace(threads=threads),
        on_step=lambda work, numbers: used.append(torch.get_num_threads()),
    )
    assert set(used) == {threads or before}
    assert run.provenance()["threads"] == (threads or before)
    assert [(e["threads"], e["device"]) for e in run.events("opened")] == [(used[0], "cpu")]
    assert torch.get_num_threads() == before


def test_a_run_that_goes_on_with_others_says_so(tiny, place) -> None:
    def on_step(work, numbers):
        work.stop_requested = work.at.total_steps == 2

    run = sw.train(tiny, place, on_step=on_step)
    sw.resume(run, placement={"threads": 2})
    before = torch.get_num_threads()
    assert [event["threads"] for event in run.events("opened")] == [before, 2]


def test_they_are_given_back_after_an_error_too(tiny, place) -> None:
    def on_step(work, numbers):
        raise KeyError("mine")

    before = torch.get_num_threads()
    with pytest.raises(KeyError, match="mine"):
        sw.train(tiny, place.replace(threads=2), on_step=on_step)
    assert torch.get_num_threads() == before
