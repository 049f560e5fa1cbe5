"""Time-as-input: nothing changes at first, and then each sample's level is what blocks read."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import stackwise as sw
from stackwise.choice import parse
from stackwise.corruption import Corruption
from stackwise.data.batches import Batch
from stackwise.evaluation import evaluate
from stackwise.interop.llama_rules import refuse_what_is_no_llama
from stackwise.model.conditioning import TimeInput, level_features
from stackwise.objective import corrupt
from stackwise.probe import exit_losses
from stackwise.training.step import micro_loss, setting_of

BASE = {"stacks": 2, "blocks_per_stack": 2, "d_model": 16, "heads": 2, "d_ff": 32, "vocab": 11}
PLACES = {
    "pre": {},
    "post": {"norm_place": "post", "norm": "layernorm", "bias": True, "ffn": "gelu"},
    "gain": {"residual_gain": 0.7, "qk_norm": True},
}
KINDS = ["sinusoidal", "learned"]
IDS_BT = torch.randint(12, (3, 9), generator=torch.Generator().manual_seed(0))


def rack_of(kind: str = "none", attention: str = "mha", **options) -> sw.Rack:
    width = {} if kind == "none" else {"time_width": 6}
    shape = sw.RackShape(**{**BASE, **options}, time=kind, **width)
    return sw.Rack(shape, attention, 11, seed=4)


def readouts(rack: sw.Rack) -> list[Tensor]:
    return [m.readout.weight for m in rack.modules() if isinstance(m, TimeInput)]


def shaken(rack: sw.Rack, std: float = 0.2) -> sw.Rack:
    """With readouts that read something."""
    generator = torch.Generator().manual_seed(7)
    for module in rack.modules():
        if isinstance(module, TimeInput):
            for parameter in module.parameters():
                torch.nn.init.normal_(parameter, 0.0, std, generator=generator)
    return rack


@pytest.mark.parametrize("attention", ["mha", "mla", "kernel"])
@pytest.mark.parametrize("options", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_at_first_a_rack_computes_what_it_would_without(kind, options, attention) -> None:
    if options.get("qk_norm") and attention != "mha":
        options = {"residual_gain": 0.7}
    plain, timed = rack_of(attention=attention, **options), rack_of(kind, attention, **options)
    time_B = torch.tensor([0.0, 0.4, 1.0])
    assert torch.equal(plain(IDS_BT), timed(IDS_BT, time_B=time_B))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plain(IDS_BT), timed(IDS_BT, time_B=time_B))
    ours, theirs = dict(timed.named_parameters()), dict(plain.named_parameters())
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert {name.split(".")[-3] for name in ours.keys() - theirs.keys()} == {"time"}


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_readout_at_once_and_then_the_level_matters(kind) -> None:
    rack, time_B = rack_of(kind), torch.tensor([0.1, 0.5, 0.9])
    before = rack(IDS_BT, time_B=time_B)
    assert torch.equal(before, rack(IDS_BT, time_B=1 - time_B))
    optimizer = torch.optim.SGD(rack.parameters(), lr=0.5)
    rack(IDS_BT, time_B=time_B).logsumexp(-1).sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in readouts(rack))
    optimizer.step()
    changed_BT = (rack(IDS_BT, time_B=time_B) - rack(IDS_BT, time_B=1 - time_B)).abs().amax(-1)
    assert (changed_BT.amax(1) > 0).tolist() == [True, False, True]  # the middle one is the same


@pytest.mark.parametrize("options", PLACES.values(), ids=PLACES)
def test_a_constant_level_is_the_same_as_other_norms_and_outputs(options) -> None:
    """scale and shift fold into the norm's weight and bias, the gate into what a sub-layer adds.

    In float64, so that 1e-12 is a hundred thousand roundings of numbers near one.
    """
    options = {**options, "norm": "layernorm", "bias": True}
    timed = shaken(rack_of("sinusoidal", **options)).double()
    plain = rack_of("none", **options).double()
    plain.load_state_dict(timed.state_dict(), strict=False)
    level_1 = torch.tensor([0.3], dtype=torch.float64)
    with torch.no_grad():
        for block, other in zip(
            timed.blocks(timed.held()), plain.blocks(plain.held()), strict=True
        ):
            changes = block.time(level_1, torch.float64)
            for change, norm, last in zip(
                changes,
                (other.attention_norm, other.ffn_norm),
                (other.attention.out, other.ffn.down),
                strict=True,
            ):
                norm.weight.mul_(change.scale[0, 0])
                norm.bias.mul_(change.scale[0, 0]).add_(change.shift[0, 0])
                last.weight.mul_(change.gate[0, 0][:, None])
                last.bias.mul_(change.gate[0, 0])
        found = timed(IDS_BT, time_B=level_1.expand(3))
        assert (found - plain(IDS_BT)).abs().max() < 1e-12


def test_sinusoids_are_those_of_dit_and_the_table_is_interpolated() -> None:
    time_B = torch.tensor([0.0, 0.25, 0.6, 1.0], dtype=torch.float64)
    found = level_features(time_B, 8, "sinusoidal")
    for row, level in zip(found, time_B.tolist(), strict=True):
        angles = [1000 * level * 10_000 ** (-i / 4) for i in range(4)]
        slow = [*map(math.cos, angles), *map(math.sin, angles)]
        assert torch.allclose(row, torch.tensor(slow, dtype=torch.float64), rtol=0, atol=1e-12)
    table_W = torch.tensor([3.0, -1.0, 5.0], dtype=torch.float64)
    read = level_features(time_B, 3, "learned") @ table_W
    wanted = torch.tensor([3.0, 1.0, -1 + 0.2 * 6, 5.0], dtype=torch.float64)
    assert torch.allclose(read, wanted, rtol=0, atol=1e-12)


def test_ids_alone_are_read_at_their_masked_part_as_evaluation_and_samplers_do() -> None:
    rack = shaken(rack_of("learned"))
    frac_B = (rack.mask_id == IDS_BT).float().mean(1)
    assert len(set(frac_B.tolist())) > 1
    assert torch.equal(rack(IDS_BT), rack(IDS_BT, time_B=frac_B))
    assert rack.time_of(IDS_BT) is not None and rack_of().time_of(IDS_BT, frac_B) is None


def batch(count: int = 6, length: int = 8) -> Batch:
    ids_BT = torch.arange(count * length).view(count, length).numpy() % 11
    place_B = torch.arange(count).numpy()
    return Batch(ids_BT, place_B, 0 * place_B, place_B)


@pytest.mark.parametrize(
    ("objective", "schedule", "sampling", "level"),
    [
        ("diffusion", "cosine", "antithetic", "probability"),
        ("diffusion", "linear", "iid", "probability"),
        ("diffusion", "linear", "stratified_k", "part"),
        ("mlm", "ramp", "antithetic", "part"),
    ],
)
def test_a_level_is_the_mask_probability_or_the_masked_part(
    objective, schedule, sampling, level
) -> None:
    rule = Corruption(
        parse(sw.OBJECTIVES, objective, "objective", "kind"),
        11,
        6,
        0,
        parse(sw.SCHEDULES, schedule, "schedule", "name"),
        sampling,
    )
    noisy = corrupt(rule, batch(length=400), progress=0.5)
    if level == "part":
        assert torch.equal(noisy.level_B, noisy.counted_BT.float().mean(1))
        return
    # A part of 400 tokens lies within five standard errors of its probability.
    assert not torch.equal(noisy.level_B, noisy.mask_frac_B)
    error_B = (noisy.level_B * (1 - noisy.level_B) / 400).sqrt()
    assert ((noisy.level_B - noisy.mask_frac_B).abs() <= 5 * error_B).all()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_micro_batches_take_their_own_levels(checkpointing) -> None:
    rack = shaken(rack_of("sinusoidal", init_std=0.5))
    rule = Corruption(sw.Experiment().objective, 11, 6, 0)
    noisy = corrupt(rule, batch())
    setting = setting_of(
        rack,
        sw.Stage(path=("s0", "s1"), active=("s1",)),
        causal=False,
        micro_batch=None,
        checkpointing=checkpointing,
        compute=torch.float32,
        device=torch.device("cpu"),
        clip=None,
    )
    whole = micro_loss(rack, noisy, setting, 48)
    parts = [micro_loss(rack, part, setting, 48) for part in noisy.split(2)]
    assert torch.allclose(whole, sum(parts), rtol=1e-5)
    other = noisy.rows(0, 6)
    object.__setattr__(other, "time_B", noisy.level_B.flip(0))
    assert not torch.allclose(whole, micro_loss(rack, other, setting, 48), rtol=1e-3)


def test_exit_losses_and_evaluation_run_at_the_levels_of_their_draws() -> None:
    rack = shaken(rack_of("learned"))
    noisy = corrupt(Corruption(sw.Experiment().objective, 11, 6, 0), batch())
    assert len(exit_losses(rack, noisy, causal=False)) == 5
    found = evaluate(rack, batch().ids_BT, 48, objective="diffusion")
    still = evaluate(rack_of("learned"), batch().ids_BT, 48, objective="diffusion")
    assert math.isfinite(found.bits_per_byte) and found.bits_per_byte != still.bits_per_byte


def test_a_block_without_a_level_says_so() -> None:
    rack = rack_of("learned")
    with pytest.raises(ValueError) as error:
        next(rack.blocks(("s0",)))(torch.zeros(1, 2, 16), causal=False)
    assert str(error.value) == (
        "time_B: this block reads the noise level of each sample (rack.time), and none is given; "
        "give (B,) numbers in [0, 1], as Rack.time_of does"
    )


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(sw.ExperimentError) as error:
        sw.Experiment(rack={"time": "learned"}, objective="clm")
    assert str(error.value) == (
        "rack.time: learned reads how much of a sample is masked, and with objective=clm nothing "
        "is; leave it at none, or use objective=diffusion or mlm"
    )
    with pytest.raises(sw.ExperimentError) as error:
        sw.Experiment(rack={"time": "sinusoidal", "time_width": 5})
    assert str(error.value) == (
        "rack.time_width: 5 must be even with time=sinusoidal, which has cosines and sines; use 6"
    )
    with pytest.raises(sw.ExperimentError, match=r"rack\.time_width: 6 is not read with time=none"):
        sw.Experiment(rack={"time_width": 6})


def test_no_format_of_hugging_face_has_it() -> None:
    shape = sw.RackShape(**{**BASE, "time": "learned", "depth_base": 2})
    with pytest.raises(sw.ModelError) as error:
        refuse_what_is_no_llama(shape, sw.Experiment().attention, "clm", "run x")
    lines = str(error.value).splitlines()
    assert lines[:2] == [
        "run x: rack.depth_base: 2 is not a Llama's, which has None",
        "run x: rack.time: 'learned' is not a Llama's, which has 'none'",
    ]
