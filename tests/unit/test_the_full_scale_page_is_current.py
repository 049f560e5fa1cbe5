"""docs/full_scale.md says what docs/full_scale.json has, and that is what was promised."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def maker() -> ModuleType:
    """What makes the page."""
    path = ROOT / "benchmarks" / "full_scale_record.py"
    spec = importlib.util.spec_from_file_location("full_scale_record", path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_page_has_the_records_figures() -> None:
    made = maker()
    records = json.loads(made.RECORD.read_text("utf-8"))
    assert made.DOCUMENT.read_text("utf-8") == made.page(records)
    assert "{" not in made.page(records)


def test_all_blocks_were_trained_within_the_bounds() -> None:
    found = json.loads(maker().RECORD.read_text("utf-8"))["seventy"]
    stages = found["stages"]
    assert [stage["stage"] for stage in stages] == list(range(81))
    assert all(len(stage["losses"]) >= 2 for stage in stages)
    assert all(math.isfinite(loss) for stage in stages for loss in stage["losses"])
    assert all(stage["frozen"] is not None for stage in stages[:80])
    assert math.isfinite(found["bits_per_byte"]) and len(found["depth_losses"]) == 81
    assert found["resident"] <= 16 * 2**30
    assert found["disk"] <= 45e9


def test_three_blocks_of_that_width_learned_one_after_the_other() -> None:
    """Ends fall from stage to stage, at every depth, below what frequencies of bytes give."""
    found = json.loads(maker().RECORD.read_text("utf-8"))["learn"]
    stages = found["stages"]
    assert len(stages) == 3 and all(len(stage["losses"]) >= 100 for stage in stages)
    ends = [stage["heldout"] for stage in stages]
    assert ends == sorted(set(ends), reverse=True)
    assert found["bits_per_byte"] < found["unigram_bits_per_byte"] < math.log2(256)
    assert all(abs(stage["frozen"] - stage["heldout"]) < 1e-3 for stage in stages[:-1])
    assert found["resident"] <= 16 * 2**30
