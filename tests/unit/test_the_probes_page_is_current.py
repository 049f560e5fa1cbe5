"""docs/probes.md says what the code says."""

from pathlib import Path

from stackwise.runs.statistics import NUMBERS, OF_SITE, SITES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "probes"
AGAIN = "write it again: python docs/probes.py"


def test_the_page_is_what_the_code_makes(maker):
    assert (DOCS / "probes.md").read_text("utf-8") == maker.page(), AGAIN


def test_every_number_has_a_formula(maker):
    said = {f"{site}_{name}" for site in SITES for name in maker.SITE_SAID} | {*maker.OTHERS_SAID}
    assert said == set(NUMBERS)
    assert set(maker.SITE_SAID) == set(OF_SITE)
