"""docs/planning.md is what docs/planning.py makes of the code as it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_is_what_the_code_makes() -> None:
    spec = importlib.util.spec_from_file_location("planning", DOCS / "planning.py")
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    again = "run: python docs/planning.py"
    assert (DOCS / "planning.md").read_text("utf-8") == maker.page(), again
