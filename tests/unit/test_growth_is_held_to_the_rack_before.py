"""Terms beside the loss against slow references: gradients, micro-batches, FLOPs, refusals."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.memory.flops import stage_flops_per_token
from stackwise.memory.held import held_copies
from stackwise.memory.stored import trained_bytes
from stackwise.model.adapters import adapter_parameters, put_on
from stackwise.model.direction import BlockCausal, start_of
from stackwise.preserving import copied_parts, joint_of, path_read
from stackwise.training import holding as module
from stackwise.training.holding import holding_of, softened, strayed
from stackwise.training.step import micro_loss, setting_of
from stackwise.training.trained import freeze_all_but

LEFT = {"curriculum": "left_to_right"}
ADAPTERS = {"on": "both", "rank": 3}


def in_blocks(size):
    return {"objective": {"kind": "block_diffusion", "block": size}}


def exp_of(**change):
    return sw.Experiment(
        title="held",
        rack={"stacks": 3, "blocks_per_stack": 2, "d_model": 16, "heads": 2},
        curriculum="right_to_left",
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 18 * 64},
        preserve={"consistency": 0.7, "distill": 0.4, "temperature": 2.0},
    ).replace(**change)


def parts_of(exp, number=1):
    """A rack, a stage and what it is held to; the rack has moved since by a known amount."""
    stage = sw.stages(exp)[number]
    rack = sw.Rack(exp.rack, exp.attention, 256)
    for stack in stage.path:
        if stack not in rack.stacks:
            rack.add(stack)
    torch.manual_seed(0)
    for p in rack.parameters():
        p.data.normal_(0, 0.2)
    for adapter in stage.adapters or ():
        put_on(rack.stacks[adapter.stack], adapter, generator=torch.Generator().manual_seed(0))
        for _, p in adapter_parameters(rack.stacks[adapter.stack]):
            p.data.normal_(0, 0.2)
    old = copy.deepcopy(rack)
    held = holding_of(rack, stage, causal=False)
    named = freeze_all_but(rack.parts(), stage)
    with torch.no_grad():
        for p in named.values():
            p.add_(torch.randn_like(p), alpha=0.05)
    return rack, stage, held, old, named


def setting(rack, stage, held, **change):
    return setting_of(
        rack,
        stage,
        causal=False,
        micro_batch=None,
        checkpointing=False,
        compute=torch.float32,
        device=torch.device("cpu"),
        clip=None,
        holding=held,
        **change,
    )


def batch_of(exp):
    rule = sw.Corruption(objective=exp.objective, vocab=256, batch_size=4, seed=0)
    ids_BT = torch.randint(0, 256, (4, 16), generator=torch.Generator().manual_seed(1)).numpy()
    return sw.fixed_draws(rule, ids_BT)


def texts(noisy):
    """What is read by itself, how, and from where on it is looked at: in blocks, one by one."""
    if noisy.blocks is None:
        return [(noisy.input_BT, False, 0)]
    size, length = noisy.blocks.size, noisy.blocks.noisy
    noisy_BT, clean_BC = noisy.input_BT.split([length, noisy.blocks.clean], 1)
    found = [
        (torch.cat([clean_BC[:, :at], noisy_BT[:, at : at + size]], 1), at)
        for at in range(0, length, size)
    ]
    return [(ids, BlockCausal(size, 0, ids.shape[1]), at) for ids, at in (*found, (clean_BC, 0))]


def depths(rack, path, noisy):
    """What the embedding and each stack of a path put out, at all rows."""
    found, time_B = [], rack.time_of(noisy.input_BT, noisy.level_B)
    for ids_BT, how, at in texts(noisy):
        x_BTD = rack.embedding(ids_BT, start_of(how))
        out = [x_BTD[:, at:]]
        for stack in path:
            x_BTD = rack.stacks[stack](x_BTD, causal=how, time_B=time_B)
            out.append(x_BTD[:, at:])
        found.append(out)
    return [torch.cat(parts, 1) for parts in zip(*found, strict=True)]


def slow(rack, old, stage, noisy, preserve):
    """The same loss and terms, written out position by position."""
    now, first = depths(rack, stage.path, noisy), len(stage.path) - len(stage.before)
    was = [x_BTD.detach() for x_BTD in depths(old, stage.before, noisy)]
    total, positions = 0.0, noisy.positions
    if preserve.consistency:
        for x_D, e_D in zip(now[first].flatten(0, 1), was[0].flatten(0, 1), strict=True):
            far = ((x_D - e_D) ** 2).sum() / (e_D**2).sum()
            total = total + preserve.consistency * far / noisy.input_BT.numel()
    logits_NV = rack.logits(now[-1][noisy.counted_BT])
    old_NV = old.logits(was[-1][noisy.counted_BT]).detach()
    temperature = preserve.temperature
    for new, before, target, weight in zip(
        logits_NV, old_NV, noisy.target_N, noisy.weight_N, strict=True
    ):
        total = total + weight * F.cross_entropy(new, target) / positions
        p = F.softmax(before / temperature, -1)
        kl = (p * (p.log() - F.log_softmax(new / temperature, -1))).sum()
        total = total + preserve.distill * weight * temperature**2 * kl / positions
    return total


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({}, 1),
        ({}, 2),
        ({"preserve.distill": 0.0, "preserve.temperature": 1.0}, 1),
        ({"preserve.consistency": 0.0}, 1),
        ({"preserve.consistency": 0.0, "curriculum": "left_to_right"}, 2),
        ({"preserve.consistency": 0.0, "curriculum": "grow"}, 1),
        ({"rack.tied": False}, 2),
        ({"rack.time": "sinusoidal"}, 1),
        ({"adapters": ADAPTERS}, 2),
        (in_blocks(1), 1),
        (in_blocks(3), 2),
        ({**in_blocks(3), "adapters": ADAPTERS, "preserve.consistency": 0.0, **LEFT}, 2),
        ({**in_blocks(3), "rack.positions": "learned", "rack.max_positions": 16}, 1),
        ({**in_blocks(4), "preserve.consistency": 0.0, "curriculum": "left_to_right"}, 2),
        ({**in_blocks(4), "preserve.consistency": 0.0, "curriculum": "grow"}, 1),
    ],
)
def test_losses_and_gradients_are_those_of_a_slow_reading(change, number):
    exp = exp_of(**change)
    rack, stage, held, old, named = parts_of(exp, number)
    noisy = batch_of(exp)
    want = slow(rack, old, stage, noisy, stage.preserve)
    want_grads = torch.autograd.grad(want, named.values(), allow_unused=True)
    got = micro_loss(rack, noisy, setting(rack, stage, held), noisy.positions)
    grads = torch.autograd.grad(got, named.values(), allow_unused=True)
    assert float(got) == pytest.approx(float(want), rel=2e-5)
    for a, b in zip(grads, want_grads, strict=True):
        assert (a is None) == (b is None)
        if a is not None:  # float32 sums of a few thousand terms, in another order
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("change", [{}, in_blocks(3)], ids=["whole", "in blocks"])
def test_micro_batches_checkpoints_and_pieces_add_up(monkeypatch, change):
    exp = exp_of(**change)
    rack, stage, held, _, _ = parts_of(exp)
    noisy, positions = batch_of(exp), 64
    whole = micro_loss(rack, noisy, setting(rack, stage, held), positions)
    terms = held.take()
    assert set(terms) == {"loss", "distill", "consistency"}
    preserve = stage.preserve
    weighted = preserve.distill * terms["distill"] + preserve.consistency * terms["consistency"]
    assert float(whole) == pytest.approx(terms["loss"] + weighted, rel=1e-6)
    parts = [
        micro_loss(rack, part, setting(rack, stage, held), positions) for part in noisy.split(1)
    ]
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-5)
    assert held.take() == pytest.approx(terms, rel=1e-5)
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 5 * 256)  # five rows at a time
    assert int(noisy.counted_BT.sum()) > 5
    pieces = micro_loss(rack, noisy, setting(rack, stage, held), positions)
    assert float(pieces) == pytest.approx(float(whole), rel=1e-5)
    named = [p for p in rack.parameters() if p.requires_grad]
    for a, b in zip(
        torch.autograd.grad(pieces, named), torch.autograd.grad(whole, named), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 * float(b.abs().max()))


def test_terms_are_zero_where_nothing_has_moved():
    x_BTD = torch.randn(2, 3, 4)
    assert float(strayed(x_BTD, x_BTD.clone(), 6)) == 0.0
    assert float(strayed(2 * x_BTD, x_BTD, 6)) == pytest.approx(1.0)
    assert float(strayed(torch.zeros_like(x_BTD), x_BTD, 12)) == pytest.approx(0.5)
    logits_NV = torch.randn(5, 7)
    assert float(softened(logits_NV, logits_NV + 3.0, 2.0).abs().max()) < 1e-5
    two = softened(torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3), 0.0]]), 1.0)
    assert float(two) == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))


def test_softened_divergence_has_the_gradient_of_hinton():
    # d/dz of T^2 KL(p || softmax(z / T)) is T (softmax(z / T) - p).
    old_NV, new_NV = torch.randn(3, 5), torch.randn(3, 5, requires_grad=True)
    (grad,) = torch.autograd.grad(softened(old_NV, new_NV, 3.0).sum(), new_NV)
    want = 3.0 * (F.softmax(new_NV / 3, -1) - F.softmax(old_NV / 3, -1))
    torch.testing.assert_close(grad, want.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({}, 1),
        ({"curriculum": "left_to_right", "preserve.consistency": 0.0}, 2),
        (in_blocks(3), 1),
        ({**in_blocks(1), "curriculum": "left_to_right", "preserve.consistency": 0.0}, 2),
        ({"adapters": ADAPTERS}, 2),
        ({**in_blocks(3), "adapters": ADAPTERS}, 2),
    ],
)
def test_what_it_takes_is_in_the_ledger(change, number):
    exp = exp_of(**change)
    rack, stage, held, _, _ = parts_of(exp, number)
    noisy = batch_of(exp)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        micro_loss(rack, noisy, setting(rack, stage, held), 64).backward()
    cost = stage_flops_per_token(exp, stage)
    counted = int(noisy.counted_BT.sum())
    said = (cost.total - cost.head) * 64 + cost.head_per_position * counted
    assert said == pytest.approx(counter.get_total_flops(), rel=1e-12 if noisy.blocks else 0)
    free = stage_flops_per_token(exp, stage.model_copy(update={"preserve": None, "before": None}))
    assert cost.total > free.total  # the head before, if nothing else


def test_stages_have_the_terms_that_mean_something():
    first, *rest = sw.stages(exp_of())
    assert first.preserve is None
    for number, stage in enumerate(rest, start=1):
        assert stage.before == sw.stages(exp_of())[number - 1].path
        assert joint_of(stage) == 1
        assert copied_parts(stage) == {"embedding"}  # all else is frozen
        assert path_read(stage) == stage.before
    appended = sw.stages(exp_of(curriculum="left_to_right", preserve={"consistency": 0.0}))[2]
    assert appended.preserve.consistency == 0.0
    assert copied_parts(appended) == {"head"}
    assert path_read(appended) == ()  # its trunk is what the rack before is
    grown = sw.stages(exp_of(curriculum="grow", preserve={"consistency": 0.0}))[1]
    assert copied_parts(grown) == {"embedding", *grown.before, "head"}


def test_what_adapters_were_is_kept_and_counted():
    exp = exp_of(adapters=ADAPTERS)
    _, stage, held, _, _ = parts_of(exp, 2)
    assert copied_parts(stage) == {"embedding", "s1.adapter", "s2.adapter"} == {*held.state()}
    counted = held_copies(exp, stage, True).values()
    assert held.bytes == sum(trained_bytes(exp, tensors) for tensors in counted)
    alone = sw.stages(exp.replace(preserve={"distill": 0.0, "temperature": 1.0}))[2]
    assert copied_parts(alone) == {"embedding"}


REFUSED = {
    "preserve.consistency: 1.0 has a meaning in no stage of curriculum=left_to_right: it grows no "
    "stack at the left of a frozen suffix that the stage before ran; leave it at 0, or use "
    "right_to_left": {"curriculum": "left_to_right", "preserve": {"consistency": 1.0}},
    "preserve.distill: 0.5 has a meaning in no stage of curriculum=end_to_end: no stage comes "
    "before it; leave it at 0, or use left_to_right, right_to_left or grow": {
        "curriculum": "end_to_end",
        "preserve": {"distill": 0.5},
    },
    "preserve.distill: 0.5 has a meaning in no stage of curriculum=right_to_left: the stage before "
    "has met other noise, which its predictions are no target for; leave it at 0, or use "
    "left_to_right, right_to_left or grow": {
        "masking": {"bands": "equal_mass"},
        "preserve": {"distill": 0.5},
    },
}


@pytest.mark.parametrize("text", REFUSED)
def test_terms_without_a_meaning_are_refused(text):
    exp = exp_of(preserve={"consistency": 0.0, "distill": 0.0, "temperature": 1.0})
    with pytest.raises(ExperimentError) as error:
        sw.stages(exp.replace(**REFUSED[text]))
    assert str(error.value) == text


def test_a_temperature_that_nothing_reads_is_refused():
    with pytest.raises(ExperimentError, match=r"preserve\.temperature: 3\.0 .*distill=0"):
        exp_of(preserve={"consistency": 1.0, "distill": 0.0, "temperature": 3.0})


def test_a_curriculum_may_ask_by_itself(monkeypatch):
    def own(exp):
        yield sw.Stage(path=("s1",))
        yield sw.Stage(path=("s0", "s1"), active=("s0",), preserve={"consistency": 2.0})

    monkeypatch.setitem(sw.CURRICULA, "own", own)
    stage = sw.stages(exp_of(curriculum="own", preserve={"distill": 0, "temperature": 1}))[1]
    assert (stage.preserve.consistency, stage.before) == (2.0, ("s1",))

    def wrong(exp):
        yield sw.Stage(path=("s0",), preserve={"consistency": 2.0})

    monkeypatch.setitem(sw.CURRICULA, "own", wrong)
    with pytest.raises(ExperimentError, match=r"stages\[0\]\.preserve\.consistency: 2\.0, but no"):
        sw.stages(exp_of(curriculum="own", preserve={"distill": 0, "temperature": 1}))


def test_hashes_without_it_are_as_they_were():
    exp = exp_of(preserve={"consistency": 0.0, "distill": 0.0, "temperature": 1.0})
    assert "preserve" not in exp.identity()
    assert "preserve" not in sw.stages(exp)[1].identity()
    assert exp.hash != exp_of().hash
