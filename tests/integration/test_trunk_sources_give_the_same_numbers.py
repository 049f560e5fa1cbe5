"""A trunk in memory, read block by block, or read from a cache: the same losses to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import stackwise as sw
from stackwise.trunk.filling import SOURCES as SOURCES_OF_BLOCKS

SCIENCE = {
    "left_to_right": {"curriculum": "left_to_right"},
    "again": {"curriculum": "left_to_right", "data": {"restart": True}},
    "repeating": {
        "curriculum": "left_to_right",
        "data": {"corpus": {"kind": "markov", "size_bytes": 600}, "distinct_epochs": 1},
        "budget": {"tokens": 40 * 4 * 16},
    },
    "right_to_left": {"curriculum": "right_to_left", "masking": {"bands": "equal_mass"}},
    "a suffix of more blocks than slots": {
        "curriculum": "right_to_left",
        "masking": {"bands": "equal_mass"},
        "rack": {"blocks_per_stack": 2},
    },
    "cycling": {"curriculum": "block_coordinate"},
    "time as input": {
        "curriculum": "left_to_right",
        "rack": {"time": "sinusoidal", "time_width": 8},
        "data": {"restart": True},
    },
    "time as input, before a suffix": {
        "curriculum": "right_to_left",
        "rack": {"time": "learned", "time_width": 8, "spectral_norm": True, "frozen_up": True},
        "masking": {"bands": "equal_mass"},
    },
    "causal": {"curriculum": "left_to_right", "objective": "clm", "data": {"restart": True}},
}
SOURCES = {
    "streamed": {"trunk": "streamed"},
    "host": {"trunk": "streamed", "stream_from": "host"},
    "cached": {"trunk": "cached"},
}
NUMBERS = ["loss", "grad_norm", "flops", "masked_frac"]


def trained(exp: sw.Experiment, place: sw.Placement, **placement) -> sw.Run:
    """A run of its own, whatever was trained before."""
    return sw.train(exp, place.replace(**placement), rerun=True)


@pytest.fixture(scope="module")
def resident(tmp_path_factory) -> Callable[[sw.Experiment], sw.Run]:
    """A run whose trunk lies in memory, trained once for all that is held against it."""
    place = sw.Placement(device="cpu", micro_batch=2, runs_dir=str(tmp_path_factory.mktemp("all")))
    return lambda exp: sw.train(exp, place)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", SCIENCE)
def test_losses_and_weights_are_equal(tiny, place, resident, name, source) -> None:
    exp = tiny.replace(**SCIENCE[name])
    known, other = resident(exp), trained(exp, place, micro_batch=2, **SOURCES[source])
    assert other.metrics()[NUMBERS].equals(known.metrics()[NUMBERS])
    assert other.weights_hash() == known.weights_hash()
    assert other.result()["bits_per_byte"] == known.result()["bits_per_byte"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("frozen", ["bf16", "fp8", "int8", "nf4"])
def test_so_they_are_over_a_quantised_trunk_or_suffix(
    tiny, place, resident, frozen, source
) -> None:
    precision = {"frozen": frozen, "master": "fp32"}
    for curriculum in ("left_to_right", "block_coordinate"):
        exp = tiny.replace(curriculum=curriculum, rack={"d_model": 64}, precision=precision)
        known, other = resident(exp), trained(exp, place, micro_batch=2, **SOURCES[source])
        assert other.metrics()[NUMBERS].equals(known.metrics()[NUMBERS])
        assert other.weights_hash() == known.weights_hash()


@pytest.mark.parametrize("border", ["bfloat16", "fp8"])
def test_a_border_in_fewer_bits_is_rounded_alike_in_all_of_them(tiny, place, border) -> None:
    exp = tiny.replace(
        curriculum="left_to_right", precision={"border": border}, data={"restart": True}
    )
    plain = trained(exp.replace(precision={"border": "float32"}), place)
    resident = trained(exp, place)
    assert not resident.metrics()["loss"].equals(plain.metrics()["loss"])  # it does round
    for source in SOURCES.values():
        assert trained(exp, place, **source).metrics()[NUMBERS].equals(resident.metrics()[NUMBERS])


@pytest.mark.parametrize("source", ["disk", "host"])
def test_a_stream_comes_from_where_the_placement_says(tiny, place, source, monkeypatch) -> None:
    opened = set[str]()

    def noted(name, made):
        return lambda images, device: (opened.add(name), made(images, device))[1]

    for name, made in [*SOURCES_OF_BLOCKS.items()]:
        monkeypatch.setitem(SOURCES_OF_BLOCKS, name, noted(name, made))
    exp = tiny.replace(curriculum="left_to_right")
    trained(exp, place, trunk="streamed", stream_from=source)
    assert opened == {source}


def test_the_cache_of_a_stage_is_made_from_that_of_the_stage_before(tiny, place) -> None:
    exp = tiny.replace(curriculum="left_to_right", data={"restart": True})
    run = trained(exp, place, trunk="cached")
    made = run.events("cache_filled")
    assert [event["stage"] for event in made] == [1, 2, 3]
    assert [event["from_stage"] for event in made] == [None, 1, 2]
    assert not (run.path / "cache").exists()  # nothing is left of it at the end
