"""The Python in README.md, CONTRIBUTING.md and docs/ runs as it stands.

The blocks of one document run in order and share their names, in an empty folder; there is a tiny
Llama in it where they name one. The presets that they name are made tiny first, so that what takes
minutes for a reader takes a second here. A block right after `<!-- example: skip, REASON -->` is
left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.model.formats import FORMATS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
    if path.exists()
]
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+)(?P<label>.*)$")
LLAMA = "Llama-3.1-8B"
LEFT_OUT = re.compile(r"<!--\s*example:\s*skip,\s*\w.*-->")
REGISTRIES = (
    "CURRICULA",
    "SCHEDULES",
    "ATTENTION",
    "OBJECTIVES",
    "CORPORA",
    "TOKENIZERS",
    "SAMPLERS",
)


@dataclass(frozen=True)
class Example:
    """A block of Python, and the line of its document that it begins on."""

    line: int
    code: str
    runs: bool


def examples_in(text: str) -> list[Example]:
    """The fenced blocks labelled `python`, in order."""
    found: list[Example] = []
    lines, at, before = text.splitlines(), 0, ""
    while at < len(lines):
        opening = FENCE.match(lines[at])
        if opening is None:
            before = lines[at] if lines[at].strip() else before
            at += 1
            continue
        indent, start = len(opening["indent"]), at + 1
        at = start
        while at < len(lines) and lines[at].strip() != opening["fence"]:
            at += 1
        if opening["label"].split()[:1] == ["python"]:
            code = "\n".join(line[indent:] for line in lines[start:at])
            found.append(Example(start + 1, code, LEFT_OUT.fullmatch(before.strip()) is None))
        at, before = at + 1, ""
    return found


@pytest.fixture
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets of the same names and stacks, of a size that trains in a moment."""
    preset = sw.Experiment.preset
    tiny = {
        "rack": {"blocks_per_stack": 1, "d_model": 8, "heads": 2, "kv_heads": None, "d_ff": 8},
        "data": {"corpus": "kjv", "tokenizer": "bytes", "seq_len": 8, "heldout_frac": 0.001},
        "optim": {"batch": 2},
        "eval": {"points": 1, "windows": 2, "draws": 1, "final": 64},
    }

    def made(name: str) -> sw.Experiment:
        small = preset(name).replace(**tiny)
        return small.replace(budget={"tokens": 16 * 8 * small.rack.stacks})

    monkeypatch.setattr(sw.Experiment, "preset", staticmethod(made))
    begun, short = sw.experiment_from, {"data": {"seq_len": 8}, "eval": tiny["eval"]}
    monkeypatch.setattr(
        sw, "experiment_from", lambda folder: begun(folder).replace(budget={"tokens": 128}, **short)
    )


@pytest.fixture
def own_registries() -> Iterator[None]:
    """What an example registers is gone after it."""
    registries = [*(getattr(sw, name) for name in REGISTRIES), FORMATS]
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


def put_a_llama(folder: Path) -> None:
    """A Llama of two layers over bytes where the reader has one: what a run of ours exports."""
    exp = sw.Experiment.preset("8b").replace(rack={"stacks": 2}, budget={"tokens": 16})
    run = sw.train(exp, sw.Placement(device="cpu", runs_dir=str(folder / "other")))
    sw.export_model(run, folder / LLAMA)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
@pytest.mark.usefixtures("tiny_presets", "own_registries")
def test_the_examples_of_a_document_run(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = document.read_text("utf-8")
    if LLAMA in text:
        put_a_llama(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "example"}
    for example in examples_in(text):
        if example.runs:
            at_its_line = "\n" * (example.line - 1) + example.code
            exec(compile(at_its_line, document.name, "exec", dont_inherit=True), names)


def test_examples_are_found_with_their_lines():
    text = (
        "# A\n```python\na = 1\n```\n\n```\nno python\n```\n"
        "<!-- example: skip, needs a card -->\n\n```python\nb = 2\n```\n"
        "- item\n\n  ```python\n  if a:\n      c = 3\n  ```\n"
        "````markdown\n```python\nnot one\n```\n````\n"
    )
    assert examples_in(text) == [
        Example(3, "a = 1", True),
        Example(12, "b = 2", False),
        Example(17, "if a:\n    c = 3", True),
    ]


def test_a_reason_must_be_given():
    assert examples_in("<!-- example: skip, -->\n```python\na\n```")[0].runs
