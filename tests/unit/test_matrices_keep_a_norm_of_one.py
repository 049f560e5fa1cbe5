"""Spectral norm: the matrices that a rack computes with have a largest singular value of one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import stackwise as sw
from stackwise.config import Optim
from stackwise.model.spectral import divide_, first_u, flatten_, is_normed, iterated
from stackwise.training.optim import SPECTRAL, Optimizer, optimizer_state
from stackwise.training.updates import OPTIMIZERS

SHAPE = {"stacks": 2, "blocks_per_stack": 1, "d_model": 24, "heads": 2, "spectral_norm": True}


def sigmas(rack: sw.Rack) -> list[float]:
    found = {}
    for stack in rack.held():
        for name, weight in rack.stacks[stack].named_parameters():
            if is_normed(name, weight):
                found[stack, name] = float(torch.linalg.svdvals(weight.double())[0])
    return list(found.values())


def test_power_iteration_finds_the_largest_singular_value() -> None:
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(9, 4, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(6, 4, generator=generator, dtype=torch.float64))
    weight = left @ torch.diag(torch.tensor([3.0, 1.5, 1.0, 0.1]).double()) @ right.mT
    sigma, u, v = iterated(weight, first_u(weight, generator))  # (1.5 / 3)^60 is nothing
    assert float(sigma) == pytest.approx(3.0, rel=1e-12)
    assert torch.allclose(torch.outer(u, v), torch.outer(left[:, 0], right[:, 0]), atol=1e-12)


@pytest.mark.parametrize("attention", ["mha", "mla", "kernel"])
def test_a_rack_starts_so_and_is_no_wider(attention) -> None:
    """100 iterations on a random matrix leave a few thousandths at most."""
    rack = sw.Rack(sw.RackShape(**SHAPE, time="learned"), attention, 17)
    found = sigmas(rack)
    matrices = [m for m in rack.stacks.modules() if isinstance(m, nn.Linear)]
    assert len(found) == len(matrices) - 2  # all but the readouts of the noise level
    assert all(1 - 1e-6 <= sigma <= 1.01 for sigma in found)


def test_the_gradient_is_that_of_the_divided_matrix() -> None:
    """Against autograd through W / sigma(W), sigma from torch's own decomposition."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    weight /= torch.linalg.svdvals(weight)[0]
    outer = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    free = weight.clone().requires_grad_()
    (outer * (free / torch.linalg.matrix_norm(free, 2)).tanh()).sum().backward()
    grad = outer * (1 - weight.tanh() ** 2)
    u = first_u(weight, generator)
    for _ in range(300):
        u = iterated(weight, u).u_O
    flatten_(grad, weight, u)
    assert torch.allclose(grad, free.grad, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "grads"), [*((name, "whole") for name in OPTIMIZERS), ("adamw", "in_backward")]
)
def test_training_keeps_it(name, grads, tmp_path) -> None:
    """The iterations after a step follow what it moved: within two hundredths of one."""
    if OPTIMIZERS[name].missing():
        pytest.skip(OPTIMIZERS[name].missing())
    lr = 1e-3 if name.startswith("lion") else 3e-3  # whose steps are as long in every number
    moves = {
        "lr": lr,
        "grads": grads,
        "ema": None,
        **({"clip": None} if grads == "in_backward" else {}),
    }
    run = sw.train(experiment(optim={**OPTIM, "name": name, **moves}), place(tmp_path))
    found = sigmas(run.rack())
    assert max(found) <= 1.02 and min(found) >= 0.99
    assert run.metrics()["loss"].iloc[-1] < run.metrics()["loss"].iloc[0]


OPTIM = {"batch": 4, "lr": 3e-3}


def experiment(**changes) -> sw.Experiment:
    given = {
        "rack": {**SHAPE, "d_model": 16, "stacks": 2},
        "data": {"corpus": {"kind": "markov", "size_bytes": 40_000}, "seq_len": 16},
        "optim": OPTIM,
        "budget": {"tokens": 12 * 4 * 16},
        "eval": {"points": 2, "windows": 4, "final": 4},
    }
    return sw.Experiment(**{**given, **changes})


def place(tmp_path) -> sw.Placement:
    return sw.Placement(runs_dir=str(tmp_path / "runs"), device="cpu")


def test_what_is_frozen_is_what_was_computed_with(tmp_path) -> None:
    """A trunk's matrices lie divided, so that no source of it and no format changes its meaning."""
    exp = experiment(curriculum="left_to_right")
    runs = [
        sw.train(exp, place(tmp_path).replace(trunk=trunk), rerun=True)
        for trunk in ("recompute", "streamed", "cached")
    ]
    for run in runs[1:]:
        assert run.metrics()["loss"].equals(runs[0].metrics()["loss"])
        assert run.weights_hash() == runs[0].weights_hash()
    assert max(sigmas(runs[0].rack())) <= 1.02


def test_the_vector_is_state_that_a_checkpoint_keeps() -> None:
    rack = sw.Rack(sw.RackShape(**SHAPE), "mha", 17)
    named = {("s0", name): p for name, p in rack.stacks["s0"].named_parameters()}
    optimizer = Optimizer(Optim(), named, shape=rack.shape)
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = {key for key in optimizer_state(optimizer, named)["s0"] if key.endswith(SPECTRAL)}
    assert kept == {
        f"{name}/{SPECTRAL}" for (_, name), parameter in named.items() if parameter.ndim == 2
    }


def test_zeros_stay_zeros() -> None:
    weight, u = torch.zeros(3, 4), nn.functional.normalize(torch.ones(3), dim=0)
    divide_(weight, u)
    assert not weight.any() and torch.isfinite(u).all()


def test_what_cannot_be_is_refused() -> None:
    low = {"compute": "bfloat16", "weights": "bfloat16"}
    with pytest.raises(sw.ExperimentError) as error:
        sw.Experiment(rack={"spectral_norm": True}, precision=low)
    assert str(error.value) == (
        "rack.spectral_norm: divides every matrix anew in each step, which "
        "precision.weights=bfloat16 is too coarse for; use float32 weights, or leave "
        "spectral_norm off"
    )
    with pytest.raises(sw.ExperimentError, match="cannot divide by their largest singular value"):
        sw.Experiment(
            rack={"spectral_norm": True}, curriculum={"name": "grow", "init": "zero_output"}
        )
