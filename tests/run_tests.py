"""Chooses what pytest runs, and nothing else: how it runs stands in pyproject.toml and conftest.py.

With no flag: unit, integration and examples in one pytest, so that the coverage gate sees them all.
--browser needs Chromium, and runs one test after the other, since it counts the seconds of a page.
A folder that holds no test yet is left out. The exit code is pytest's.
"""

import argparse
import subprocess
import sys
from pathlib import Path

SUITES = ("unit", "integration", "examples")
ON_REQUEST = ("browser",)
NOTHING_TO_RUN: list[str] = []


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run the tests; with no flag, all but notebooks and browser."
    )
    for suite in SUITES + ON_REQUEST:
        parser.add_argument(f"--{suite}", action="store_true", help=f"run tests/{suite}")
    parser.add_argument("--notebooks", action="store_true", help="execute notebooks/*.ipynb")
    parser.add_argument("--verbose", action="store_true", help="name every test")
    return parser.parse_args(argv)


def pytest_arguments(chosen: argparse.Namespace, root: Path) -> list[str]:
    """What follows `python -m pytest`; empty when what was chosen holds no test."""
    suites = [suite for suite in SUITES + ON_REQUEST if getattr(chosen, suite)]
    everything = not suites and not chosen.notebooks
    folders = [root / "tests" / suite for suite in (SUITES if everything else suites)]
    folders = [folder for folder in folders if any(folder.rglob("test_*.py"))]
    notebooks = sorted((root / "notebooks").glob("*.ipynb")) if chosen.notebooks else []
    if not folders and not notebooks:
        return NOTHING_TO_RUN

    arguments = [str(path.relative_to(root)) for path in folders + notebooks]
    if folders and not chosen.browser:
        arguments += ["-n", "2", "--dist", "loadfile"]
    if everything:
        arguments += ["--cov"]
    # Loading nbmake costs every pytest process a second: only where a notebook runs.
    arguments += ["--nbmake"] if notebooks else ["-p", "no:nbmake"]
    if chosen.verbose:
        arguments += ["-v"]
    return arguments


def main(argv: list[str]) -> int:
    root = Path(__file__).resolve().parent.parent
    arguments = pytest_arguments(parse(argv), root)
    if arguments == NOTHING_TO_RUN:
        print("Nothing to run: what was chosen holds no test yet.")
        return 0
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=root).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
