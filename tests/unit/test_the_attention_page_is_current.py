"""docs/attention.md says what the code says."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "attention"
AGAIN = "write it again: python docs/attention.py"
NUMBER = re.compile(r"[\d.,]*\d")


def test_the_page_is_what_the_code_makes(maker):
    kept, made = (DOCS / "attention.md").read_text("utf-8"), maker.page()
    assert maker.costs() in kept, AGAIN
    assert NUMBER.sub("#", kept) == NUMBER.sub("#", made), AGAIN
    # The errors are rounded to two digits: another processor may round the last one otherwise.
    numbers = [[float(n.replace(",", "")) for n in NUMBER.findall(text)] for text in (kept, made)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.1), AGAIN


def test_the_page_knows_every_kind(maker):
    assert {line.split("`")[1] for line in maker.costs().splitlines()[2:]} == set(maker.ATTENTION)


def test_the_default_gain_is_where_the_error_is_still_small(maker):
    """Why it is 0.5: a third is lost there, and over 0.75 nothing is left."""
    outputs = {std: maker.error(std)[0] for std in (0.25, 0.5, 0.75)}
    assert outputs[0.25] < 0.1 < outputs[0.5] < 0.5 and outputs[0.75] > 1
    assert maker.Kernel().gain == 0.5
