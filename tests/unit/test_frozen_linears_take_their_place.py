"""Freezing and thawing replace linears in place, all of them, one at a time."""

import json
import sys

import pytest
import torch
from torch import nn

from stackwise.choice import parse
from stackwise.model.attention import ATTENTION
from stackwise.model.codes import CPU_WRITES
from stackwise.model.formats import FORMATS
from stackwise.model.freezing import freeze_linears, replace_linears, thaw_linears
from stackwise.model.frozen import FrozenLinear
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape

from ..warm import forked_json

SIDE, LINEARS = 2048, 6
LINEAR_BYTES = SIDE * SIDE * 4
SLICE_BYTES = CPU_WRITES * 24  # what quantising a slice takes: float32, int32 and int64 of it


class Special(nn.Linear):
    """A subclass, as another library may bring one."""


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 32), nn.LayerNorm(32), nn.Sequential(Special(32, 8, False)))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ATTENTION)
def test_a_frozen_rack_computes_what_its_dequantised_weights_say(kind, name):
    torch.manual_seed(0)
    groups = 2 if kind == "gqa" else None
    shape = RackShape(stacks=1, blocks_per_stack=2, d_model=32, heads=4, kv_heads=groups, bias=True)
    rack = Rack(shape, parse(ATTENTION, kind, "attention", "kind"), 61)
    for parameter in rack.parameters():
        nn.init.normal_(parameter, std=0.1)
    names = freeze_linears(rack.stacks, name)
    assert not any(type(m) is nn.Linear for m in rack.stacks.modules())
    ids_BT = torch.arange(20).view(2, 10)
    with torch.no_grad():
        hidden_BTD = rack.hidden(ids_BT, causal=True)
        assert thaw_linears(rack.stacks) == names
        assert torch.equal(rack.hidden(ids_BT, causal=True), hidden_BTD)


def test_names_are_given_and_the_rest_is_left_as_it_is():
    module = small()
    norm = module[1]
    assert freeze_linears(module, "nf4") == ["0", "2.0"]
    assert module[1] is norm and norm.weight.requires_grad
    assert type(module[0]) is type(module[2][0]) is FrozenLinear
    assert list(module.state_dict()) == [
        *("0.bias", "0.nf4", "0.scale", "1.weight", "1.bias", "2.0.nf4", "2.0.scale")
    ]
    assert not module[0].bias.requires_grad
    assert freeze_linears(module, "fp8") == []  # what is frozen stays
    assert module[0].format is FORMATS["nf4"]


def test_training_or_evaluation_is_kept():
    module = small().eval()
    freeze_linears(module, "fp8")
    assert not any(inner.training for inner in module.modules())
    module.train()
    thaw_linears(module)
    assert all(inner.training for inner in module.modules())


def test_a_linear_in_two_places_stays_one():
    shared = nn.Linear(8, 8)
    module = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared), "c": nn.Linear(8, 8)})
    assert freeze_linears(module, "int8") == ["a", "b.0", "c"]
    assert module["a"] is module["b"][0] is not module["c"]


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FORMATS)
def test_thawed_linears_train_in_storage_of_their_own(name, dtype):
    module = small().bfloat16()
    freeze_linears(module, name)
    kept = {key: tensor.clone() for key, tensor in module[0].tensors().items()}
    frozen = module[0]
    assert thaw_linears(module, dtype) == ["0", "2.0"]
    assert module[0].weight.dtype == module[0].bias.dtype == (dtype or torch.bfloat16)
    assert torch.equal(module[0].weight, frozen.dequantised(module[0].weight.dtype))
    assert all(parameter.requires_grad for parameter in module.parameters())
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].bias.zero_()
    assert all(torch.equal(frozen.tensors()[k].float(), t.float()) for k, t in kept.items())


@pytest.mark.parametrize("name", FORMATS)
def test_freezing_again_what_was_thawed_loses_nothing_more(name):
    module = small()
    freeze_linears(module, name)
    once_OI = module[0].weight
    thaw_linears(module)
    freeze_linears(module, name)
    # Each scale is the largest number again, to the rounding of two products in float32.
    assert torch.allclose(module[0].weight, once_OI, rtol=2**-22, atol=0)


def test_what_make_leaves_alone_stays():
    module = small()
    special = module[2][0]
    made = replace_linears(
        module, lambda name, linear: None if isinstance(linear, Special) else nn.Identity()
    )
    assert made == ["0"] and module[2][0] is special


def test_a_linear_alone_has_no_place():
    with pytest.raises(ValueError) as caught:
        freeze_linears(nn.Linear(3, 4), "fp16")
    assert str(caught.value) == (
        "Linear has no place to be replaced in; give the module that holds it, or nn.Sequential(it)"
    )


GROWTH = """
import json, sys
from pathlib import Path
from torch import nn
from stackwise.model.freezing import freeze_linears

def peak_bytes():
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024

names, side, linears = json.loads(sys.argv[1])
grown = {}
for name in names:
    freeze_linears(nn.Sequential(nn.Linear(64, 64)), name)  # what is loaded on first use
    module = nn.Sequential(*(nn.Linear(side, side, bias=False) for _ in range(linears)))
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    freeze_linears(module, name)
    grown[name] = peak_bytes() - before
print(json.dumps(grown))
"""


@pytest.fixture(scope="module")
def grown() -> dict[str, int]:
    """How far freezing raises the peak, by format; in a process whose freed memory goes back."""
    malloc = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    told = json.dumps([list(FORMATS), SIDE, LINEARS])
    found: dict[str, int] = forked_json(GROWTH, told, malloc=malloc)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of peak memory")
@pytest.mark.parametrize("name", FORMATS)
def test_freezing_holds_at_most_one_linear_more(name, grown):
    """Of six. The packed one in hand is no larger, and a slice's temporaries are a few MiB."""
    assert 0 <= grown[name] < LINEAR_BYTES + SLICE_BYTES
