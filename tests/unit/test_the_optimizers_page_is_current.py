"""docs/optimizers.md says what the code says, of every optimizer."""

from pathlib import Path

PAGE = "optimizers"


def test_the_page_is_what_the_code_makes(maker):
    kept = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text("utf-8")
    assert kept == maker.page(), "write it again: python docs/optimizers.py"
    for name in maker.OPTIMIZERS:
        assert kept.count(f"`{name}`") >= 2, "a row and a sentence"
