"""What a run asks of a CUDA card, by stand-ins: the calls, though nothing runs on one here.

That the numbers are right there is for `test_the_step_on_a_card.py` and its like, where one is.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from stackwise.config import Experiment, Optim, Placement
from stackwise.curriculum import stages
from stackwise.errors import ExperimentError
from stackwise.memory import bytes as ledger
from stackwise.memory import meter, room
from stackwise.objective import Corrupted
from stackwise.report import bytes_text
from stackwise.training import run as loop
from stackwise.training import step, updates
from stackwise.training.optim import Optimizer

CARD, HERE = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def allocator(monkeypatch) -> SimpleNamespace:
    """Stands in for CUDA's: bytes that are held, and the most since its mark was set back."""
    held = SimpleNamespace(now=100, most=100, reserved=500)
    monkeypatch.setattr(meter, "warm_up", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: held.now)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: held.most)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: held.reserved)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: held.reserved)
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda: setattr(held, "most", held.now)
    )
    return held


def test_the_peak_is_its_allocators_above_what_was_held_before(allocator) -> None:
    measured = meter.Meter(CARD)
    measured.note()
    assert measured.blind is None and measured.peak == measured.resident == 0
    allocator.most, allocator.now, allocator.reserved = 350, 180, 900
    with measured.step(1, last=True):
        assert measured.peak == 0  # every step counts, not this one alone
    measured.note()
    assert (measured.peak, measured.resident) == (250, 400)
    measured.restart()
    measured.note()
    assert measured.peak == 250
    measured.begin()
    measured.note()
    assert measured.peak == 80
    allocator.now = allocator.most = 40
    measured.begin()
    measured.note()
    assert measured.peak == 0


def test_what_does_not_fit_into_all_of_its_memory_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(room, "on_card", lambda placement: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 40 << 30))  # free, and in all
    monkeypatch.setattr(room, "machine_bytes", lambda: 1)
    room.check_room([{"peak_bytes": 40 << 30, "host_bytes": 0}], Placement())
    with pytest.raises(ExperimentError, match=r"and this card has 40\.0 GiB; make"):
        room.check_room([{"peak_bytes": (40 << 30) + 1, "host_bytes": 0}], Placement())


@pytest.mark.parametrize(("form", "each"), [(None, 4), ("bf16", 2)])
def test_the_copy_that_it_streams_from_has_to_fit_its_machine(monkeypatch, form, each) -> None:
    """The matrices of three frozen stacks: of a block four of attention, three of the MLP."""
    monkeypatch.setattr(room, "on_card", lambda placement: True)
    monkeypatch.setattr(ledger, "on_card", lambda placement: placement.device != "cpu")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 40 << 30))
    rack = {"stacks": 4, "blocks_per_stack": 2, "d_model": 16, "heads": 2, "d_ff": 24}
    exp = Experiment(curriculum="left_to_right", rack=rack, precision={"frozen": form})
    host = Placement(trunk="streamed", stream_from="host")
    copy = each * 3 * 2 * (4 * 16 * 16 + 3 * 16 * 24)
    rows = ledger.plan_rows(exp, host, stages(exp))
    assert [row["host_bytes"] for row in rows] == [copy * n // 3 for n in range(4)]
    monkeypatch.setattr(room, "machine_bytes", lambda: copy)
    room.check_room(rows, host)
    monkeypatch.setattr(room, "machine_bytes", lambda: copy - 1)
    with pytest.raises(ExperimentError) as error:
        room.check_room(rows, host)
    assert str(error.value) == (
        f"placement.stream_from: 'host', whose copy takes {bytes_text(copy)} by arithmetic, and "
        f"this machine has {bytes_text(copy - 1)}; give stream_from=disk, or freeze to less with "
        "precision.frozen"
    )
    for placement in (host.replace(stream_from="disk"), host.replace(device="cpu"), Placement()):
        assert {row["host_bytes"] for row in ledger.plan_rows(exp, placement, stages(exp))} == {0}


def batch() -> Corrupted:
    ids_BT = torch.arange(6).view(2, 3)
    return Corrupted(ids_BT, ids_BT, ids_BT > 2, torch.ones(2), torch.ones(2), torch.ones(2, 3, 4))


@pytest.mark.parametrize(("device", "pinned"), [(CARD, True), (HERE, False)])
def test_batches_are_pinned_for_a_card_alone(monkeypatch, device, pinned) -> None:
    monkeypatch.setattr(Corrupted, "pinned", lambda batch: "pinned")
    given = batch()
    work = SimpleNamespace(
        at=SimpleNamespace(step=1),
        exp=SimpleNamespace(optim=SimpleNamespace(batch=2)),
        device=device,
        steps_of=lambda number: 3,
        noisy_batch=lambda number, step: given,
    )
    found = [loop.noisy_batch(work, 0, step) for step in (1, 2)]
    assert len(found) == 2 and all(each == "pinned" if pinned else each is given for each in found)


def test_all_of_a_batch_is_pinned_and_what_is_pinned_is_copied_meanwhile(monkeypatch) -> None:
    pinned, copied = set(), []

    def pin(tensor):
        copy = tensor.clone()
        pinned.add(id(copy))
        return copy

    def to(tensor, device, non_blocking):
        copied.append(non_blocking)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: id(tensor) in pinned)
    monkeypatch.setattr(torch.Tensor, "to", to)
    there = batch().pinned()
    assert len(pinned) == 6
    there.to(CARD)
    batch().to(CARD)
    assert copied == [True] * 6 + [False] * 6


def test_products_are_in_bfloat16_by_its_own_autocast(monkeypatch) -> None:
    asked = []

    def autocast(kind, dtype):
        asked.append((kind, dtype))
        return nullcontext()

    monkeypatch.setattr(torch, "autocast", autocast)
    for device in (CARD, HERE):
        with step.autocast(device, torch.bfloat16), step.autocast(device, torch.float32):
            pass
    assert asked == [("cuda", torch.bfloat16), ("cpu", torch.bfloat16)]


def test_adamw_is_the_fused_one_over_all_float32_tensors_at_once(monkeypatch) -> None:
    calls = []

    def adamw(weights, *states, **options):
        calls.append((len(weights), options["fused"], options["weight_decay"]))

    monkeypatch.setattr(updates, "adamw", adamw)
    shapes = [(3, 4), (4, 5), (6, 2), (7,), (8,)]
    named = {("s0", str(shape)): torch.nn.Parameter(torch.ones(shape)) for shape in shapes}
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter)
    Optimizer(Optim(weight_decay=0.1), named).step()
    assert calls == [(3, True, 0.1), (2, True, 0.0)]
