"""docs/sampling.md says what the code says."""

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "sampling"
AGAIN = "write it again: python docs/sampling.py"


def test_the_page_is_what_the_code_makes(maker):
    assert (DOCS / "sampling.md").read_text("utf-8") == maker.page(), AGAIN


def test_the_page_knows_every_sampler_and_what_is_to_be_said_of_it(maker):
    rows = [line.split(" | ") for line in maker.samplers().splitlines()[2:]]
    assert {row[0].split("`")[1] for row in rows} == set(maker.SAMPLERS)
    assert all(cell.strip(" |") for row in rows for cell in row), "no empty cell"


def test_many_steps_of_ancestral_cost_what_first_hitting_costs(maker):
    hitting = maker.read("first_hitting", None, False)
    assert 0.95 * hitting < maker.read("ancestral", 2048, False) <= hitting == maker.TOKENS
