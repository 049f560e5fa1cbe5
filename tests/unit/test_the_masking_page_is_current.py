"""docs/masking.md says what the code says."""

import re
from pathlib import Path

import pytest

import stackwise as sw

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "masking"
AGAIN = "write it again: python docs/masking.py"
NUMBER = re.compile(r"[\d.,]*\d")


@pytest.fixture(scope="module")
def made(maker):
    return maker.page()


def test_the_page_is_what_the_code_makes(made):
    kept = (DOCS / "masking.md").read_text("utf-8")
    assert NUMBER.sub("#", kept) == NUMBER.sub("#", made), AGAIN
    # Masks are whole numbers everywhere; a logarithm may round another last digit elsewhere.
    numbers = [[float(n.replace(",", "")) for n in NUMBER.findall(text)] for text in (kept, made)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.02), AGAIN


def test_the_ranking_is_the_one_of_the_field(made):
    """std .0057 against .0390 at B 32, L 128 in the design's check of the linear schedule."""
    lines = [line for line in made.splitlines() if "±" in line]
    found = {line.split("`")[1]: float(line.split("±")[1].split()[0]) for line in lines}
    assert found["stratified_k"] == pytest.approx(0.0057, rel=0.25)
    assert found["iid"] == pytest.approx(0.0390, rel=0.25)
    assert found["stratified_k"] < found["antithetic"] < found["iid"]


def test_its_example_is_an_experiment(maker):
    exp = sw.Experiment.from_yaml(maker.CURRICULUM)
    assert [stage.seq_len for stage in sw.stages(exp)] == [32, 64, 128]
