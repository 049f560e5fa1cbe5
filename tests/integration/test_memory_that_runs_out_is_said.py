"""Torch, Python or the system has no more memory: what takes less is said, and the run goes on."""

from __future__ import annotations

import gc
import os
import resource
import weakref
from pathlib import Path

import pytest
import torch

import stackwise as sw
from stackwise.cli import main
from stackwise.training import run as training
from stackwise.training.run import execute
from stackwise.training.start import NoMemory, create_run


def asks_for_too_much(work) -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def asks_python_for_too_much(work) -> None:
    bytearray(1 << 60)


@pytest.mark.parametrize(
    "ask", [asks_for_too_much, asks_python_for_too_much], ids=["torch", "Python"]
)
def test_it_is_said_and_nothing_is_lost(tiny, place, ask) -> None:
    place = place.replace(checkpoint_seconds=1e-9)
    straight, run = sw.train(tiny, place), create_run(tiny, place, rerun=True)

    def on_step(work, numbers) -> None:
        if work.at.total_steps == 6:
            ask(work)

    with pytest.raises(NoMemory) as caught:
        execute(run, on_step=on_step)
    said = str(caught.value)
    assert said.startswith(f"run {run.id}: memory ran out (")
    assert (
        "; the last checkpoint is intact. Free some, or go on otherwise: make the rack smaller, "
        in said
    )
    assert "lower placement.micro_batch" in said and said.endswith("Then resume it")
    assert run.state == "failed" and said in str(run.error())
    assert sw.resume(run).weights_hash() == straight.weights_hash()


def test_what_the_run_held_is_given_back_while_the_error_is_at_hand(tiny, place) -> None:
    """Else a notebook, which keeps the last error, could not go on in the same kernel."""
    racks: list[weakref.ref[sw.Rack]] = []

    def on_step(work, numbers) -> None:
        racks.append(weakref.ref(work.rack))
        asks_for_too_much(work)

    try:
        sw.train(tiny, place, on_step=on_step)
    except NoMemory as error:
        kept = error
    gc.collect()
    assert kept is not None and racks[0]() is None


def test_a_process_that_may_have_no_more_ends_with_code_3(tiny, place, tmp_path) -> None:
    """A real limit, from the first step on, over which its activations would go."""
    wide = {"data": {"seq_len": 256}, "optim": {"batch": 64}, "budget": {"tokens": 64 * 256}}
    run, step = create_run(tiny.replace(**wide), place), training.training_step

    def limited(*args):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (16 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return step(*args)

    child = os.fork()
    if child == 0:
        code = 99
        try:
            handle = os.open(tmp_path / "said", os.O_WRONLY | os.O_CREAT)
            os.dup2(handle, 2)
            training.training_step = limited
            code = main(["resume", str(run.path)])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3, (tmp_path / "said").read_text()
    assert run.state == "failed" and "memory ran out" in str(run.error())
    assert execute(run).state == "finished"
