"""Adapters on a stack: nothing at their start, the gradient of W + (alpha/r) B A, peft's files."""

import copy
import math

import peft
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.interop.peft_folder import CONFIG, WEIGHTS
from stackwise.model import adapters as layers
from stackwise.model.adapters import (
    adapter_parameters,
    adapter_state,
    bare_state,
    merge_adapters,
    put_on,
    take_off,
)
from stackwise.model.attention.mla import absorbed
from stackwise.model.formats import FORMATS
from stackwise.model.freezing import freeze_linears, thaw_linears
from stackwise.model.frozen import FrozenLinear

IDS = torch.arange(24).view(2, 12) % 61
KINDS = ["mha", "mla", {"kind": "kernel", "features": 8}]
SHAPE = sw.RackShape(stacks=3, blocks_per_stack=2, d_model=32, heads=2)


def rack(attention="mha", dtype=torch.float32):
    return sw.Rack(SHAPE, attention, 61, seed=3, dtype=dtype)


def carried(model, *, moved=True, **more):
    """Gives s1 an adapter, whose B is not zero if it has `moved`."""
    adapter = sw.Adapter(**{"stack": "s1", "rank": 3, "alpha": 6.0, **more})
    put_on(model.stacks["s1"], adapter, generator=torch.Generator().manual_seed(1))
    for name, parameter in adapter_parameters(model.stacks["s1"]):
        if moved and ".lora_B" in name:
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
    return adapter


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("targets", ["all", "attention", "ffn"])
@pytest.mark.parametrize("attention", KINDS, ids=str)
def test_a_new_adapter_changes_no_bit_of_the_logits(attention, targets, dtype):
    model = rack(attention, dtype)
    before = model(IDS)
    carried(model, targets=targets, moved=False)
    assert torch.equal(model(IDS), before)
    assert {p.dtype for _, p in adapter_parameters(model.stacks["s1"])} == {torch.float32}


@pytest.mark.parametrize("name", FORMATS)
def test_a_new_adapter_on_frozen_weights_changes_no_bit(name):
    model = rack()
    freeze_linears(model.stacks["s1"], name)
    before = model(IDS)
    carried(model, moved=False)
    assert torch.equal(model(IDS), before)


def test_an_adapter_starts_within_its_bound_by_its_seed_alone():
    one, other = rack(), rack()
    torch.manual_seed(0)
    carried(one, moved=False)
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    carried(other, moved=False)
    assert torch.equal(torch.random.get_rng_state(), state)  # torch's own generator is not drawn
    first, second = (adapter_state(each.stacks["s1"]) for each in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name, tensor in first.items():
        if ".lora_A" in name:
            bound = 1 / math.sqrt(tensor.shape[1])
            assert 0.8 * bound < float(tensor.abs().max()) <= bound  # of 96 numbers or more
        else:
            assert not tensor.any()


def slow(x_BTD, linear, a_RI, b_OR, scale):
    """What a layer with an adapter is, written out."""
    return F.linear(x_BTD, linear.weight + scale * (b_OR @ a_RI), linear.bias)


@pytest.mark.parametrize("targets", ["all", "attention", "ffn"])
def test_outputs_and_gradients_are_those_of_the_sum(targets):
    model = rack().double()
    twin = copy.deepcopy(model).requires_grad_(False)
    adapter = carried(model, targets=targets, rank=4, alpha=10.0)
    model.double()
    tensors = {
        name: value.clone().requires_grad_()
        for name, value in adapter_state(model.stacks["s1"]).items()
    }
    for name, module in list(twin.stacks["s1"].named_modules()):
        a, b = (tensors.get(f"{name}.lora_{letter}.weight") for letter in "AB")
        if a is not None:
            module.forward = lambda x, m=module, a=a, b=b: slow(
                x, m, a, b, adapter.alpha / adapter.rank
            )
    wanted, found = twin(IDS), model(IDS)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)  # float64, sums of 96 products
    wanted.square().mean().backward()
    found.square().mean().backward()
    grads = {name: p.grad for name, p in adapter_parameters(model.stacks["s1"])}
    assert grads.keys() == tensors.keys()
    for name, grad in grads.items():
        assert grad.abs().max() > 0
        assert torch.allclose(grad, tensors[name].grad, rtol=1e-9, atol=1e-14), name


def test_names_are_those_of_the_stack_without_it():
    model = rack()
    before = {name: tensor.clone() for name, tensor in model.stacks["s1"].state_dict().items()}
    carried(model)
    now = bare_state(model.stacks["s1"])
    assert now.keys() == before.keys() and all(torch.equal(now[k], before[k]) for k in now)
    kept = take_off(model.stacks["s1"])
    assert len(kept) == 2 * 2 * 5  # A and B of five layers in two blocks
    assert model.stacks["s1"].state_dict().keys() == before.keys()
    assert torch.equal(model(IDS), rack()(IDS))


