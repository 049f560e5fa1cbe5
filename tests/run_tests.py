"""Chooses what pytest runs, and nothing else: how it runs stands in pyproject.toml and conftest.py.

With no flag: all but the browser, what takes longest first.
--coverage holds what the unit tests cover against the gate, and runs them first: the many processes
of the others would take twice as long under it.
--browser needs Chromium, and runs one test after the other, since it counts the seconds of a page.
A folder that holds no test yet is left out. The exit code is that of the first pytest that fails.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SUITES = ("notebooks", "fuzz", "integration", "examples", "unit")
ON_REQUEST = ("browser",)
# Two cores have work for three: many a test waits for a process or the disk. In their order: files
# of few tests, which come last else, are those that take longest.
SIDE_BY_SIDE = ["-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"]


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run the tests; with no flag, all but those of the browser."
    )
    for suite in SUITES + ON_REQUEST:
        parser.add_argument(f"--{suite}", action="store_true", help=f"run {suite}")
    parser.add_argument("--coverage", action="store_true", help="hold unit against the gate")
    parser.add_argument("--verbose", action="store_true", help="name every test")
    return parser.parse_args(argv)


def runs(chosen: argparse.Namespace, root: Path) -> list[list[str]]:
    """What follows each `python -m pytest`, one after the other; none if there is no test."""
    asked = [suite for suite in SUITES + ON_REQUEST if getattr(chosen, suite)] or list(SUITES)
    rest = [suite for suite in asked if not (chosen.coverage and suite == "unit")]
    found = [] if rest == asked else [pytest_arguments(root, ["unit"], ["--cov"])]
    found.append(pytest_arguments(root, rest))
    more = ["-v"] if chosen.verbose else []
    return [[*arguments, *more] for arguments in found if arguments]


def pytest_arguments(root: Path, suites: Sequence[str], more: Sequence[str] = ()) -> list[str]:
    """What follows `python -m pytest`; empty when what was chosen holds no test."""
    found = [path for suite in suites for path in tests_of(suite, root)]
    if not found:
        return []
    # Loading nbmake costs every pytest process a second: only where a notebook runs.
    executes = any(path.suffix == ".ipynb" for path in found)
    nbmake = ["--nbmake"] if executes else ["-p", "no:nbmake"]
    side_by_side = [] if "browser" in suites else SIDE_BY_SIDE
    return [*(str(path.relative_to(root)) for path in found), *side_by_side, *more, *nbmake]


def tests_of(suite: str, root: Path) -> list[Path]:
    """The folder of a suite, if a test is in it; each notebook by itself."""
    if suite == "notebooks":
        return sorted((root / suite).glob("*.ipynb"))
    folder = root / "tests" / suite
    return [folder] if any(folder.rglob("test_*.py")) else []


def main(argv: list[str]) -> int:
    root = Path(__file__).resolve().parent.parent
    found = runs(parse(argv), root)
    if not found:
        print("Nothing to run: what was chosen holds no test yet.")
    # Some hundred processes would compile this package, and three workers the tests, each time.
    given = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    codes = [
        subprocess.run([sys.executable, "-m", "pytest", *each], cwd=root, env=given).returncode
        for each in found
    ]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
