"""README names the tests that need a card, and where there is none they are skipped, saying so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
REASON = "no CUDA card here"


def files() -> set[str]:
    """The files that hold tests for a card."""
    return {
        str(path.relative_to(ROOT))
        for path in TESTS.rglob("test_*.py")
        if path != Path(__file__) and "pytest.mark.card" in path.read_text("utf-8")
    }


def test_readme_names_each_file_and_says_what_has_run() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    (part,) = re.findall(r"^### GPU\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"`(tests/\S+\.py)`", part)) == files()
    assert "has run on CUDA" in part and "-m card" in part


def test_each_is_skipped_with_a_reason_that_is_printed() -> None:
    """By pytest's own report, as `make test` prints it."""
    words = [sys.executable, "-m", "pytest", "-q", "-m", "card", "-p", "no:cacheprovider"]
    done = subprocess.run([*words, *sorted(files())], cwd=ROOT, capture_output=True, text=True)
    said = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    if torch.cuda.is_available():
        assert not any(REASON in line for line in said), done.stdout
        return
    assert done.returncode == 0, done.stdout
    assert said and all(line.endswith(REASON) for line in said), done.stdout
    assert {name for name in files() for line in said if name in line} == files()
    assert not re.search(r"\d passed", done.stdout)
