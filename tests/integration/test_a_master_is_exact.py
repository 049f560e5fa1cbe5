"""What a bfloat16 stack trains on from is its float32 value, at its average, to the last bit."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.training import borders
from stackwise.training.average import Average
from stackwise.training.checkpoint import read_manifest, read_part


@pytest.fixture(params=["keep", "reset"])
def cycling(request, tiny) -> sw.Experiment:
    """Each stack is visited twice, and packed in between."""
    return tiny.replace(
        curriculum={"name": "block_coordinate", "optimizer_state": request.param},
        precision={
            "compute": "bfloat16",
            "weights": "bfloat16",
            "frozen": "nf4",
            "master": "fp32",
        },
    )


def master_of(run: sw.Run, stack: str) -> dict[str, torch.Tensor]:
    folder = run.path / "rack"
    return read_part(folder, read_manifest(folder), f"{stack}.master")


def test_it_is_the_average_that_the_stack_was_frozen_at(cycling, place, monkeypatch) -> None:
    frozen_at = {}
    adopt = Average.adopt

    def noted(average, parts, *rest):
        kept = average.values.items()
        frozen_at.update({name: v.clone() for (part, name), v in kept if part == "s0"})
        adopt(average, parts, *rest)

    def stop(work, numbers):
        work.stop_requested = work.at.step == work.steps_of(0)

    monkeypatch.setattr(Average, "adopt", noted)
    master = master_of(sw.train(cycling, place, on_step=stop), "s0")
    assert master.keys() == frozen_at.keys()
    assert all(torch.equal(master[name], value) for name, value in frozen_at.items())
    matrices = [value for value in master.values() if value.ndim == 2]
    assert not any(torch.equal(value, value.bfloat16().float()) for value in matrices)


def test_a_stack_that_comes_back_stands_for_it(cycling, place, monkeypatch) -> None:
    take, compared = borders.take_masters, []

    def checked(work, named, optimizer):
        take(work, named, optimizer)
        trained = {part for part, _ in named} - {"embedding", "head"}
        for stack in trained if work.at.stage else ():
            master = master_of(work.run, stack)
            for (part, name), parameter in named.items():
                if part == stack:
                    assert torch.equal(optimizer.exact(parameter), master[name]), (part, name)
                    compared.append((work.at.stage, part))

    monkeypatch.setattr(borders, "take_masters", checked)

    def stop(work, numbers):
        work.stop_requested = work.at.step == work.steps_of(0)

    run = sw.train(cycling, place, on_step=stop)
    sw.resume(run)
    assert {(4, "s0"), (5, "s1"), (6, "s2"), (7, "s3")} <= {*compared}
