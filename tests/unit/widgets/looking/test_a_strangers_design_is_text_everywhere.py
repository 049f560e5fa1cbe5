"""A workbench opened from a stranger's file, for a stranger's card: all it says is text."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from stackwise.cli import main
from stackwise_widgets import Workbench

from ....strangers import MARK, OBEYED, harmless

CARD = {"memory_gib": 0.01, "bf16_tflops": 100, "memory_tbs": 1, "said": MARK}


@pytest.fixture
def card(tmp_path) -> Path:
    """So small that the plan says by its name that nothing fits it."""
    path = tmp_path / f"card{MARK}.yaml"
    path.write_text(yaml.safe_dump(CARD))
    return path


@pytest.fixture
def state(tmp_path, card, kept) -> dict:
    paths = {"corpus": {"kind": "text"}, "tokenizer": {"kind": "json"}}
    data = {key: {**kind, "path": MARK} for key, kind in paths.items()}
    return {
        "preset": "toy",
        "experiment": {"data": data, "rack": {"vocab": 300}},
        "placement": {"runs_dir": str(tmp_path / MARK), "threads": 1},
        "hardware": str(card),
        "text": f"a</textarea>{MARK}",
        "run": str(kept.path),
    }


def opened(state: dict, folder: Path) -> Workbench:
    path = folder / "state.yaml"
    path.write_text(yaml.safe_dump(state))
    return Workbench(state=path, warm=False)


def test_all_panels_show_it_as_text(state, tmp_path):
    bench = opened(state, tmp_path)
    assert bench.design.settle()
    for name in bench.shown:
        bench.go_to(name)
        if hasattr(bench.panel, "wait"):
            bench.panel.wait()
        harmless(bench, name)
    assert all(isinstance(each.error, ValueError) for each in bench.errors)  # its text is not here
    assert all(picture.value for picture in bench.design.pictures.values())
    for name in ("Plan", "Masks"):
        assert "pwned" in bench.design.pictures[name].value
    assert bench.design.figure()._repr_png_()[:4] == b"\x89PNG"
    for code in (bench.design.code(), bench.run_panel.code()):
        compile(code, "design", "exec")
    assert not OBEYED.search(bench.design.command())


@pytest.mark.parametrize("path", ["data.corpus.path", "title", "optim.lr", "optim.schedule"])
def test_what_is_typed_and_refused_is_said_as_text(state, tmp_path, path):
    bench = opened(state, tmp_path)
    field = bench.design.form.field(path)
    if hasattr(field, "options"):
        field.options = [*field.options, (MARK, MARK)]
    field.value = MARK
    assert bench.design.settle()
    harmless(bench, path)


@pytest.mark.parametrize("key", ["preset", "panel", "hide", "hardware", "run", "experiment"])
def test_a_file_that_is_refused_is_refused_in_words(state, tmp_path, key):
    wrong = {"hide": [MARK], "experiment": {MARK: 1}}.get(key, MARK)
    with pytest.raises(ValueError, match="pwned"):
        opened(state | {key: wrong}, tmp_path)


@pytest.mark.parametrize("more", [[], ["--fit"], ["--all"]])
def test_a_plan_for_it_gives_a_terminal_nothing_that_it_obeys(card, more, capsys):
    main(["plan", "toy", "--hardware", str(card), *more])
    said = capsys.readouterr()
    assert "pwned" in said.out + said.err
    assert not OBEYED.search(said.out + said.err)
