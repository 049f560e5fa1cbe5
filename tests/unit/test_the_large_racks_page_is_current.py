"""docs/large_racks.md says what the arithmetic says, and its examples are experiments."""

from pathlib import Path

import pytest

import stackwise as sw

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "large_racks"


def test_the_page_is_what_the_code_makes(maker):
    kept = (DOCS / "large_racks.md").read_text("utf-8")
    assert kept == maker.page(), "write it again: python docs/large_racks.py"


def test_bytes_per_parameter_are_those_of_a_sum_by_hand(maker):
    """Of a block of 856 million: vectors, scales and the largest gradient are counted exactly."""
    rows = [line.split("|")[1:-1] for line in maker.training(maker.plain()).splitlines()[2:]]
    found = [float(row[-1]) for row in rows]
    share = 28672 * 8192 / 855_654_400  # the largest matrix of the block
    states = 1 + 4 / 256  # a byte, and a float32 scale for each 256 numbers
    assert found == pytest.approx(
        [
            4 + 4 + 8,
            2 + 2 + 2 + 8,
            2 + 2 + 2 + 2 * states,
            2 + 2 * share + 2 + 2 * states,
            2 + 2 * share + 2 * states,
            2 + 2 * share + states,
        ],
        abs=0.06,  # printed with one digit
    )


def test_every_format_of_frozen_stacks_has_its_row(maker):
    rows = maker.frozen(maker.plain()).splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(maker.FORMATS)


def test_the_examples_are_the_models_that_they_say(maker):
    texts = maker.examples((DOCS / "large_racks.md").read_text("utf-8"))
    (eight, _), (seventy, place) = (maker.settings(text) for text in texts)
    counts = [sw.count_parameters(exp.rack, exp.attention, 128_256) for exp in (eight, seventy)]
    assert counts == [8_030_261_248, 70_553_706_496]
    visits = [stage.active for stage in sw.stages(eight)]
    assert visits == [(f"s{i}",) for i in range(32)] * 2
    assert [stage.path[-1] for stage in sw.stages(seventy)] == [f"s{i}" for i in range(80)]
    assert place.trunk == "streamed" and seventy.precision.frozen == "nf4"
