"""A placement on a card that is not there is refused at once, in one line, with the way out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import stackwise as sw
from stackwise.cli import main
from stackwise.training.start import create_run

SAID = "placement.device: 'cuda', but torch sees no CUDA card here; use auto or cpu"


@pytest.fixture(autouse=True)
def no_card(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_no_folder_is_made(tiny, place) -> None:
    with pytest.raises(sw.ExperimentError, match=f"^{re.escape(SAID)}$"):
        sw.train(tiny, place.replace(device="cuda"))
    assert not Path(place.runs_dir).exists()


def test_a_run_that_was_made_elsewhere_is_not_opened(tiny, place) -> None:
    run = create_run(tiny, place)
    text = (run.path / "placement.yaml").read_text()
    (run.path / "placement.yaml").write_text(text.replace("device: cpu", "device: cuda"))
    with pytest.raises(sw.ExperimentError, match=f"^{re.escape(SAID)}$"):
        sw.resume(run)
    assert run.state == "made"


def test_auto_means_the_processor(tiny, place) -> None:
    run = create_run(tiny, place.replace(device="auto"))
    assert sw.resume(run).state == "finished"


@pytest.mark.parametrize("command", ["run", "resume"])
def test_the_command_line_says_it_in_one_line(
    tiny, place, command, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(tiny.to_yaml())
    run = create_run(tiny, place)
    what = ["run", "tiny.yaml"] if command == "run" else ["resume", run.id]
    assert main([*what, "placement.device=cuda"]) == 2
    assert capsys.readouterr().err == f"stackwise: {SAID}\n"
