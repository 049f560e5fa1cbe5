"""LoRA adapters of peft on frozen stacks, against the same on their dequantised weights."""

import copy

import pytest
import torch
from torch import nn

from stackwise.model.attention.mha import Mha
from stackwise.model.formats import FORMATS
from stackwise.model.freezing import freeze_linears, thaw_linears
from stackwise.model.frozen import FrozenLinear
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape

peft = pytest.importorskip("peft")

TARGETS = ["qkv", "out", "gate", "up", "down"]
SHAPE = RackShape(stacks=2, blocks_per_stack=1, d_model=32, heads=2)


def rack_with(name):
    """A rack whose stacks are frozen, and its twin with plain linears of the same weights."""
    torch.manual_seed(0)
    rack = Rack(SHAPE, Mha(), 61)
    for parameter in rack.parameters():
        nn.init.normal_(parameter, std=0.1)
    for stack in rack.stacks.values():
        freeze_linears(stack, name)
    twin = copy.deepcopy(rack)
    thaw_linears(twin)
    return rack, twin


def adapted(rack):
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=TARGETS, init_lora_weights=False)
    return peft.get_peft_model(rack, config)


def step(model, dtype):
    ids_BT = torch.arange(24).view(2, 12) % 61
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        hidden = model.base_model.model.hidden(ids_BT, causal=True)
        loss = model.base_model.model.logits(hidden.flatten(0, 1)).float().square().mean()
    loss.backward()
    return loss.detach(), {k: p.grad for k, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FORMATS)
def test_gradients_of_adapters_are_those_on_the_dequantised_weights(name, dtype):
    frozen, twin = map(adapted, rack_with(name))
    assert sum(isinstance(m, FrozenLinear) for m in frozen.modules()) == 10
    loss, grads = step(frozen, dtype)
    wanted_loss, wanted = step(twin, dtype)
    assert torch.equal(loss, wanted_loss)
    assert len(grads) == 20 and grads.keys() == wanted.keys()
    assert all(grad.abs().max() > 0 for grad in grads.values())
    assert all(torch.equal(grads[key], wanted[key]) for key in grads)


@pytest.mark.parametrize("name", FORMATS)
def test_a_step_moves_adapters_and_nothing_else(name):
    model = adapted(rack_with(name)[0])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    step(model, torch.float32)
    trained = [p for p in model.parameters() if p.requires_grad]
    torch.optim.AdamW(trained, lr=0.1).step()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor.float(), before[key].float()) == ("lora_" not in key), key


def test_adapters_merge_into_what_was_thawed():
    """Merging writes to `weight`, which a frozen linear makes at each reading: thaw first."""
    model = adapted(rack_with("nf4")[0])
    ids_BT = torch.arange(24).view(2, 12) % 61
    before = model.base_model.model.hidden(ids_BT, causal=True)
    assert len(thaw_linears(model)) == 10
    merged = model.merge_and_unload()
    after = merged.hidden(ids_BT, causal=True)
    assert not any("lora" in key for key in merged.state_dict())
    # x W + (x A) B against x (W + A B): sums of 32 products in float32, in another order.
    assert torch.allclose(after, before, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(after, rack_with("nf4")[0].hidden(ids_BT, causal=True), atol=1e-2)
