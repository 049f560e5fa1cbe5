"""A loss or a gradient that is not finite is refused before anything moves, and before any save."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.training.start import NotFinite

BROKEN = 4  # the step that is refused


def breaking(what: str):
    """A callback that makes the loss or one gradient of step `BROKEN` not a number."""

    def on_step(work, numbers):
        if work.at.total_steps == BROKEN - 1:
            kept.update({k: v.clone() for k, v in work.rack.state_dict().items()})
            racks.append(work.rack)
            if what == "loss":
                work.rack.head.register_forward_hook(lambda module, args, out: out * torch.nan)
            else:
                work.rack.embedding.table.register_hook(lambda grad: grad * torch.inf)

    kept: dict[str, torch.Tensor] = {}
    racks: list[sw.Rack] = []
    return on_step, kept, racks


BEGAN = {
    "loss": "the head, of whose output 9472 of 9472 numbers are none",
    "gradient norm": r"the gradient of the embedding \(embedding\.table\)",
}


@pytest.mark.parametrize(
    ("what", "value"), [("loss", "nan"), ("gradient norm", "(nan|inf)")], ids=str
)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_nothing_moves_and_nothing_is_saved(tiny, place, what, value, clip) -> None:
    # A checkpoint after every step, so that a poisoned one would be the last.
    place = place.replace(checkpoint_seconds=1e-9)
    on_step, kept, racks = breaking(what)
    with pytest.raises(NotFinite) as caught:
        sw.train(tiny.replace(optim={"clip": clip}), place, on_step=on_step)
    assert caught.match(
        rf"^step {BROKEN} \(stage 0, s0-s3\): the {what} is {value}; lower lr, or look at this "
        rf"batch; it began in {BEGAN[what]}\. No step was taken, and the last checkpoint is intact"
        r"\. The same experiment comes to the same number again; with another optim\.lr, optim\."
        r"clip or precision it is another run$"
    )
    assert all(torch.equal(value, kept[name]) for name, value in racks[0].state_dict().items())
    (run,) = sw.runs_in(place.runs_dir)
    assert run.state == "failed" and str(caught.value) in str(run.error())
    assert list(run.metrics()["step"]) == [1, 2, 3]
    assert all(torch.isfinite(value).all() for value in run.rack().state_dict().values())


def test_in_a_model_of_ones_own_nothing_moves_either() -> None:
    shape = sw.RackShape(stacks=2, blocks_per_stack=1, d_model=8, heads=2)
    rack = sw.Rack(shape, sw.Experiment().attention, 7)
    before = {name: value.clone() for name, value in rack.state_dict().items()}
    rack.embedding.table.register_hook(lambda grad: grad * torch.inf)
    with pytest.raises(RuntimeError, match=r"the gradient norm is (nan|inf); lower lr"):
        sw.train_stack_wise(rack, [torch.zeros(2, 5, dtype=torch.long)] * 4)
    assert all(torch.equal(value, before[name]) for name, value in rack.state_dict().items())
