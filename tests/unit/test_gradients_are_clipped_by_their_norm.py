"""A step clips as torch's own `clip_grad_norm_` before torch's AdamW, and tells the norm before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stackwise.config import Optim
from stackwise.stage import Stage
from stackwise.training.optim import Optimizer
from stackwise.training.step import Trainee, take_step

SHAPES = {"blocks.0.a": (5, 7), "blocks.1.b": (7, 3), "c": (9,)}
STEPS = 4


def moved(bound: float | None, theirs: bool) -> tuple[list[torch.Tensor], list[float]]:
    """Weights after steps whose gradients grow tenfold each, and the norms that were told."""
    torch.manual_seed(0)
    named = {("s0", name): nn.Parameter(torch.randn(shape)) for name, shape in SHAPES.items()}
    parameters, optim, norms = [*named.values()], Optim(weight_decay=0.0), []
    reference = torch.optim.AdamW(
        parameters, lr=1e-2, betas=(optim.beta1, optim.beta2), eps=optim.eps, weight_decay=0.0
    )
    trainee = Trainee(0, Stage(path=("s0",)), named, Optimizer(optim, named), None)
    for step in range(STEPS):
        for parameter in parameters:
            parameter.grad = 10.0 ** (step - 2) * torch.randn(parameter.shape)
        if theirs:
            found = nn.utils.clip_grad_norm_(parameters, torch.inf if bound is None else bound)
            reference.step()
            norms.append(float(found))
        else:
            norms.append(take_step(trainee, 1e-2, bound)[0])
    return [parameter.detach() for parameter in parameters], norms


@pytest.mark.parametrize("bound", [None, 0.5, 1.0])
def test_weights_and_norms_are_those_of_torch(bound) -> None:
    (ours, our_norms), (theirs, their_norms) = moved(bound, False), moved(bound, True)
    # torch divides by the norm and 1e-6, and the fused rule rounds once where the plain one does
    # twice: some 2^-24 of each update, over four of them.
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert our_norms == pytest.approx(their_norms, rel=1e-6)
    assert our_norms[0] < 0.5 < 1.0 < our_norms[-1]  # some are under the bound, and some over it


def test_a_bound_matters() -> None:
    """The control: AdamW undoes a scale that is the same in every step, and this one is not."""
    clipped, free = moved(0.5, False)[0], moved(None, False)[0]
    assert all((one - other).abs().max() > 1e-3 for one, other in zip(clipped, free, strict=True))
