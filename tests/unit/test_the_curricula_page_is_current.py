"""docs/curricula.md says what the code says."""

from pathlib import Path

KEPT = Path(__file__).parents[2] / "docs" / "curricula.md"
PAGE = "curricula"


def test_the_page_is_what_the_code_makes(maker):
    assert KEPT.read_text("utf-8") == maker.page(), "write it again: python docs/curricula.py"


def test_every_option_says_what_it_does(maker):
    text = maker.page()
    assert "None" not in text
    for name in maker.CURRICULA:
        assert f"## `{name}`" in text
