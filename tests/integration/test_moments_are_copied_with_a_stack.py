"""`optimizer_state=copy`: what is copied begins with its source's moments, whatever they are."""

import pytest
import torch

import stackwise as sw
from stackwise.training.optim import optimizer_state


@pytest.mark.parametrize(
    "curriculum",
    [
        {"name": "grow", "init": "copy"},
        {"name": "grow", "init": "copy", "place": "between"},
        {"name": "left_to_right", "init": "copy"},
        {"name": "one_hop", "init": "copy"},
    ],
)
@pytest.mark.parametrize("state", ["copy", "keep", "reset"])
def test_a_copy_begins_with_the_moments_of_its_source(tiny, place, curriculum, state, monkeypatch):
    begun: list[tuple[sw.Stage, dict]] = []
    ended: dict[str, dict] = {}
    from stackwise.training import run as loop

    entered, left = loop.enter_stage, loop.leave_stage

    def enter(work, number):
        trainee = entered(work, number)
        states = optimizer_state(trainee.optimizer, trainee.named)
        kept = {part: {k: v.clone() for k, v in each.items()} for part, each in states.items()}
        begun.append((trainee.stage, kept))
        return trainee

    def leave(work, trainee):
        states = optimizer_state(trainee.optimizer, trainee.named)
        ended.update({p: {k: v.clone() for k, v in each.items()} for p, each in states.items()})
        left(work, trainee)

    monkeypatch.setattr(loop, "enter_stage", enter)
    monkeypatch.setattr(loop, "leave_stage", leave)
    seen = []

    def note(work, numbers):
        if work.at.step == 1:
            seen.append(dict(ended))

    exp = tiny.replace(curriculum={**curriculum, "optimizer_state": state})
    sw.train(exp, place, on_step=note)
    copies = 0
    for (stage, states), before in zip(begun[1:], seen[1:], strict=True):
        for entry in stage.new:
            copies += 1
            if state != "copy":
                assert entry.stack not in states
                continue
            source = before[entry.source]
            assert states[entry.stack].keys() == source.keys()
            assert all(torch.equal(states[entry.stack][k], source[k]) for k in source)
    assert copies == 3
