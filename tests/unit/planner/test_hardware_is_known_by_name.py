"""The table of machines, and what is said of a machine that is not in it."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.planner.hardware import CARDS, GIB, MOVED_BYTES, Card, from_card, hardware_called
from stackwise.training.updates import OPTIMIZERS

KNOWN = "h200, h100-80, a100-80, l40s-48, rtx-4090-24, this; or give a YAML file of a card"


def test_figures_that_were_seen_are_in_the_table() -> None:
    h200, h100 = sw.HARDWARE["h200"], sw.HARDWARE["h100-80"]
    assert h200.memory_bytes == 140.4 * GIB and h100.memory_bytes == 79.6 * GIB
    assert h200.matmul["bfloat16"][-1][1] == 790e12 and h100.matmul["bfloat16"][-1][1] == 798e12
    assert h200.memory_rate == 4.3e12 and h100.memory_rate == 3.0e12
    assert {h200.origin, h100.origin} == {"seen"}


@pytest.mark.parametrize("name", CARDS)
def test_every_card_says_where_its_figures_are_from(name) -> None:
    card = sw.HARDWARE[name]
    assert card.name == name and card.kind == "cuda" and card.host_bytes == 128e9
    assert card.origin in ("seen", "stated") and len(card.said.split()) > 3
    assert {key.split("/")[0] for key in card.optimizer} == set(OPTIMIZERS) == set(MOVED_BYTES)


def test_an_unknown_name_is_answered_with_the_closest_and_all() -> None:
    with pytest.raises(sw.ExperimentError) as error:
        hardware_called("h20")
    assert str(error.value) == f"--hardware: unknown 'h20'; did you mean 'h200'? known: {KNOWN}"


def test_host_memory_can_be_overridden() -> None:
    assert hardware_called("h200", host_bytes=5e11).host_bytes == 5e11
    with pytest.raises(sw.ExperimentError, match=r"--host-gb: 0 must be over 0"):
        hardware_called("h200", host_bytes=0)


def test_a_card_of_ones_own_comes_from_a_file(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("memory_gib: 12\nbf16_tflops: 40\nmemory_tbs: 0.4\nhost_gb: 32\n")
    mine = hardware_called(file)
    assert mine.name == "mine" and mine.origin == "stated" and mine.host_bytes == 32e9
    assert mine.memory_bytes == 12 * GIB and mine.matmul["bfloat16"][-1][1] == 40e12
    assert mine.matmul["float32"][-1][1] == 20e12
    assert mine.optimizer["adamw/float32/master"] == ((1.0, 0.4e12 / 28),)


def test_what_a_file_says_wrong_is_said_all_at_once(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("memory_gib: -1\nbf16_tflopz: 40\nmemory_tbs: 0.4\n")
    with pytest.raises(sw.ExperimentError) as error:
        hardware_called(file)
    text = str(error.value)
    assert "memory_gib: -1 must be over 0" in text
    assert "bf16_tflopz: unknown key; did you mean 'bf16_tflops'?" in text
    assert "bf16_tflops: is missing" in text
    with pytest.raises(sw.ExperimentError, match=r"nope\.yaml: no such file"):
        hardware_called(tmp_path / "nope.yaml")


def test_twice_the_bandwidth_halves_what_memory_decides() -> None:
    card = Card(memory_gib=1, bf16_tflops=100, memory_tbs=1.0)
    one, two = from_card("a", card), from_card("b", card.model_copy(update={"memory_tbs": 2.0}))
    for name in ("around", "loss", "optimizer", "passing", "dequantise"):
        for key, curve in getattr(one, name).items():
            assert getattr(two, name)[key][0][1] == pytest.approx(2 * curve[0][1])
    assert one.matmul == two.matmul and one.attention == two.attention
