"""`probe_flops` against torch's counter: every look at held-out text, and the end of a run.

With torch's plain attention, since its counter is blind to the fused one.
"""

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import stackwise as sw
from stackwise.training import watch
from stackwise.training.opening import open_work
from stackwise.training.run import train_stage
from stackwise.training.start import create_run
from stackwise.training.watch import finish


def counted(work, measure):
    """What measuring costs by torch, and by the run's own count."""
    before = work.at.probe_flops
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        measure()
    return counter.get_total_flops(), work.at.probe_flops - before


def check(exp, place, monkeypatch):
    looks, look = [], watch.look
    monkeypatch.setattr(
        watch,
        "look",
        lambda work, trainee: looks.append(counted(work, lambda: look(work, trainee))),
    )
    with open_work(create_run(exp, place)) as work:
        for number in range(len(work.stages)):
            train_stage(work, number, None)
        by_torch, by_run = counted(work, lambda: finish(work))
    assert looks and all(run == torch for torch, run in looks)
    assert by_run == by_torch


def test_looks_and_the_end_of_every_curriculum(arm, place, monkeypatch):
    check(arm.replace(**{"eval.draws": 3}), place, monkeypatch)


@pytest.mark.parametrize("attention", ["mha", "kernel"])
def test_an_exact_likelihood(tiny, place, monkeypatch, attention):
    check(tiny.replace(objective="clm", attention=attention), place, monkeypatch)


@pytest.mark.parametrize("block", [1, 4])
def test_blocks_of_text(tiny, place, monkeypatch, block):
    """Sizes for which rows per token, 31/16 and 28/16, are exact in binary."""
    objective = {"kind": "block_diffusion", "block": block}
    exp = tiny.replace(objective=objective, curriculum="left_to_right")
    check(exp if block == 1 else exp.replace(**{"eval.draws": 3}), place, monkeypatch)


@pytest.mark.parametrize(
    "objective", ["diffusion", "clm", {"kind": "block_diffusion", "block": 4}], ids=str
)
def test_what_stacks_carry(tiny, place, monkeypatch, objective):
    exp = tiny.replace(curriculum="right_to_left", adapters={"on": "suffix", "rank": 3})
    check(exp.replace(objective=objective), place, monkeypatch)


@pytest.mark.parametrize("objective", ["diffusion", "clm"])
def test_a_stack_that_the_last_path_leaves_out(tiny, place, monkeypatch, objective):
    def shorter(exp):
        yield sw.Stage(path=("s0", "s1", "s2"))
        yield sw.Stage(path=("s1", "s2"), active=("s1",))

    monkeypatch.setitem(sw.CURRICULA, "shorter", shorter)
    check(tiny.replace(curriculum="shorter", objective=objective), place, monkeypatch)
