"""The Makefile and .ci/run: what they call, and that a second call sets nothing up again."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from stackwise.cli import main

ROOT = Path(__file__).resolve().parents[2]
TEST = "make test COVERAGE=1"
OF_MAKE = ("MAKE", "MFLAGS", "COVERAGE", "RUN", "CHECK")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def clone(tmp_path) -> Path:
    """What make looks at, with an environment that is newer than what it was made from."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
        os.utime(tmp_path / name, (1_000, 1_000))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".ready").touch()
    os.utime(tmp_path / ".venv" / ".ready", (2_000, 2_000))
    return tmp_path


def would_do(clone: Path, *call: str) -> list[str]:
    """The commands of a target, which are only printed; an outer make is not to be seen."""
    outside = {k: v for k, v in os.environ.items() if not k.startswith(OF_MAKE)}
    done = subprocess.run(
        ["make", "-n", *call], cwd=clone, capture_output=True, text=True, env=outside
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def sets_up(commands: list[str]) -> bool:
    return any("pip install" in line or "-m venv" in line for line in commands)


@pytest.mark.parametrize("target", ["test", "demo", "lab", "env"])
def test_nothing_is_installed_again_when_nothing_changed(clone, target) -> None:
    assert not sets_up(would_do(clone, target))
    assert not sets_up(would_do(clone, target))


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", ".venv/.ready"])
@pytest.mark.parametrize("target", ["test", "demo", "lab"])
def test_a_fresh_clone_and_changed_pins_are_set_up_once(clone, target, name) -> None:
    if name == ".venv/.ready":
        (clone / name).unlink()
    else:
        os.utime(clone / name, (3_000, 3_000))
    commands = would_do(clone, target)
    assert sum("pip install" in line for line in commands) == 1


def test_make_test_covers_style_types_tests_and_notebooks(clone) -> None:
    python = ".venv/bin/python"
    assert would_do(clone, "test") == [
        f"{python} -m ruff format --check .",
        f"{python} -m ruff check .",
        f"{python} -m mypy",
        f"{python} tests/run_tests.py",
    ]
    assert f"{python} tests/run_tests.py --coverage" in would_do(clone, "test", "COVERAGE=1")


def test_figures_are_made_and_told_and_a_check_writes_nothing(clone) -> None:
    python = ".venv/bin/python"
    made = [line.split() for line in would_do(clone, "figures")]
    assert made == [[python, "studies/figures.py"], [python, "docs/results.py"]]
    (trained, _) = would_do(clone, "figures", "RUN=1")
    assert trained.split() == [python, "studies/figures.py", "--run"]
    (checked,) = would_do(clone, "figures", "CHECK=1")
    assert checked.split() == [python, "studies/figures.py", "--check"]


def test_the_demo_and_the_lab_are_those_of_the_program(clone) -> None:
    assert would_do(clone, "demo") == [".venv/bin/stackwise demo"]
    assert would_do(clone, "lab") == [".venv/bin/stackwise lab"]


def test_the_lab_answers_this_machine_alone_and_asks_for_its_token(monkeypatch) -> None:
    """Jupyter makes a token by itself unless it is told otherwise."""
    called: list[list[str]] = []
    monkeypatch.setattr("subprocess.call", lambda command: called.append(command) or 0)
    assert main(["lab"]) == 0
    (command,) = called
    assert "--ServerApp.ip=127.0.0.1" in command
    assert not [word for word in command if "token" in word or "password" in word]


class Machine:
    """A PATH with a few tools and nothing else: what is called is only noted, one line a call."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.noted = folder / "bin", folder / "noted"
        self.bin.mkdir()
        self.noted.touch()
        for tool in ("bash", "dirname", "env"):
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)
        self.has("make")
        self.has("apt-get")
        self.has("id", "echo 0")
        self.has("fc-list", "echo DejaVu Sans")
        self.has("chromium")

    def has(self, tool: str, body: str = "") -> None:
        """A tool that notes its call and then does this."""
        note = "" if tool in ("id", "fc-list") else f'echo "{tool} $*" >> "{self.noted}"\n'
        (self.bin / tool).write_text(f"#!/bin/sh\n{note}{body}\n")
        (self.bin / tool).chmod(0o755)

    def lacks(self, *tools: str) -> None:
        for tool in tools:
            (self.bin / tool).unlink()

    def run_ci(self, **environment: str) -> tuple[int, str]:
        """The exit code of .ci/run, and what it complains of."""
        done = subprocess.run(
            [ROOT / ".ci" / "run"],
            cwd=self.bin,
            env={"PATH": str(self.bin), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stderr

    @property
    def calls(self) -> list[str]:
        return self.noted.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_make_browser_runs_the_browser_tests_and_make_test_does_not(clone) -> None:
    assert would_do(clone, "browser") == [".venv/bin/python tests/run_tests.py --browser"]
    assert not [line for line in would_do(clone, "test") if "browser" in line]


def test_ci_runs_both_in_the_clone_and_installs_nothing_that_is_there(machine: Machine) -> None:
    machine.has("make", f'echo "in $PWD" >> "{machine.noted}"')
    assert machine.run_ci(CI="true") == (0, "")
    assert machine.calls == [TEST, f"in {ROOT}", "make browser", f"in {ROOT}"]


@pytest.mark.parametrize("target", ["test", "browser"])
def test_ci_passes_the_exit_code_on(machine: Machine, target: str) -> None:
    machine.has("make", f'[ "$1" != {target} ] || exit 7')
    assert machine.run_ci(CI="true")[0] == 7


def test_ci_installs_a_browser_and_a_font_on_a_new_machine(machine: Machine) -> None:
    machine.lacks("chromium")
    machine.has("fc-list")
    assert machine.run_ci(CI="true") == (0, "")
    update, install, *rest = machine.calls
    assert update.endswith(" update")
    assert install.endswith(
        " install --yes --no-install-recommends chromium fontconfig fonts-dejavu-core"
    )
    assert rest == [TEST, "make browser"]


def test_ci_asks_sudo_only_of_who_is_not_root(machine: Machine) -> None:
    machine.lacks("chromium")
    machine.has("id", "echo 1000")
    machine.has("sudo", '[ "$1" = -n ] || "$@"')
    assert machine.run_ci(CI="true") == (0, "")
    assert [call.split()[0] for call in machine.calls] == [
        *["sudo"] * 2,  # may I; update
        "apt-get",
        "sudo",
        "apt-get",
        *["make"] * 2,
    ]


@pytest.mark.parametrize(
    ("why", "says"),
    [
        ("no apt", "no apt-get"),
        ("no root", "neither root nor sudo"),
        ("not found", "could not be installed"),
    ],
)
def test_ci_fails_without_a_browser_and_a_person_goes_on(
    machine: Machine, why: str, says: str
) -> None:
    machine.lacks("chromium")
    if why == "no apt":
        machine.lacks("apt-get")
    elif why == "no root":
        machine.has("id", "echo 1000")
    else:
        machine.has("apt-get", "exit 100")
    code, complaint = machine.run_ci(CI="true")
    assert code == 1
    assert says in complaint
    assert "The browser tests need chromium, which could not be installed." in complaint
    assert not [call for call in machine.calls if call.startswith("make test")]

    code, complaint = machine.run_ci()
    assert code == 0
    assert says in complaint
    assert machine.calls[-2:] == [TEST, "make browser"]
