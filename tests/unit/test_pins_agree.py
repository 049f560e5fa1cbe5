"""constraints.txt, environment.yml and pyproject.toml name the same packages and versions.

constraints.txt has two sections: the direct dependencies, which the other two files name as well,
and what those depend on in turn, which environment.yml takes from it.
"""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SECOND = "# What those depend on in turn"
GPU_ONLY = re.compile(r"nvidia-|cuda-|triton$")  # torch pins them itself


@pytest.fixture
def files() -> dict[str, str]:
    names = ("constraints.txt", "environment.yml", "pyproject.toml")
    return {name: (ROOT / name).read_text() for name in names}


def pins(lines: list[str]) -> dict[str, str]:
    """Name to exact version; what is no pin (`-e .`, `-c FILE`, a comment) is passed over.

    A marker may follow, of what is not to be had everywhere.
    """
    found = (re.fullmatch(r"([\w.-]+)==([\w.]+)(; .+)?", line.strip()) for line in lines)
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


def sections(constraints: str) -> tuple[dict[str, str], dict[str, str]]:
    """The pins of direct dependencies, and those of what they depend on."""
    first, found, second = constraints.partition(SECOND)
    assert found, f"constraints.txt has no line {SECOND!r}"
    return pins(first.splitlines()), pins(second.splitlines())


def disagreements(files: dict[str, str]) -> list[str]:
    project = tomllib.loads(files["pyproject.toml"])["project"]
    allowed = ranges(project)
    python, pip_lines = conda_python_and_pip(files["environment.yml"])
    pinned_in = {
        "constraints.txt": sections(files["constraints.txt"])[0],
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
    if "-c constraints.txt" not in pip_lines:
        problems += ["environment.yml does not take the other pins from constraints.txt"]
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
        ("constraints.txt", r"(?=tqdm)", "six==1\n", "constraints.txt pins six, no dependency"),
        ("environment.yml", r"- -c .*", "- -e .", "environment.yml does not take the other pins"),
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


def needed(files: dict[str, str]) -> set[str]:
    """What is needed here, the extras that are asked for included, by the installed metadata."""
    project = tomllib.loads(files["pyproject.toml"])["project"]
    lines = sum(project["optional-dependencies"].values(), start=project["dependencies"])
    todo = [r for r in map(Requirement, lines) if r.name != project["name"]]
    todo = [r for r in todo if r.marker is None or r.marker.evaluate()]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        wanted = todo.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key in seen or GPU_ONLY.match(key[0]):
            continue
        seen.add(key)
        for line in metadata.requires(wanted.name) or []:
            inner = Requirement(line)
            extras = {"", *wanted.extras}
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in extras):
                todo.append(inner)
    return {name for name, _ in seen}


def test_everything_that_is_installed_is_pinned_and_is_what_is_pinned(files) -> None:
    direct, others = sections(files["constraints.txt"])
    both, wanted = direct | others, needed(files)
    assert wanted - both.keys() == set(), "needed, but not pinned"
    assert not direct.keys() & others.keys()
    found = {name: metadata.version(name).partition("+")[0] for name in wanted}
    assert found == {name: both[name] for name in wanted}
    if sys.platform == "linux" and sys.version_info[:2] == (3, 11):
        assert others.keys() - wanted == set(), "pinned, but not needed"


def test_what_builds_the_package_is_pinned_and_the_pin_reaches_the_build(files) -> None:
    (line,) = tomllib.loads(files["pyproject.toml"])["build-system"]["requires"]
    wanted = Requirement(line)
    assert sections(files["constraints.txt"])[1][wanted.name] in wanted.specifier
    makefile = (ROOT / "Makefile").read_text()
    assert "PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt" in makefile
