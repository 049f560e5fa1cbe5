"""Every error of `train_stack_wise`, word for word."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import stackwise as sw


class Chain(nn.Module):
    """Three linear blocks, and a spare list that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(4))
        self.spare = nn.ModuleList([nn.Linear(2, 2)])
        self.shared = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.shared[1].weight = self.spare[0].weight

    def forward(self, x):
        for block in self.inner.blocks:
            x = block(x)
        return x


def mean(model, batch):
    return model(batch).mean()


def rack():
    shape = sw.RackShape(stacks=2, blocks_per_stack=1, d_model=8, heads=2)
    return sw.Rack(shape, sw.Experiment().attention, 7)


def half_band(exp):
    yield sw.Stage(path=("s0",), band=(0, 0.5))


OTHER = torch.zeros((), requires_grad=True)
X = [torch.ones(3, 2)] * 8
IDS = [torch.zeros(2, 5, dtype=torch.long)] * 8
LINEAR = {"blocks": "inner.blocks", "loss": mean}

WRONG = {
    "an unknown curriculum": (
        lambda: (rack(), IDS, {"curriculum": "left_right"}),
        "unknown curriculum 'left_right'; did you mean 'left_to_right'? known: "
        + ", ".join(sw.CURRICULA),
    ),
    "no model": (
        lambda: (None, X, LINEAR),
        "model: None is no torch module",
    ),
    "steps as text": (
        lambda: (Chain(), X, {**LINEAR, "steps": "8"}),
        "steps: '8' is not a whole number",
    ),
    "stacks as text": (
        lambda: (Chain(), X, {**LINEAR, "stacks": "2"}),
        "stacks: '2' is not a whole number",
    ),
    "options as a list": (
        lambda: (Chain(), X, {**LINEAR, "options": ["a"]}),
        "options: ['a'] is no mapping; give keys with values",
    ),
    "no blocks": (
        lambda: (Chain(), X, {"loss": mean}),
        "blocks: needed for Chain; lists of modules in it: inner.blocks (4), spare (1), shared (2)",
    ),
    "wrong blocks": (
        lambda: (Chain(), X, {"loss": mean, "blocks": "inner.layers"}),
        "blocks: 'inner.layers' is no list of blocks of Chain; lists of modules in it: "
        "inner.blocks (4), spare (1), shared (2)",
    ),
    "shared blocks": (
        lambda: (Chain(), X, {"loss": mean, "blocks": "shared"}),
        "blocks: s1.0.weight is the same tensor as spare.0.weight; what is shared cannot be frozen "
        "in one place and trained in another",
    ),
    "stacks that do not divide": (
        lambda: (Chain(), X, {**LINEAR, "stacks": 3}),
        "stacks: 3 does not divide the 4 blocks of inner.blocks; use 1, 2, 4",
    ),
    "an objective for a module": (
        lambda: (Chain(), X, {**LINEAR, "objective": "clm"}),
        "objective: only a Rack has one, and this is Chain; give loss, a function of model and "
        "batch",
    ),
    "blocks of a rack": (
        lambda: (rack(), IDS, {"blocks": "stacks", "loss": mean}),
        "blocks, loss: not for a Rack, which has its own; leave it out",
    ),
    "no batch": (
        lambda: (rack(), [], {}),
        "dataloader: gave no batch; it is empty, or was read to its end before",
    ),
    "no length": (
        lambda: (rack(), iter(IDS), {}),
        "steps: the dataloader has no length; say on how many batches to train",
    ),
    "too few steps": (
        lambda: (Chain(), X, {**LINEAR, "steps": 3, "curriculum": {"name": "grow", "by": "one"}}),
        "steps: 3 do not give each of the 4 stages of grow one; give at least 4",
    ),
    "no steps": (lambda: (rack(), IDS, {"steps": 0}), "steps: 0 must be 1 or more"),
    "no tensor": (
        lambda: (rack(), [[1, 2]], {}),
        "dataloader: gave list; a rack reads a tensor of token ids (B, T) or a mapping with "
        "input_ids",
    ),
    "no ids": (
        lambda: (rack(), X, {}),
        "dataloader: gave float32 of shape (3, 2); a rack reads whole-number token ids (B, T)",
    ),
    "ids outside": (
        lambda: (rack(), [torch.tensor([[0, 7]])] * 4, {}),
        "dataloader: gave ids from 0 to 7; this rack reads 0 to 6",
    ),
    "options of others": (
        lambda: (Chain(), X, {**LINEAR, "options": {"masking.bands": "linear"}}),
        "options: masking cannot be set here; known: optim",
    ),
    "weights of another kind": (
        lambda: (
            rack(),
            IDS,
            {"options": {"precision": {"compute": "bfloat16", "weights": "bfloat16"}}},
        ),
        "options: precision.weights=bfloat16, but the rack is in float32; make it with bfloat16 "
        "matrices, or leave it out",
    ),
    "a rack in bfloat16": (
        lambda: (rack().bfloat16(), IDS, {}),
        "model: the rack is in bfloat16, in which small updates are lost; give "
        'options={"precision": {"weights": "bfloat16", "compute": "bfloat16"}}, by which they are '
        "kept, or rack.float()",
    ),
    "a rack in float16": (
        lambda: (rack().half(), IDS, {}),
        "model: the rack is in float16, in which small updates are lost; give rack.float()",
    ),
    "a batch size": (
        lambda: (rack(), IDS, {"options": {"optim": {"batch": 8}}}),
        "options: optim.batch=8, but the dataloader gives 2 samples per batch; leave it out",
    ),
    "a learning rate": (lambda: (rack(), IDS, {"lr": -1.0}), "optim.lr: -1.0 must be over 0"),
    "zero output": (
        lambda: (Chain(), X, {**LINEAR, "curriculum": {"name": "grow", "init": "zero_output"}}),
        "curriculum.stages[1].new: zero_output knows the layers of a Rack only; use random or copy",
    ),
    "a band of a module": (
        lambda: (Chain(), X, {**LINEAR, "curriculum": half_band}),
        "curriculum.stages[0].band: (0.0, 0.5) goes with masked diffusion alone, its times drawn "
        "antithetic, iid or bell, and not with objective=clm, sampling=antithetic; leave it out",
    ),
    "bands with a gap": (
        lambda: (rack(), IDS, {"curriculum": half_band}),
        "curriculum.stages: the noise bands (0.0, 0.5] do not tile (0, 1]; "
        "let the band of a stage cover the rest",
    ),
    "a contradiction": (
        lambda: (rack(), IDS, {"curriculum": lambda exp: [sw.Stage(path=("s9",))]}),
        "curriculum.stages[0].path: 's9' is not a stack of the rack; known: s0, s1",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_arguments_are_refused(case):
    make, text = WRONG[case]
    model, dataloader, choices = make()
    with pytest.raises(ValueError, match=f"^{re.escape(text)}") as caught:
        sw.train_stack_wise(model, dataloader, **choices)
    assert str(caught.value).splitlines()[0] == text


def counted(give):
    """A loss that gives `give(call number)` times the real one; the first call only looks."""
    calls = iter(range(100))
    return lambda model, batch: give(next(calls)) * mean(model, batch)


def raises(error):
    def loss(model, batch):
        if len(model.inner.blocks) == 2:
            raise error
        return mean(model, batch)

    return loss


FAILURES = {
    "nan": (
        {"loss": counted(lambda call: float("nan") if call == 4 else 1.0)},
        "stage 1 (s1), step 4: FloatingPointError: the loss is nan; lower lr, or look at this "
        "batch",
        FloatingPointError,
    ),
    "the user's": (
        {"loss": raises(KeyError("labels"))},
        "stage 1 (s1), step 3: KeyError: 'labels'",
        KeyError,
    ),
    "no scalar": (
        {"loss": lambda model, batch: model(batch)},
        "stage 0 (s0), step 1: TypeError: the loss is (3, 2), not a scalar tensor",
        TypeError,
    ),
    "a loss of something else": (
        {"loss": lambda model, batch: OTHER * model(batch).mean().detach()},
        "stage 0 (s0), step 1: ValueError: the loss does not depend on anything that trains in "
        "this stage",
        ValueError,
    ),
    "no mapping": (
        {"loss": None},
        "stage 0 (s0), step 1: TypeError: batch: Tensor is not a mapping; give loss, a function of "
        "model and batch",
        TypeError,
    ),
    "another list": (
        {"blocks": "spare"},
        "stage 0 (s0), step 1: ValueError: blocks: the first block of spare is not called by the "
        "loss; name the list that the forward pass goes through",
        ValueError,
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures_name_stage_and_step(case):
    choices, text, cause = FAILURES[case]
    model = Chain()
    if case == "another list":
        model.shared = nn.ModuleList()
    with pytest.raises(RuntimeError) as caught:
        sw.train_stack_wise(model, X, **{**LINEAR, **choices})
    assert str(caught.value) == text
    assert isinstance(caught.value.__cause__, cause)
    assert len(model.inner.blocks) == 4
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_generator_that_ends_says_how_far_it_came():
    with pytest.raises(RuntimeError) as caught:
        sw.train_stack_wise(rack(), (ids for ids in IDS), steps=12)
    assert str(caught.value) == (
        "stage 1 (s1), step 9: ValueError: dataloader: ended after 8 batches and cannot be read "
        "again, but 12 are needed; give a list or a DataLoader, or steps=8"
    )


def test_a_model_that_is_all_frozen_is_refused():
    model = Chain().requires_grad_(False)
    with pytest.raises(RuntimeError) as caught:
        sw.train_stack_wise(model, X, **LINEAR)
    assert str(caught.value) == (
        "stage 0 (s0), step 1: ValueError: nothing trains: every parameter of its parts has "
        "requires_grad=False"
    )


def test_a_model_without_labels_says_what_to_do():
    class Silent(Chain):
        def forward(self, input_ids):
            super().forward(input_ids)
            return type("Output", (), {"loss": None})

    with pytest.raises(RuntimeError) as caught:
        sw.train_stack_wise(Silent(), [{"input_ids": X[0]}] * 8, blocks="inner.blocks")
    assert str(caught.value) == (
        "stage 0 (s0), step 1: ValueError: loss: the model gave none; put labels into the batch, "
        "or give loss"
    )
