"""docs/block_diffusion.md says what the code says."""

import re
from pathlib import Path

import pytest

import stackwise as sw

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "block_diffusion"
AGAIN = "write it again: python docs/block_diffusion.py"
NUMBER = re.compile(r"[\d.,]*\d")


@pytest.fixture(scope="module")
def made(maker):
    return maker.page()


def test_the_page_is_what_the_code_makes(made):
    kept = (DOCS / "block_diffusion.md").read_text("utf-8")
    assert NUMBER.sub("#", kept) == NUMBER.sub("#", made), AGAIN
    # Masks are whole numbers everywhere; a logarithm may round another last digit elsewhere.
    numbers = [[float(n.replace(",", "")) for n in NUMBER.findall(text)] for text in (kept, made)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.02), AGAIN


def test_a_constant_pays_log_v_for_every_size(made):
    lines = [line.split("|") for line in made.splitlines() if re.match(r"\| \d+ \| \d+ \|", line)]
    found = {int(cells[1]): (float(cells[4]), float(cells[6])) for cells in lines}
    assert len(found) == 8 and found[128][0] == 1 and found[1][1] == 1
    assert all(constant == pytest.approx(1, abs=0.02) for _, constant in found.values())


def test_its_example_is_an_experiment(maker):
    exp = sw.Experiment.from_yaml(maker.WARM_UP)
    assert [stage.block for stage in sw.stages(exp)] == [1, 4, 16, 128]
