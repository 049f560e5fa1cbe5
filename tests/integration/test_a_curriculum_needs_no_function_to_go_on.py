"""A curriculum typed in a notebook cell runs and resumes in a process that has never seen it."""

from __future__ import annotations

import json

import pytest

import stackwise as sw
from stackwise.training.start import create_run

from ..warm import forked_json

OTHER = """
import json, sys, torch
torch.set_num_threads(1)
import stackwise as sw

run = sw.attach(sys.argv[1])
assert "typed_in_a_cell" not in sw.CURRICULA
try:
    sw.stages(run.experiment)
except ValueError as error:
    refused = str(error)
steps = []

def on_step(work, numbers):
    steps.append(work.at.total_steps)
    work.stop_requested = len(steps) == int(sys.argv[2])

sw.resume(run, on_step=on_step)
print(json.dumps({"refused": refused, "steps": steps, "state": run.state}))
"""


def elsewhere(run: sw.Run, stop_after: int = 0) -> dict:
    """Go on with a run in another process, to its end or for some steps."""
    found: dict = forked_json(OTHER, str(run.path), str(stop_after))
    return found


@pytest.fixture
def typed(tiny, monkeypatch) -> sw.Experiment:
    """Middle stacks last, as one would type it; and gone from this process after the test."""

    def middle_last(exp):
        first, *middle, last = sw.stack_ids(exp.rack)
        yield sw.Stage(path=(first, last))
        new = tuple(sw.NewStack(stack=stack, init="copy", source=first) for stack in middle)
        yield sw.Stage(path=(first, *middle, last), active=tuple(middle), new=new, embedding=False)
        yield sw.Stage(path=(first, *middle, last))

    monkeypatch.setitem(sw.CURRICULA, "typed_in_a_cell", middle_last)
    return tiny.replace(curriculum="typed_in_a_cell")


def test_it_runs_there_from_the_first_step_to_the_same_weights(typed, place) -> None:
    whole = sw.train(typed, place)
    made = create_run(typed, place, rerun=True)
    found = elsewhere(made)
    steps = sum(stage.tokens for stage in sw.stages(typed)) // (4 * 16)
    assert found["state"] == "finished" and found["steps"] == [*range(1, steps + 1)]
    assert found["refused"].startswith("unknown curriculum 'typed_in_a_cell'; known: end_to_end")
    assert made.weights_hash() == whole.weights_hash()
    assert made.result()["bits_per_byte"] == whole.result()["bits_per_byte"]


def test_it_resumes_there_and_again_here_where_it_is_gone(typed, place, monkeypatch) -> None:
    """Stopped here in its first stage, there in its second, and finished here without it."""
    whole = sw.train(typed, place)
    run = create_run(typed, place, rerun=True)

    def stop(work, numbers):
        work.stop_requested = work.at.total_steps == 3

    sw.resume(run, on_step=stop)
    assert run.state == "stopped"
    second = json.loads((run.path / "stages.json").read_text())[0]["tokens"] // (4 * 16) + 1
    found = elsewhere(run, stop_after=second - 3)
    assert found["state"] == "stopped" and found["steps"] == [*range(4, second + 1)]
    monkeypatch.delitem(sw.CURRICULA, "typed_in_a_cell")
    sw.resume(sw.attach(run.path))
    assert run.state == "finished"
    assert run.weights_hash() == whole.weights_hash()
