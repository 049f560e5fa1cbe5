"""Runs with consistency and distillation: what they change, what they keep, how they go on."""

import pytest
import torch

import stackwise as sw
from stackwise.stepping import Stepper
from stackwise.training.part_names import BEFORE

HELD = {"consistency": 1.0, "distill": 2.0, "temperature": 2.0}
DISTILLED = {"distill": 2.0}


def stop(work, numbers):
    if (work.at.stage, work.at.step) == (1, 1):
        work.stop_requested = True


def weights(run):
    return [p for p in run.rack().parameters()]


@pytest.mark.parametrize(
    ("change", "how"),
    [
        ({"curriculum": "right_to_left", "preserve": HELD}, {}),
        ({"curriculum": "right_to_left", "preserve": HELD}, {"trunk": "streamed"}),
        ({"curriculum": "grow", "preserve": DISTILLED}, {"micro_batch": 3}),
        (
            {"curriculum": "left_to_right", "preserve": DISTILLED, "eval.depths": "last"},
            {"trunk": "cached", "checkpointing": True},
        ),
        (
            {"curriculum": "right_to_left", "preserve": HELD, "adapters.on": "suffix"}
            | {"objective": {"kind": "block_diffusion", "block": 3}, "precision.frozen": "int8"},
            {"trunk": "streamed"},
        ),
        (
            {"curriculum": "right_to_left", "preserve": HELD, "precision.frozen": "int8"}
            | {"optim.grads": "in_backward", "optim.clip": None},
            {},
        ),
    ],
)
def test_it_goes_on_after_a_stop_to_the_same_weights(tiny, place, tmp_path, change, how):
    exp = tiny.replace(**change)
    whole = sw.train(exp, place.replace(**how))
    other = sw.Placement(runs_dir=str(tmp_path / "others"), device="cpu").replace(**how)
    parted = sw.train(exp, other, on_step=stop)
    names = [path.name for path in (parted.path / "state").iterdir()]
    held = sorted(name.split(".")[0] for name in names if f".{BEFORE}" in name)
    assert held, names
    parted = sw.resume(parted)
    for a, b in zip(weights(whole), weights(parted), strict=True):
        assert torch.equal(a, b)
    assert whole.metrics()["loss"].tolist() == parted.metrics()["loss"].tolist()
    assert not [path for path in parted.path.rglob(f"*.{BEFORE}*")]  # no longer than its stage
    said = whole.events("preserved")
    assert said
    terms = {"distill"} | ({"consistency"} if "consistency" in change["preserve"] else set())
    assert all(terms <= event.keys() for event in said)
    assert [e["distill"] for e in said] == [e["distill"] for e in parted.events("preserved")]


def test_weights_of_zero_change_no_bit(tiny, place, tmp_path):
    other = sw.Placement(runs_dir=str(tmp_path / "others"), device="cpu")
    plain = sw.train(tiny.replace(curriculum="right_to_left"), place)
    zero = {"consistency": 0.0, "distill": 0.0}
    held = sw.train(tiny.replace(curriculum="right_to_left", preserve=zero), other)
    assert held.id == plain.id
    for a, b in zip(weights(plain), weights(held), strict=True):
        assert torch.equal(a, b)
    assert not plain.events("preserved")


def test_a_large_weight_holds_what_is_held(tiny, place):
    """What drifts least is what is held most: predictions, or what goes into the suffix."""
    exp = tiny.replace(
        **{"curriculum": "right_to_left", "optim.lr": 0.03, "budget.tokens": 48 * 4 * 16}
    )
    loose = sw.train(exp, place).drift()
    tight = sw.train(exp.replace(preserve={"distill": 100.0}), place).drift()
    kept = sw.train(exp.replace(preserve={"consistency": 100.0}), place)
    assert tight["kl"].sum() < 0.5 * loose["kl"].sum()
    last = kept.statistics().query("block == 's0.0'").iloc[-1]
    added = (last["attention_rms"] ** 2 + last["ffn_rms"] ** 2) ** 0.5
    free = sw.attach(sw.train(exp, place).id, place.runs_dir)
    usual = free.statistics().query("block == 's0.0'").iloc[-1]
    assert added < 0.5 * (usual["attention_rms"] ** 2 + usual["ffn_rms"] ** 2) ** 0.5


@pytest.mark.parametrize(
    ("change", "preserve"),
    [
        ({"curriculum": "right_to_left"}, HELD),
        ({"curriculum": "grow"}, DISTILLED),
        ({"curriculum": "right_to_left", "rack.tied": False}, {"consistency": 1.0}),
        ({"curriculum": "right_to_left", "adapters": {"on": "suffix", "rank": 3}}, HELD),
    ],
)
def test_copies_are_in_the_plan_and_the_ledger(tiny, place, change, preserve):
    exp = tiny.replace(preserve=preserve, **change)
    run = sw.train(exp, place)
    for row, event in zip(run.plan(), run.events("memory"), strict=True):
        assert event["weights"] == row["bytes"]["weights"]
        if row["stage"]:
            assert row["bytes_by_part"]["before"]["weights"] > 0
    planned = sum(row["flops"] for row in run.plan())
    assert run.result()["flops"] == pytest.approx(planned, rel=0.1)  # by positions that counted
    plain = sw.plan(tiny.replace(**change), place)
    assert sum(row["peak_bytes"] for row in run.plan()) > plain.rows[0]["peak_bytes"]


def test_a_step_in_phases_says_what_it_is_held_to(tiny, place):
    exp, seen = tiny.replace(curriculum="right_to_left", preserve=HELD), []

    def noted(work, numbers):
        if work.at.stage == 1:
            seen.append((numbers.loss, dict(numbers.preserved)))

    run = sw.train(exp, place, on_step=noted)
    with Stepper(run, 1) as stepper:
        steps = [stepper.next_step() for _ in range(2)]
    for phases, (loss, terms) in zip(steps, seen, strict=False):
        told = {phase.name: phase for phase in phases}
        assert not told["suffix"].preserved
        assert (told["loss"].loss, dict(told["loss"].preserved)) == (loss, terms)
        assert told["loss"].words.endswith(
            " Added to it, to hold the stage to the rack before: 2 times the divergence from what "
            f"that rack predicts ({terms['distill']:.4g}) and 1 times how far from the embedding's "
            f"output what goes into the frozen suffix is ({terms['consistency']:.4g})."
        )
    (event, *_) = (e for e in run.events("memory") if e["stage"] == 1)
    assert told["batch"].memory["weights"] == event["weights"]


def test_compiled_blocks_are_held_too(tiny, place):
    exp = tiny.replace(curriculum="right_to_left", preserve=HELD)
    from stackwise.training.borders import enter_stage, setting_for
    from stackwise.training.opening import open_work
    from stackwise.training.run import train_stage
    from stackwise.training.start import create_run

    with open_work(create_run(exp, place.replace(compile=True))) as work:
        work.placement = work.placement.replace(compile=False)
        train_stage(work, 0, None)
        work.placement = work.placement.replace(compile=True)
        setting = setting_for(work, enter_stage(work, 1))
        # The suffix, which the term is about the input of, is a stretch of its own.
        assert setting.joint == 1
        assert len(setting.rest) == 2
