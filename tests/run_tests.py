"""Chooses what pytest runs, and nothing else: how it runs stands in pyproject.toml and conftest.py.

With no flag: all but notebooks and browser, integration first, since its files take longest.
--coverage holds what the unit tests cover against the gate, and runs them first: the many processes
of the others would take twice as long under it.
--browser needs Chromium, and runs one test after the other, since it counts the seconds of a page.
A folder that holds no test yet is left out. The exit code is that of the first pytest that fails.
"""

import argparse
import subprocess
import sys
from pathlib import Path

SUITES = ("integration", "examples", "unit")
ON_REQUEST = ("browser",)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run the tests; with no flag, all but notebooks and browser."
    )
    for suite in SUITES + ON_REQUEST:
        parser.add_argument(f"--{suite}", action="store_true", help=f"run tests/{suite}")
    parser.add_argument("--notebooks", action="store_true", help="execute notebooks/*.ipynb")
    parser.add_argument("--coverage", action="store_true", help="hold unit against the gate")
    parser.add_argument("--verbose", action="store_true", help="name every test")
    return parser.parse_args(argv)


def runs(chosen: argparse.Namespace, root: Path) -> list[list[str]]:
    """What follows each `python -m pytest`, one after the other; none if there is no test."""
    asked = [suite for suite in SUITES + ON_REQUEST if getattr(chosen, suite)]
    if not asked and not chosen.notebooks:
        asked = list(SUITES)
    found = []
    if chosen.coverage and "unit" in asked:
        asked.remove("unit")
        found.append(pytest_arguments(chosen, root, ["unit"], ["--cov"]))
    found.append(pytest_arguments(chosen, root, asked))
    return [arguments for arguments in found if arguments]


def pytest_arguments(
    chosen: argparse.Namespace, root: Path, suites: list[str], more: list[str] | None = None
) -> list[str]:
    """What follows `python -m pytest`; empty when what was chosen holds no test."""
    folders = [root / "tests" / suite for suite in suites]
    folders = [folder for folder in folders if any(folder.rglob("test_*.py"))]
    notebooks = sorted((root / "notebooks").glob("*.ipynb")) if chosen.notebooks else []
    if not folders and not notebooks:
        return []

    arguments = [str(path.relative_to(root)) for path in folders + notebooks]
    if not chosen.browser:
        # Two cores have work for three: many a test waits for a process or the disk. In their
        # order: files of few tests, which come last else, are those that take longest.
        arguments += ["-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"]
    arguments += more or []
    # Loading nbmake costs every pytest process a second: only where a notebook runs.
    arguments += ["--nbmake"] if notebooks else ["-p", "no:nbmake"]
    if chosen.verbose:
        arguments += ["-v"]
    return arguments


def main(argv: list[str]) -> int:
    root = Path(__file__).resolve().parent.parent
    found = runs(parse(argv), root)
    if not found:
        print("Nothing to run: what was chosen holds no test yet.")
    codes = [
        subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=root).returncode
        for arguments in found
    ]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
