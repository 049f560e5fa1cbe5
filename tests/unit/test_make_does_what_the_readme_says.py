"""The Makefile and .ci/run: what they call, and that a second call sets nothing up again."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from stackwise.cli import main

ROOT = Path(__file__).resolve().parents[2]

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


def would_do(clone: Path, target: str) -> list[str]:
    """The commands of a target, which are only printed; an outer make is not to be seen."""
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    call = ["make", "-n", target]
    done = subprocess.run(call, cwd=clone, capture_output=True, text=True, env=outside)
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
        f"{python} tests/run_tests.py --notebooks",
    ]


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


def test_ci_runs_make_test_in_the_clone_and_passes_its_exit_code_on(tmp_path) -> None:
    """With a make that only notes how it was called."""
    fake, noted = tmp_path / "bin" / "make", tmp_path / "noted"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$PWD" "$@" >> "{noted}"\nexit 7\n')
    fake.chmod(0o755)
    path = f"{fake.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / ".ci" / "run"], cwd=tmp_path, env={**os.environ, "PATH": path}, check=False
    )
    assert noted.read_text() == f"{ROOT} test\n"
    assert done.returncode == 7
