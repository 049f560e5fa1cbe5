"""Stepping each tensor inside backward gives the weights of stepping them all after it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import stackwise as sw
from stackwise.choice import parse
from stackwise.config import Optim
from stackwise.corruption import Corrupted
from stackwise.model.attention import ATTENTION
from stackwise.stage import Stage
from stackwise.training import chunked, layers
from stackwise.training.in_backward import InBackward, PartlyTaken, stepping_of
from stackwise.training.optim import Optimizer
from stackwise.training.scratch import Scratch, borrow
from stackwise.training.step import Trainee, setting_of, training_step
from stackwise.training.trained import freeze_all_but
from stackwise.training.updates import OPTIMIZERS

VOCAB, PATH = 67, ("s0", "s1", "s2")
STAGES = {
    "all of it": Stage(path=PATH, active=PATH),
    "the middle, with a suffix": Stage(path=PATH, active=("s1",), embedding=False, head=False),
    "the middle and the head": Stage(path=PATH, active=("s1",), embedding=False),
    "the first, with the embedding": Stage(path=PATH, active=("s0",), head=False),
    "head only": Stage(path=PATH, active=(), embedding=False),
    "both ends": Stage(path=PATH, active=()),
}
RACKS = {
    "tied": {"tied": True},
    "untied": {"tied": False, "bias": True, "head_bias": True},
    "bert": {"tied": True, "norm_place": "post", "norm": "layernorm", "ffn": "gelu", "bias": True}
    | {"head_transform": True, "head_bias": True, "embed_norm": True, "token_types": 2}
    | {"positions": "learned", "max_positions": 32},
}


def rack_of(
    name: str = "untied", attention: str = "mha", dtype=torch.float32, sizes: dict | None = None
) -> sw.Rack:
    sizes = sizes or {"stacks": 3, "blocks_per_stack": 2}
    shape = sw.RackShape(**sizes, d_model=32, heads=4, **RACKS[name])
    return sw.Rack(shape, parse(ATTENTION, attention, "attention", "kind"), VOCAB, dtype=dtype)


def batch(seed: int) -> Corrupted:
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(VOCAB, (4, 16), generator=generator)
    counted_BT = torch.rand(4, 16, generator=generator) < 0.5
    weight_B = torch.rand(4, generator=generator)
    input_BT = ids_BT.masked_fill(counted_BT, VOCAB)
    return Corrupted(input_BT, ids_BT, counted_BT, weight_B, counted_BT.float().mean(1))


def trained(
    rack: sw.Rack,
    stage: Stage,
    grads: str,
    *,
    compute=torch.float32,
    checkpointing: bool = False,
    compiled: bool = False,
    rounding="master",
    name: str = "adamw",
):
    """The rack after three steps of a stage, and the numbers of the last."""
    if stage.head != stage.embedding:
        rack.untie()
    optim = Optim(name=name, clip=None, grads=grads)
    named = freeze_all_but(rack.parts(), stage)
    optimizer = Optimizer(optim, named, rounding=rounding)
    stepping = stepping_of(optim, named, optimizer, rack, compiled=compiled)
    trainee = Trainee(0, stage, named, optimizer, None, stepping)
    setting = setting_of(
        rack,
        stage,
        causal=False,
        micro_batch=None,
        checkpointing=checkpointing,
        compute=compute,
        device=torch.device("cpu"),
        clip=None,
        compiled=compiled,
        in_backward=stepping,
    )
    for step in range(3):
        numbers = training_step(rack, batch(step), setting, trainee, 1e-2)
    if stepping is not None:
        stepping.close()
    return numbers, trainee


def assert_same(stage: Stage, make, **how) -> None:
    first, second, start = make(), make(), make()
    whole, _ = trained(first, stage, "whole", **how)
    stepped, trainee = trained(second, stage, "in_backward", **how)
    before, after = first.state_dict(), second.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    moved = [p for p in trainee.named.values() if p.grad is None]
    assert len(moved) == len(trainee.named)  # no gradient is left behind
    assert any(not torch.equal(after[key], value) for key, value in start.state_dict().items())
    assert stepped.loss == whole.loss
    assert stepped.counted == whole.counted
    assert set(stepped.block_norms) == set(whole.block_norms)
    # Sums of squares in another order: 2^-24 per addition, over the longest sums of 10^5 numbers
    # by pairs and slices, is far below 1e-5; bfloat16 gradients are summed in float32 alike.
    for block, norm in whole.block_norms.items():
        assert stepped.block_norms[block] == pytest.approx(norm, rel=1e-5)
    assert stepped.grad_norm == pytest.approx(whole.grad_norm, rel=1e-5)


@pytest.mark.parametrize("rack", RACKS)
@pytest.mark.parametrize("stage", STAGES)
def test_for_every_role_of_every_part(stage, rack) -> None:
    assert_same(STAGES[stage], lambda: rack_of(rack))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_in_bfloat16_and_recomputed(dtype, checkpointing) -> None:
    how = {"compute": torch.bfloat16, "checkpointing": checkpointing}
    for stage in ("all of it", "the middle and the head"):
        assert_same(STAGES[stage], lambda: rack_of("untied", dtype=dtype), **how)
        assert_same(STAGES[stage], lambda: rack_of("tied", dtype=dtype), **how)


@pytest.mark.parametrize("rounding", ["master", "stochastic"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_with_every_optimizer(name, rounding) -> None:
    if OPTIMIZERS[name].missing():
        pytest.skip(OPTIMIZERS[name].missing())
    how = {"compute": torch.bfloat16, "name": name, "rounding": rounding}
    assert_same(STAGES["all of it"], lambda: rack_of(dtype=torch.bfloat16), **how)


@pytest.mark.parametrize("attention", ATTENTION)
def test_with_every_kind_of_attention(attention) -> None:
    assert_same(STAGES["all of it"], lambda: rack_of("untied", attention))


@pytest.mark.parametrize("rack", RACKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_with_logits_that_are_never_held_whole(monkeypatch, dtype, rack) -> None:
    for module in (chunked, layers):
        monkeypatch.setattr(module, "LOGITS_AT_ONCE", 5 * VOCAB)
    compute = dtype
    for stage in STAGES.values():
        assert_same(stage, lambda: rack_of(rack, dtype=dtype), compute=compute)


def test_compiled_blocks_too() -> None:
    """One of them, since each is compiled by itself."""
    one = {"stacks": 1, "blocks_per_stack": 1}
    assert_same(Stage(path=("s0",)), lambda: rack_of(sizes=one), compiled=True)


def test_one_buffer_serves_every_layer_and_no_gradient_is_copied() -> None:
    rack = rack_of()
    linears = [layer for layer in rack.modules() if isinstance(layer, nn.Linear)]
    places: dict[str, int] = {}

    class Watched(Optimizer):
        def move(self, parameters) -> None:
            for parameter in parameters:
                places[self.names[parameter]] = parameter.grad.untyped_storage().data_ptr()
            super().move(parameters)

    named = freeze_all_but(rack.parts(), STAGES["all of it"])
    stepping = InBackward(named, Watched(Optim(clip=None), named), rack.modules())
    for _ in range(2):
        places.clear()
        stepping.begin(1e-3)
        rack(batch(0).input_BT).square().mean().backward()
        buffers = {
            place for name, place in places.items() if name.endswith(("up.weight", "q.weight"))
        }
        assert buffers == {stepping.scratch.free[0].untyped_storage().data_ptr()}
        assert len(places) == len(named)
    assert len(stepping.scratch.free) == 1 and not stepping.scratch.lent
    assert stepping.scratch.nbytes == max(layer.weight.nbytes for layer in linears)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_that_borrows_has_the_gradients_of_one_that_does_not(dtype, bias) -> None:
    # Wide enough for the products to be cut into tiles and summed in stretches.
    layer = nn.Linear(1024, 512, bias=bias).to(dtype)
    x_BTD = torch.randn(3, 100, 1024).to(dtype).requires_grad_()
    grad_BTD, found = torch.randn(3, 100, 512).to(dtype), []
    for scratch in (None, Scratch()):
        if scratch is not None:
            borrow(layer, scratch)
        out_BTD = layer(x_BTD)
        out_BTD.backward(grad_BTD)
        found.append([out_BTD, x_BTD.grad, *(p.grad for p in layer.parameters())])
        x_BTD.grad = layer.weight.grad = None
        layer.zero_grad()
    assert scratch is not None and scratch.lent
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


def test_leaving_the_stage_leaves_plain_layers_and_no_hooks() -> None:
    rack = rack_of()
    before = {name: dict(layer.__dict__) for name, layer in rack.named_modules()}
    keys = list(rack.state_dict())
    named = freeze_all_but(rack.parts(), STAGES["all of it"])
    stepping = InBackward(named, Optimizer(Optim(), named), rack.modules())
    assert list(rack.state_dict()) == keys
    stepping.close()
    assert {name: dict(layer.__dict__) for name, layer in rack.named_modules()} == before
    rack(batch(0).input_BT).sum().backward()
    assert all(parameter.grad is not None for parameter in named.values())


def test_a_layer_that_runs_twice_moves_once_by_both_gradients() -> None:
    def run(in_backward: bool) -> tuple[torch.Tensor, int]:
        torch.manual_seed(0)
        layer = nn.Linear(8, 8)
        named = {("s0", key): p for key, p in layer.named_parameters()}
        optimizer = Optimizer(Optim(), named)
        stepping = InBackward(named, optimizer, layer.modules()) if in_backward else None
        loss = layer(layer(torch.ones(3, 8)).tanh()).square().sum()
        if stepping is not None:
            stepping.begin(optimizer.rate)
        loss.backward()
        if stepping is None:
            optimizer.step()
        return layer.weight.detach().clone(), int(optimizer.state[layer.weight]["step"])

    (twice, steps), (whole, _) = run(True), run(False)
    assert torch.equal(twice, whole)
    assert steps == 1


def test_a_weight_that_is_used_again_after_it_moved_is_an_error_and_no_number() -> None:
    # `second` reads the weight without a gradient for it, and its backward comes last.
    weight = nn.Parameter(torch.ones(4, 4))
    named = {("s0", "weight"): weight}
    stepping = InBackward(named, Optimizer(Optim(), named))
    x = torch.ones(2, 4, requires_grad=True)
    second = x @ weight.detach()
    stepping.begin(1e-3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (second @ weight).sum().backward()


def test_a_gradient_that_is_no_number_says_that_part_of_the_step_was_taken() -> None:
    rack = rack_of()
    rack.embedding.table.register_hook(lambda grad: grad * torch.nan)
    before = {key: value.clone() for key, value in rack.state_dict().items()}
    with pytest.raises(PartlyTaken, match=r"^the gradient norm of embedding/table is nan; lower"):
        trained(rack, STAGES["all of it"], "in_backward")
    after = rack.state_dict()
    assert torch.equal(after["embedding.table"], before["embedding.table"])
    assert not torch.equal(after["head.weight"], before["head.weight"])


def test_a_loss_that_is_no_number_moves_nothing() -> None:
    rack = rack_of()
    rack.head.register_forward_hook(lambda module, args, out: out * torch.nan)
    before = {key: value.clone() for key, value in rack.state_dict().items()}
    with pytest.raises(FloatingPointError, match=r"^the loss is nan; lower lr"):
        trained(rack, STAGES["all of it"], "in_backward")
    assert all(torch.equal(before[key], value) for key, value in rack.state_dict().items())
