"""No kind of attention is free: what an entry must say, and the example in CONTRIBUTING.md."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import stackwise as sw
from stackwise.choice import parse
from stackwise.model.attention import build_attention
from stackwise.model.shape import RackShape, attention_shape

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
BATCH, LENGTH = 2, 6
TOKENS = BATCH * LENGTH
COSTS = (
    "parameters",
    "matmul_parameters",
    "input_parameters",
    "score_flops",
    "saved_floats",
    "working_floats",
    "cache_floats",
)


class Plain(torch.nn.Module):
    """An attention without costs."""


def test_every_cost_must_be_given():
    with pytest.raises(TypeError) as error:
        sw.AttentionKind(Plain)
    assert all(f"'{cost}'" in str(error.value) for cost in COSTS)


def test_costs_are_given_by_name():
    with pytest.raises(TypeError, match="positional"):
        sw.AttentionKind(Plain, None, lambda shape, params: 0)


@pytest.mark.parametrize("entry", [Plain, sw.Choice(Plain)], ids=["class", "choice"])
def test_an_entry_without_costs_is_refused(monkeypatch, entry):
    monkeypatch.setitem(sw.ATTENTION, "plain", entry)
    with pytest.raises(sw.ExperimentError) as error:
        sw.Experiment(attention="plain", data={"seq_len": 4}, optim={"warmup_frac": 0.9})
    assert str(error.value).splitlines() == [
        "attention: ATTENTION['plain'] says nothing of what it costs; make it "
        "sw.AttentionKind(Plain, parameters=..., matmul_parameters=..., input_parameters=..., "
        "score_flops=..., saved_floats=..., working_floats=..., cache_floats=...), as "
        "CONTRIBUTING.md shows",
        "optim.warmup_frac: 0.9 + decay_frac=0.3 is over 1; lower one of them",
    ]


@pytest.fixture
def example():
    """The name, module and entry that CONTRIBUTING.md shows, and its shape and parameters."""
    section = CONTRIBUTING.read_text("utf-8").split("\n## Add an attention type\n")[1]
    (code, *_) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    before = dict(sw.ATTENTION)
    try:
        exec(code, {"__name__": "example"})
        (name,) = set(sw.ATTENTION) - set(before)
        shape = attention_shape(RackShape(d_model=8, heads=2), 0)
        params = parse(sw.ATTENTION, name, "attention", "kind")
        yield build_attention(shape, params), sw.ATTENTION[name], shape, params
    finally:
        sw.ATTENTION.clear()
        sw.ATTENTION.update(before)


def test_the_example_has_the_parameters_that_it_says(example):
    module, entry, shape, params = example
    assert entry.parameters(shape, params) == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_the_example_costs_what_it_says(example, causal):
    module, entry, shape, params = example
    x_BTD = torch.randn(BATCH, LENGTH, 8)
    weights = 2 * entry.matmul_parameters(shape, params)
    first = 2 * entry.input_parameters(shape, params)
    scores = entry.score_flops(shape, params, LENGTH, causal)
    with FlopCounterMode(display=False) as counter:
        y_BTD = module(x_BTD, causal=causal)
        forward = counter.get_total_flops()
        y_BTD.sum().backward()
    assert forward == TOKENS * (weights + scores.forward)
    backward = 2 * weights - first + 2 * scores.pairs + scores.constant
    assert counter.get_total_flops() - forward == TOKENS * backward


@pytest.mark.parametrize("trains", [True, False], ids=["trains", "frozen"])
@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_the_example_keeps_what_it_says(example, causal, trains):
    module, entry, shape, params = example
    module.requires_grad_(trains)
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    x_BTD = torch.randn(BATCH, LENGTH, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(x_BTD, causal=causal)
    counts = 8 * LENGTH  # bytes of how many tokens each place sees, once for all samples
    said = TOKENS * entry.saved_floats(shape, params, LENGTH, causal, trains).bytes(4)
    assert said <= sum(size for size, _ in kept.values()) <= said + counts


def test_the_example_sees_no_later_token_when_causal(example):
    module = example[0]
    x_BTD = torch.randn(BATCH, LENGTH, 8)
    other_BTD = x_BTD.clone()
    other_BTD[:, 3:] += 1
    causal = [module(x, causal=True)[:, :3] for x in (x_BTD, other_BTD)]
    assert torch.equal(*causal)
    assert not torch.equal(*(module(x, causal=False)[:, :3] for x in (x_BTD, other_BTD)))
