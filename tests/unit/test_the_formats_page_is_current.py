"""docs/formats.md says what the code says, and what integration says of the same errors."""

import re
from pathlib import Path

import pytest

import stackwise as sw

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "formats"
AGAIN = "write it again: python docs/formats.py"
NUMBER = re.compile(r"\d[\d.,]*")


def test_the_page_is_what_the_code_makes(maker):
    """Text to the letter; in tables a measured number may round its last digit otherwise.

    That is a tenth of two digits, or a tenth of a per cent; another processor may do it.
    """
    kept, made = (DOCS / "formats.md").read_text("utf-8").splitlines(), maker.page().splitlines()
    assert [NUMBER.sub("#", line) for line in kept] == [NUMBER.sub("#", line) for line in made]
    for line, wanted in zip(kept, made, strict=True):
        if not line.startswith("|"):
            assert line == wanted, AGAIN
        least = 0.101 if "%" in line else 0
        assert numbers(line) == pytest.approx(numbers(wanted), rel=0.1, abs=least), AGAIN
    rows = [line.split("|")[2:4] for line in maker.errors().splitlines()[2:]]
    text = "\n".join(kept)
    assert all(f"|{'|'.join(cells)}|" in text for cells in rows), AGAIN


def numbers(line):
    return [float(number.rstrip(".,").replace(",", "")) for number in NUMBER.findall(line)]


def test_the_page_knows_every_format_that_loses_something(maker):
    assert maker.FORMATS.keys() - maker.LOSSY.keys() == {"fp32"}
    for made in (maker.errors(), maker.kept()):
        assert [line.split("`")[1] for line in made.splitlines()[2:]] == list(maker.LOSSY)


def test_an_experiment_may_freeze_to_each_of_them(maker):
    exp = sw.Experiment.preset("toy")
    chosen = [exp.replace(precision={"frozen": name}).precision.frozen for name in maker.LOSSY]
    assert chosen == list(maker.LOSSY)


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8", "int8", "nf4", "fp4"])
def test_the_error_is_the_one_that_integration_gives(maker, name):
    """A million weights: their mean square error is known to 0.2 %, one row's scale to less."""
    weight_OI = maker.weights()
    found = maker.rms(maker.through(name, weight_OI) - weight_OI) / maker.rms(weight_OI)
    assert found == pytest.approx(maker.expected(name), rel=0.01)


def test_nf4_forgets_small_updates_and_that_is_why_masters_exist(maker):
    """The largest of each block of 64 takes its update whole: 1/64 is what a small one leaves."""
    start_OI = maker.weights()
    frozen_OI = maker.through("nf4", start_OI)
    drawn_OI = start_OI.flip(0)  # another independent draw of the same law
    small, large = (maker.share_kept("nf4", frozen_OI, size * drawn_OI) for size in (0.003, 0.03))
    assert small == pytest.approx(1 / 64, rel=0.1)
    assert small < large < 0.04
    bf16_OI = maker.through("bf16", start_OI)
    assert maker.share_kept("bf16", bf16_OI, 0.03 * drawn_OI) > 0.95
