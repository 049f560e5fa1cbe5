"""`paged_adamw8bit`: where its state lies, by a stand-in for the card's driver, and what is said.

That a card reads it there is for `test_the_step_on_a_card.py`, where one is.
"""

from __future__ import annotations

import ctypes
import gc
from types import SimpleNamespace

import pytest
import torch

import stackwise as sw
from stackwise.memory.stored import part_shapes
from stackwise.training import paged
from stackwise.training.placing import without_effect
from stackwise.training.start import create_run

CARD = torch.device("cuda", 0)


@pytest.fixture
def driver(monkeypatch) -> list[ctypes.Array]:
    """Hands out memory of the CPU, filled with rubbish; it is asked for a size and an address."""
    extension = pytest.importorskip("bitsandbytes.cextension")
    given: list[ctypes.Array] = []

    def managed(size: ctypes.c_size_t) -> int:
        given.append(ctypes.create_string_buffer(b"\xff" * size.value, size.value))
        return ctypes.addressof(given[-1])

    monkeypatch.setattr(extension, "lib", SimpleNamespace(cget_managed_ptr=managed))
    monkeypatch.setattr(paged, "_FREE", {})
    return given


def test_a_large_state_of_a_card_is_unified_memory_of_zeros(driver) -> None:
    found = paged.zeros((400, 250), torch.uint8, CARD)
    assert found.shape == (400, 250) and found.dtype == torch.uint8 and not found.any()
    assert [found.data_ptr()] == [ctypes.addressof(each) for each in driver]
    here = paged.zeros((400, 250), torch.uint8, torch.device("cpu"))
    assert not here.any() and len(driver) == 1


def test_memory_that_is_free_serves_the_next_state_of_its_size(driver) -> None:
    first, kept = paged.zeros((400, 250), torch.uint8, CARD), None
    place, kept = first.data_ptr(), first.view(-1)[7:].fill_(9)
    del first
    gc.collect()
    other = paged.zeros((100_000,), torch.uint8, CARD)
    assert other.data_ptr() != place, "a view of it is still there"
    assert bool((kept == 9).all()) and len(driver) == 2
    del kept
    gc.collect()
    again = paged.zeros((250, 400), torch.uint8, CARD)
    assert again.data_ptr() == place and not again.any() and len(driver) == 2
    more = [paged.zeros((100_000,), torch.uint8, CARD) for _ in range(2)]
    places = {each.data_ptr() for each in (*more, again, other)}
    assert len(places) == 4 and len(driver) == 4, "no two states share a piece"
    paged.zeros((100_001,), torch.uint8, CARD)
    assert len(driver) == 5


def test_the_plan_counts_it_with_the_host_of_a_card_and_with_the_memory_of_a_cpu() -> None:
    exp = sw.Experiment(
        rack={"stacks": 2, "blocks_per_stack": 1, "d_model": 256, "heads": 4},
        optim={"name": "paged_adamw8bit"},
        curriculum="left_to_right",
        budget={"tokens": 10**6},
    )
    plain = exp.replace(optim={"name": "adamw8bit"})
    for card in (False, True):
        pairs = zip(
            *(sw.plan_rows(e, sw.Placement(), sw.stages(e), card=card) for e in (exp, plain)),
            strict=True,
        )
        for stage, (row, same) in zip(sw.stages(exp), pairs, strict=True):
            shapes = part_shapes(exp, stage.active[0])
            sizes = [shape[0] * shape[1] for shape in shapes if len(shape) == 2]
            bytes_in_reach = 2 * sum(size for size in sizes if size >= 100_000)
            assert row["bytes"] == same["bytes"], "as many bytes, wherever they lie"
            moved = same["peak"]["optimizer"] - row["peak"]["optimizer"]
            assert moved == (bytes_in_reach if card else 0)
            assert row["host"].get("paged", 0) == moved
            assert bytes_in_reach > 2 * 500_000


def test_without_a_card_a_sentence_says_that_nothing_is_paged(tmp_path) -> None:
    exp = sw.Experiment(
        rack={"stacks": 1, "blocks_per_stack": 1, "d_model": 8, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 8},
        optim={"name": "paged_adamw8bit", "batch": 2},
        budget={"tokens": 160},
    )
    pytest.importorskip("bitsandbytes")
    place = sw.Placement(device="cpu", runs_dir=str(tmp_path))
    said = (
        "optim.name=paged_adamw8bit pages nothing without a card: the state lies in memory, as "
        "with adamw8bit"
    )
    assert create_run(exp, place).provenance()["notes"] == [said]
    other = exp.replace(optim={"name": "adamw8bit"})
    assert list(without_effect(other, place, sw.stages(other))) == []
