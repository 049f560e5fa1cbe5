"""`train_stack_wise` with the keys of a leaner step: what is allowed equals a run.

The objective is clm: it draws no masks, which would depend on the samples' numbers in the corpus.
"""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.data.batches import batch_at
from stackwise.training.start import dataset_of

STEPS = 12
LEAN = {"compute": "bfloat16", "weights": "bfloat16"}
OPTIONS = {
    "8-bit states": {"optim": {"name": "adamw8bit"}},
    "lion, in backward": {"optim": {"name": "lion8bit", "grads": "in_backward", "clip": None}},
    "bfloat16 with masters": {"precision": LEAN},
    "bfloat16 by chance": {"precision": {**LEAN, "rounding": "stochastic"}},
    "a border in fp8": {"precision": {"border": "fp8"}},
}
CURRICULA = {
    "left_to_right": "left_to_right",
    "cycling": {"name": "block_coordinate", "optimizer_state": "keep"},
}


@pytest.fixture
def exp(tiny) -> sw.Experiment:
    data = {"corpus": {"kind": "markov", "size_bytes": 40_000}, "seq_len": 16}
    return tiny.replace(objective="clm", data=data, budget={"tokens": STEPS * 4 * 16})


def batches_of(exp: sw.Experiment) -> list[torch.Tensor]:
    """What a run of the experiment reads."""
    dataset = dataset_of(exp, ".")
    return [batch_at(dataset, i * 4, 4, exp.seed).ids_BT for i in range(STEPS)]


def rack_of(exp: sw.Experiment) -> sw.Rack:
    dtype = getattr(torch, exp.precision.weights)
    return sw.Rack(exp.rack, exp.attention, 256, seed=exp.seed, dtype=dtype)


@pytest.mark.parametrize("curriculum", CURRICULA)
@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_weights_and_losses(exp, place, options, curriculum) -> None:
    exp = exp.replace(curriculum=CURRICULA[curriculum], **OPTIONS[options])
    run, rack = sw.train(exp, place), rack_of(exp)
    result = sw.train_stack_wise(
        rack,
        batches_of(exp),
        curriculum=CURRICULA[curriculum],
        objective="clm",
        lr=exp.optim.lr,
        options={"optim.ema": exp.optim.ema, **OPTIONS[options]},
    )
    assert result.metrics["loss"].tolist() == run.metrics()["loss"].tolist()
    expected = run.rack().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in rack.state_dict().items())


REFUSED = {
    "a frozen format": (
        {"precision.frozen": "nf4"},
        "options: precision.frozen: 'nf4' is not read with a model of one's own, which stays as it "
        "is; leave it empty, or train a run (sw.train)",
    ),
    "clipping in backward": (
        {"optim.grads": "in_backward"},
        "optim.clip: 1.0 needs the norm of the whole gradient, and with grads=in_backward it is "
        "never held whole; leave clip empty, or use grads=whole",
    ),
    "bfloat16 of a float32 rack": (
        {"precision": LEAN},
        "options: precision.weights=bfloat16, but the rack is in float32; make it with bfloat16 "
        "matrices, or leave it out",
    ),
    "a master of nothing": (
        {"precision.master": "fp32"},
        "precision.master: 'fp32' is not read with frozen empty, which loses nothing; leave it at "
        "none",
    ),
    "another optimizer": (
        {"optim.name": "sgd"},
        "optim.name: 'sgd' is not one of 'adamw', 'adamw8bit', 'paged_adamw8bit', 'lion8bit', "
        "'adafactor' or 'muon'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_rest_is_refused(exp, case) -> None:
    options, text = REFUSED[case]
    rack = rack_of(exp)
    before = {name: value.clone() for name, value in rack.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        sw.train_stack_wise(rack, batches_of(exp), options=options, objective="clm")
    assert str(caught.value) == text
    assert all(torch.equal(value, before[name]) for name, value in rack.state_dict().items())
