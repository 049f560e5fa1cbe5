"""The gate over trunk sources passes what is right, and finds a trunk that gives other numbers."""

from __future__ import annotations

import pytest
import torch

from stackwise.planner.doctor import arms, sources
from stackwise.planner.doctor.reference import Keeps
from stackwise.trunk import filling


def rows_of(science, precision, tmp_path, device="cpu"):
    return sources.compared(science, precision, device, str(tmp_path))


@pytest.mark.parametrize("science", sources.SCIENCES)
def test_sources_and_plain_layers_give_the_same_bits(science, tmp_path) -> None:
    rows = rows_of(science, "nf4", tmp_path)
    names = ["plain layers", "from disk", "from host memory"]
    right = [row for row in rows if row["arm"] != sources.FAULT]
    assert [row["arm"] for row in right] == [*names, *(["cached"] if science == "trunk" else [])]
    for row in right:
        assert row["equal"] and row["losses"] == row["gradients"] == row["weights"] == 0
    if science == "suffix":
        found = sources.judged(rows, "cpu")
        assert found.state == "ok" and "are the same bits" in found.measured


def test_the_known_fault_begins_with_a_healthy_loss_and_is_found(tmp_path, monkeypatch) -> None:
    """A gradient that is read from a buffer in use is another each time; the first loss is not."""
    made = {}

    def kept(exp, place, kind=None):
        made[kind] = real(exp, place, kind)
        return made[kind]

    real = arms.arm
    monkeypatch.setattr(arms, "arm", kept)
    (fault,) = [r for r in rows_of("suffix", "nf4", tmp_path) if r["arm"] == sources.FAULT]
    assert fault["gradients"] > 0.1
    wrong, right = (made[kind].losses for kind in (Keeps, None))
    second = f"{sources.STEPS + 2} loss"  # of the first stage with a suffix: wrong from there on
    assert wrong[second] == right[second] and wrong.keys() == right.keys()


class Corrupted(filling.Disk):
    """A disk of which one byte in a block comes back otherwise."""

    def fill(self, slot, image) -> None:
        super().fill(slot, image)
        slot.buffer[image.tensors[0].at] ^= 64


def test_a_corrupted_trunk_fails(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(filling.SOURCES, "disk", Corrupted)
    found = sources.judged(rows_of("suffix", "nf4", tmp_path), "cpu")
    assert found.state == "failed"
    assert found.measured.startswith("suffix, nf4, from disk: losses off by ")
    assert "from host memory" not in found.measured
    assert "train with placement.trunk=recompute" in found.to_do


def test_a_gate_that_does_not_see_the_fault_says_that_it_cannot_be_trusted(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.delattr(Keeps, "forward")
    found = sources.judged(rows_of("suffix", "nf4", tmp_path), "cpu")
    assert found.state == "failed"
    assert found.measured == "the known fault is not found in suffix, nf4"
    assert found.means.startswith("this doctor cannot be trusted here")


def row(arm, off, **more):
    parts = dict.fromkeys(("losses", "gradients", "weights"), off)
    facts = {"science": "suffix", "precision": "nf4", "arm": arm, "equal": off == 0}
    return {**facts, **parts, **more}


@pytest.mark.parametrize(
    ("itself", "other", "fault", "state"),
    [
        (0.0, 0.0, 1.0, "ok"),
        (0.0, 1e-7, 1.0, "failed"),  # a card that repeats its bits has to give them here, too
        (1e-6, 1e-6, 1.0, "ok"),
        (1e-6, 2e-3, 1.0, "failed"),
        (1e-3, 9e-3, 1.0, "ok"),  # ten times what it is off by itself
        (1e-3, 2e-2, 1.0, "failed"),
        (1e-3, 0.0, 0.04, "failed"),  # a fault that would drown in it
        (0.0, float("nan"), 1.0, "failed"),
        (0.0, 0.0, float("nan"), "failed"),
    ],
)
def test_a_card_is_held_to_what_it_repeats(itself, other, fault, state) -> None:
    rows = [row(sources.AGAIN, itself), row("from disk", other), row(sources.FAULT, fault)]
    found = sources.judged(rows, "cuda")
    assert found.state == state
    if state == "ok":
        assert ("this card repeats no bits" in found.measured) is (itself > 0)


def test_precisions_without_their_package_are_named(visit, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(
        "stackwise.model.formats.lacking", lambda: "needs bitsandbytes, which is not installed"
    )
    monkeypatch.setattr(sources, "PRECISIONS", dict([*sources.PRECISIONS.items()][:2]))
    found = sources.trunk_sources(visit())
    assert found.state == "ok"
    assert found.measured.startswith("full precision: losses")
    assert "nf4 is not looked at: nf4 needs bitsandbytes, which is not installed" in found.measured


def test_arms_differ_where_one_has_more(tmp_path) -> None:
    one = arms.Arm(gradients={"2 w": torch.ones(2)})
    other = arms.Arm(gradients={"2 w": torch.ones(2), "3 w": torch.ones(2)})
    assert arms.difference(one, other)["gradients"] == float("inf")
    assert not arms.difference(one, other)["equal"]
    near = arms.Arm(gradients={"2 w": torch.tensor([1.0, 1.0 + 2**-23])})
    found = arms.difference(near, one)
    assert not found["equal"] and 0 < found["gradients"] < 2**-23


def test_every_gradient_after_a_stages_first_step_is_kept(tmp_path) -> None:
    exp = sources.experiment("suffix", "full precision")
    made = arms.arm(exp, sources_place(tmp_path))
    steps = {int(name.split()[0]) for name in made.gradients}
    assert steps == {*range(2, 10)}  # the embedding trains on: only the first of all is missing
    blocks = {int(n.split()[0]) for n in made.gradients if "stacks" in n}
    assert blocks == {2, 3, 5, 6, 8, 9}
    assert all(tensor.any() for tensor in made.gradients.values())


def sources_place(tmp_path):
    from stackwise.config import Placement

    return Placement(device="cpu", runs_dir=str(tmp_path))
