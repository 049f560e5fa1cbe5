"""tests/run_tests.py turns flags into pytest's arguments and hands back pytest's exit code."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "run_tests.py"

spec = importlib.util.spec_from_file_location("run_tests", SCRIPT)
assert spec is not None and spec.loader is not None
run_tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_tests)

IN_PARALLEL = ["-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"]
NO_NOTEBOOK = ["-p", "no:nbmake"]
NOTEBOOKS = ["notebooks/01_a.ipynb", "notebooks/02_b.ipynb"]
REST = ["tests/integration", "tests/examples"]


SIDE_BY_SIDE = f"SIDE_BY_SIDE = {IN_PARALLEL}".replace("'", '"')
ALONE = SCRIPT.read_text().replace(SIDE_BY_SIDE, "SIDE_BY_SIDE = []")  # one worker for one test
assert SCRIPT.read_text() != ALONE


def project(root: Path, *files: str, body: str = "def test_it(): pass\n") -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)
    return root


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """A project with a test in each folder, and two notebooks."""
    folders = ("unit", "integration", "examples", "browser")
    suites = [f"tests/{suite}/test_it.py" for suite in folders]
    return project(tmp_path, *suites, "notebooks/02_b.ipynb", "notebooks/01_a.ipynb")


def chosen(root: Path, *flags: str) -> list[list[str]]:
    return run_tests.runs(run_tests.parse(list(flags)), root)


def test_no_flag_runs_all_but_the_browser(complete: Path) -> None:
    assert chosen(complete) == [[*NOTEBOOKS, *REST, "tests/unit", *IN_PARALLEL, "--nbmake"]]


def test_coverage_is_that_of_unit_alone(complete: Path) -> None:
    unit = ["tests/unit", *IN_PARALLEL, "--cov", *NO_NOTEBOOK]
    assert chosen(complete, "--coverage") == [unit, [*NOTEBOOKS, *REST, *IN_PARALLEL, "--nbmake"]]
    assert chosen(complete, "--unit", "--coverage") == [unit]
    rest = [*REST, *IN_PARALLEL, *NO_NOTEBOOK]
    assert chosen(complete, "--integration", "--examples", "--coverage") == [rest]


def test_a_part_runs_alone(complete: Path) -> None:
    assert chosen(complete, "--unit") == [["tests/unit", *IN_PARALLEL, *NO_NOTEBOOK]]
    assert chosen(complete, "--integration", "--examples", "--verbose") == [
        [*REST, *IN_PARALLEL, *NO_NOTEBOOK, "-v"]
    ]


def test_notebooks_run_in_order_under_nbmake(complete: Path) -> None:
    assert chosen(complete, "--notebooks") == [[*NOTEBOOKS, *IN_PARALLEL, "--nbmake"]]


def test_the_browser_is_asked_for_and_nothing_runs_beside_it(complete: Path) -> None:
    assert chosen(complete, "--browser") == [["tests/browser", *NO_NOTEBOOK]]
    both = ["tests/unit", "tests/browser"]
    assert chosen(complete, "--unit", "--browser") == [[*both, *NO_NOTEBOOK]]


def test_a_folder_without_tests_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "tests/examples").mkdir(parents=True)
    root = project(tmp_path, "tests/unit/test_it.py", "tests/integration/notes.py")
    assert chosen(root) == [["tests/unit", *IN_PARALLEL, *NO_NOTEBOOK]]
    assert chosen(root, "--examples", "--notebooks", "--browser") == []


@pytest.mark.parametrize(
    ("flag", "exit_code"), [("--unit", 1), ("--integration", 5), ("--examples", 0), ("--bogus", 2)]
)
def test_the_exit_code_is_pytests(tmp_path: Path, flag: str, exit_code: int) -> None:
    root = project(tmp_path, "tests/unit/test_it.py", body="def test_it(): assert False\n")
    project(root, "tests/integration/test_none.py", body="")  # pytest's own 5: none was found
    (root / "tests/run_tests.py").write_text(ALONE)
    command = [sys.executable, "tests/run_tests.py", flag]
    assert subprocess.run(command, cwd=root, capture_output=True).returncode == exit_code


def test_the_rest_runs_all_the_same_after_a_failure(tmp_path: Path) -> None:
    root = project(tmp_path, "tests/unit/test_it.py", body="def test_it(): assert False\n")
    there = "def test_it(): open('there', 'w')\n"
    project(root, "tests/integration/test_that.py", body=there)
    (root / "tests/run_tests.py").write_text(ALONE)
    command = [sys.executable, "tests/run_tests.py", "--coverage"]
    assert subprocess.run(command, cwd=root, capture_output=True).returncode == 1
    assert (root / "there").exists()