@pytest.mark.parametrize("attention", KINDS, ids=str)
@pytest.mark.parametrize("form", [None, "int8"])
def test_merged_is_unmerged_but_for_rounding(attention, form):
    model = rack(attention)
    if form is not None:
        freeze_linears(model.stacks["s1"], form)
    plain = model(IDS)
    carried(model)
    unmerged = model(IDS)
    assert merge_adapters(model) == ["s1"] and merge_adapters(model) == []
    assert not any("lora" in name for name in model.state_dict())
    # x W + (x A) B against x (W + A B) in float32: sums of under 100 products in another order.
    assert torch.allclose(model(IDS), unmerged, rtol=0, atol=2e-6)
    assert not torch.allclose(plain, unmerged, atol=1e-2)


def test_merging_unpacks_a_frozen_matrix_and_rounds_once():
    model = rack()
    freeze_linears(model.stacks["s1"], "nf4")
    twin = copy.deepcopy(model)
    thaw_linears(twin.stacks["s1"])
    carried(model)
    carried(twin)
    for each in (model, twin):
        merge_adapters(each)
    assert torch.equal(model(IDS), twin(IDS))


def test_mla_decodes_with_what_its_adapter_adds():
    """Its absorbed form reads the matrices of keys and values themselves."""
    model = rack("mla")
    carried(model)
    layer = model.double().stacks["s1"].blocks[0].attention
    x_BTD = torch.randn(2, 5, 32, dtype=torch.float64)
    found = absorbed(layer, x_BTD, *layer.latent(x_BTD))
    assert torch.allclose(found, layer(x_BTD, causal=False), rtol=0, atol=1e-12)
    take_off(model.stacks["s1"])
    assert not torch.allclose(found, layer(x_BTD, causal=False), atol=1e-3)


def test_a_frozen_weight_is_never_made_to_put_an_adapter_on(monkeypatch):
    model = rack()
    freeze_linears(model.stacks["s1"], "int8")
    monkeypatch.setattr(FrozenLinear, "dequantised", lambda *given: pytest.fail("it was made"))
    carried(model)


def test_pefts_folder_comes_back_bit_for_bit(tmp_path):
    model = rack()
    carried(model)
    put_on(
        model.stacks["s2"],
        sw.Adapter(stack="s2", rank=5, alpha=2.5, targets="attention"),
        generator=torch.Generator().manual_seed(4),
    )
    folder = sw.save_adapters(model, tmp_path / "adapters")
    assert {path.name for path in folder.iterdir()} == {CONFIG, WEIGHTS}
    ours = rack()
    carried(ours, rank=7)  # what is there goes
    assert sw.load_adapters(ours, folder) == ["s1", "s2"]
    theirs = peft.PeftModel.from_pretrained(rack(), folder)
    for other in (ours, theirs):
        assert torch.equal(other(IDS), model(IDS))
    theirs.save_pretrained(tmp_path / "again")
    again = rack()
    sw.load_adapters(again, tmp_path / "again")
    assert torch.equal(again(IDS), model(IDS))
    for stack in ("s1", "s2"):
        first, second = (adapter_state(each.stacks[stack]) for each in (model, again))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_folders_that_do_not_fit_say_why(tmp_path):
    with pytest.raises(sw.ModelError) as error:
        sw.save_adapters(rack(), tmp_path)
    assert str(error.value) == (
        "adapters: no stack of this rack carries one; give a rack that does"
    )
    with pytest.raises(sw.ModelError) as error:
        sw.load_adapters(rack(), tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: holds no adapter_config.json; name a folder of save_adapters"
    )
    model = rack()
    carried(model)
    folder = sw.save_adapters(model, tmp_path)
    wide = sw.Rack(sw.RackShape(stacks=2, blocks_per_stack=2, d_model=64, heads=2), "mha", 61)
    with pytest.raises(sw.ModelError, match="load it into a rack of the sizes it was saved of"):
        sw.load_adapters(wide, folder)
    assert not adapter_state(wide.stacks["s1"])
    short = sw.Rack(sw.RackShape(stacks=1, blocks_per_stack=2, d_model=32, heads=2), "mha", 61)
    with pytest.raises(sw.ModelError, match="is of no stack of this rack; load what was saved"):
        sw.load_adapters(short, folder)


def test_without_peft_the_way_out_is_said(monkeypatch):
    layers.layer_class.cache_clear()
    monkeypatch.setattr(layers, "find_spec", lambda name: None)
    with pytest.raises(ExperimentError) as error:
        carried(rack())
    assert str(error.value) == (
        "adapters: need the package peft, which is not installed; pip install "
        "'stackwise[adapters]', or leave adapters.on at none"
    )
