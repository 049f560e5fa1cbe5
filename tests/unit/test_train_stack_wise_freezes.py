"""What a stage does not train does not move by a bit, and the model is whole afterwards."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import stackwise as sw


class Tower(nn.Module):
    """Linear blocks with BatchNorm and dropout between an embedding and a head."""

    def __init__(self, blocks: int = 4, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.place = nn.Parameter(torch.zeros(width))
        self.stem = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.Dropout(0.1))
            for _ in range(blocks)
        )
        self.end = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 1)
        self.depths: list[int] = []

    def forward(self, x_BC):
        x_BD = self.stem(x_BC) + self.place
        self.depths.append(len(self.blocks))
        for block in self.blocks:
            x_BD = x_BD + block(x_BD)
        return self.head(self.end(x_BD))[:, 0]


def squared(model, batch):
    return ((model(batch[0]) - batch[1]) ** 2).mean()


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    x_NBC = torch.randn(8, 16, 3, generator=generator)
    return [(x_BC, x_BC.sum(1)) for x_BC in x_NBC]


def states(model):
    """Copies of parameters and buffers, by the block they belong to or the end."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def moved(before, after):
    """Which blocks and ends differ."""
    names = {k for k in after if not torch.equal(before[k], after[k])}
    return {".".join(k.split(".")[: 2 if k.startswith("blocks") else 1]) for k in names}


def moved_by_stage(model, data, **choices):
    """What each stage moved, from copies taken at its first and last step."""
    seen = []

    def watched(model, batch):
        here = {id(m): n for n, m in whole.items()}
        seen.append(({here[id(b)] for b in model.blocks}, {n: states(m) for n, m in whole.items()}))
        return squared(model, batch)

    whole = {f"blocks.{i}": block for i, block in enumerate(model.blocks)}
    whole |= {"stem": model.stem, "end": model.end, "head": model.head}
    result = sw.train_stack_wise(model, data, blocks="blocks", loss=watched, **choices)
    seen = seen[1:]  # the first one only finds the embedding
    last = {n: states(m) for n, m in whole.items()}
    out = []
    stages = result.metrics["stage"].tolist()
    for number in range(len(result.stages)):
        first = stages.index(number)
        end = first + stages.count(number)
        after = seen[end][1] if end < len(seen) else last
        changed = {
            n
            for n in whole
            if (n in seen[first][0] or not n.startswith("blocks"))
            and any(not torch.equal(seen[first][1][n][k], v) for k, v in after[n].items())
        }
        out.append((seen[first][0], changed))
    return out


def blocks(*numbers):
    return {f"blocks.{i}" for i in numbers}


def test_left_to_right_runs_what_is_there_and_moves_the_newest(data):
    ran = moved_by_stage(Tower(), data, curriculum="left_to_right", steps=12)
    assert ran == [
        (blocks(0), blocks(0) | {"stem", "end", "head"}),
        (blocks(0, 1), blocks(1) | {"end", "head"}),
        (blocks(0, 1, 2), blocks(2) | {"end", "head"}),
        (blocks(0, 1, 2, 3), blocks(3) | {"end", "head"}),
    ]


def test_right_to_left_freezes_the_suffix_and_the_head(data):
    ran = moved_by_stage(Tower(), data, curriculum="right_to_left", steps=12, stacks=2)
    assert ran == [
        (blocks(2, 3), blocks(2, 3) | {"stem", "end", "head"}),
        (blocks(0, 1, 2, 3), blocks(0, 1) | {"stem"}),
    ]


def test_grow_and_end_to_end_train_all_that_is_there(data):
    ends = {"stem", "end", "head"}
    everything = blocks(0, 1, 2, 3)
    assert moved_by_stage(Tower(), data, curriculum="grow") == [
        (blocks(0), blocks(0) | ends),
        (blocks(0, 1), blocks(0, 1) | ends),
        (everything, everything | ends),
    ]
    assert moved_by_stage(Tower(), data, curriculum="end_to_end") == [
        (everything, everything | ends)
    ]


def test_grow_starts_a_stack_as_a_copy(data):
    model, starts = Tower(2), []

    def watched(model, batch):
        if len(model.blocks) == 2:
            starts.append([states(block) for block in model.blocks])
        return squared(model, batch)

    sw.train_stack_wise(
        model, data, curriculum={"name": "grow", "split": [1, 1]}, blocks="blocks", loss=watched
    )
    source, copied = starts[1]  # [0] is the look for the embedding
    assert source.keys() == copied.keys()
    assert all(torch.equal(source[k], copied[k]) for k in source)


def test_a_function_is_a_curriculum(data):
    def outside_in(exp):
        ids = sw.stack_ids(exp.rack)
        yield sw.Stage(path=(ids[0], ids[-1]))
        yield sw.Stage(path=ids, active=ids[1:-1], embedding=False, head=False)

    assert moved_by_stage(Tower(), data, curriculum=outside_in) == [
        (blocks(0, 3), blocks(0, 3) | {"stem", "end", "head"}),
        (blocks(0, 1, 2, 3), blocks(1, 2)),
    ]


def test_a_frozen_trunk_keeps_no_graph(data):
    graphs = []

    def watched(model, batch):
        hook = model.blocks[-1].register_forward_pre_hook(
            lambda module, args: graphs.append((len(model.blocks), args[0].requires_grad))
        )
        try:
            return squared(model, batch)
        finally:
            hook.remove()

    sw.train_stack_wise(Tower(), data, blocks="blocks", loss=watched, steps=12)
    assert set(graphs[1:]) == {(1, True), (2, False), (3, False), (4, False)}


def test_everything_is_as_it_was_afterwards(data):
    model = Tower()
    model.stem[0].weight.requires_grad_(False)
    model.eval()
    model.head.train()
    kept = list(model.blocks)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    listed, names, before = model.blocks, list(model.state_dict()), states(model)
    model.head.weight.grad = torch.full_like(model.head.weight, 1e9)
    draws = torch.get_rng_state()

    sw.train_stack_wise(model, data, curriculum="right_to_left", blocks="blocks", loss=squared)
    assert model.blocks is listed and all(a is b for a, b in zip(listed, kept, strict=True))
    assert list(model.state_dict()) == names
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), draws)
    assert torch.equal(before["stem.0.weight"], model.stem[0].weight), "frozen by the user"
    assert moved(before, states(model)) == blocks(0, 1, 2, 3) | {"place", "stem", "end", "head"}


def test_the_same_seed_gives_the_same_weights(data):
    first, second, third = (Tower() for _ in range(3))
    for model, seed in ((first, 1), (second, 1), (third, 2)):
        sw.train_stack_wise(model, data, blocks="blocks", loss=squared, seed=seed)
    assert not moved(states(first), states(second))
    assert moved(states(first), states(third)), "dropout draws from the seed"


def test_it_is_whole_after_a_failure_too(data):
    model = Tower()
    untouched = copy.deepcopy(model)

    def failing(model, batch):
        if len(model.blocks) == 2:
            raise KeyError("x")
        return squared(model, batch)

    with pytest.raises(RuntimeError):
        sw.train_stack_wise(model, data, blocks="blocks", loss=failing)
    assert list(model.state_dict()) == list(untouched.state_dict())
    assert moved(states(untouched), states(model)) == blocks(0) | {"place", "stem", "end", "head"}
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(module.training for module in model.modules())
