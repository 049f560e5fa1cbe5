"""constraints.txt, environment.yml and pyproject.toml name the same packages and versions."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def files() -> dict[str, str]:
    names = ("constraints.txt", "environment.yml", "pyproject.toml")
    return {name: (ROOT / name).read_text() for name in names}


def pins(lines: list[str]) -> dict[str, str]:
    """Name to exact version; a line that is no pin (`-e .`, a comment) is passed over."""
    found = (re.fullmatch(r"([\w.-]+)==([\w.]+)", line.strip()) for line in lines)
    return {canonicalize_name(m[1]): m[2] for m in found if m}


def conda_python_and_pip(environment: str) -> tuple[str, list[str]]:
    entries = yaml.safe_load(environment)["dependencies"]
    python = next(e for e in entries if isinstance(e, str) and e.startswith("python="))
    return python.removeprefix("python="), next(e for e in entries if isinstance(e, dict))["pip"]


def ranges(project: dict) -> dict[str, SpecifierSet]:
    """The direct dependencies, the extras' too, without what names the project itself."""
    lines = sum(project["optional-dependencies"].values(), start=project["dependencies"])
    wanted = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r.specifier for r in wanted if r.name != project["name"]}


def disagreements(files: dict[str, str]) -> list[str]:
    project = tomllib.loads(files["pyproject.toml"])["project"]
    allowed = ranges(project)
    python, pip_lines = conda_python_and_pip(files["environment.yml"])
    pinned_in = {
        "constraints.txt": pins(files["constraints.txt"].splitlines()),
        "environment.yml": pins(pip_lines),
    }
    problems = []
    for name, pinned in pinned_in.items():
        problems += [f"{name} does not pin {p}" for p in sorted(allowed.keys() - pinned)]
        problems += [f"{name} pins {p}, no dependency" for p in sorted(pinned.keys() - allowed)]
        problems += [
            f"{name} pins {p} {pinned[p]}, outside {allowed[p]}"
            for p in sorted(allowed.keys() & pinned)
            if pinned[p] not in allowed[p]
        ]
    left, right = pinned_in.values()
    problems += [
        f"{p} is {left[p]} in constraints.txt, {right[p]} in environment.yml"
        for p in sorted(left.keys() & right)
        if left[p] != right[p]
    ]
    if python not in SpecifierSet(project["requires-python"]):
        problems += [f"environment.yml has Python {python}, outside {project['requires-python']}"]
    return problems


def test_the_three_files_agree(files: dict[str, str]) -> None:
    assert disagreements(files) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        ("constraints.txt", r"tqdm==.*\n", "", "constraints.txt does not pin tqdm"),
        ("environment.yml", r"- tqdm==.*\n", "", "environment.yml does not pin tqdm"),
        ("constraints.txt", r"\Z", "six==1.17.0\n", "constraints.txt pins six, no dependency"),
        ("constraints.txt", r"torch==.*", "torch==1.0", "constraints.txt pins torch 1.0, outside"),
        (
            "environment.yml",
            r"(torch==.*)",
            r"\1.9",
            "torch is 2.13.0 in constraints.txt, 2.13.0.9",
        ),
        ("environment.yml", r"python=.*", "python=3.9", "environment.yml has Python 3.9, outside"),
        ("pyproject.toml", r'"tqdm>=.*",\n', "", "environment.yml pins tqdm, no dependency"),
    ],
)
def test_a_disagreement_is_named(
    files: dict[str, str], name: str, old: str, new: str, problem: str
) -> None:
    changed, count = re.subn(old, new, files[name], count=1)
    assert count == 1
    assert any(p.startswith(problem) for p in disagreements({**files, name: changed}))
