"""On the same batches, `train_stack_wise` gives a rack the weights of a run, to the last bit.

The objective is clm: it draws no masks, which would depend on the samples' numbers in the corpus.
"""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.data.batches import batch_at
from stackwise.training.start import dataset_of

STEPS = 14


@pytest.fixture
def exp(tmp_path):
    (tmp_path / "words.txt").write_text(" ".join(f"the {i} of {i * i}" for i in range(400)))
    return sw.Experiment(
        rack={"stacks": 3, "blocks_per_stack": 2, "d_model": 16, "heads": 2, "vocab": 256},
        objective="clm",
        data={"corpus": "text:words.txt", "seq_len": 16},
        optim={"batch": 4, "lr": 1e-2},
        budget={"tokens": STEPS * 4 * 16},
        eval={"points": 1, "windows": 2, "draws": 1},
        seed=3,
    )


@pytest.mark.parametrize(
    "curriculum",
    [
        "end_to_end",
        "left_to_right",
        {"name": "left_to_right", "init": "zero_output", "head": "first"},
        "right_to_left",
        "grow",
        {"name": "grow", "optimizer_state": "keep", "by": "one"},
    ],
    ids=str,
)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.filterwarnings("ignore:the rack's head was tied")
def test_the_same_weights_and_losses(exp, curriculum, tied, tmp_path):
    exp = exp.replace(curriculum=curriculum, rack={"tied": tied})
    placement = sw.Placement(data_dir=str(tmp_path), runs_dir=str(tmp_path / "runs"))
    run = sw.train(exp, placement)

    dataset = dataset_of(exp, tmp_path)
    batches = [batch_at(dataset, i * 4, 4, exp.seed).ids_BT for i in range(STEPS)]
    rack = sw.Rack(exp.rack, exp.attention, 256, seed=exp.seed)
    result = sw.train_stack_wise(
        rack, batches, curriculum=curriculum, objective="clm", lr=1e-2, seed=exp.seed
    )
    assert result.stages == sw.stages(exp)
    assert result.metrics["loss"].tolist() == run.metrics()["loss"].tolist()
    assert result.metrics["grad_norm"].tolist() == run.metrics()["grad_norm"].tolist()
    expected = run.rack().state_dict()
    assert rack.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in rack.state_dict().items())
