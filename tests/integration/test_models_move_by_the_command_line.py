"""`stackwise import | export`: what they print, make and answer."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import stackwise as sw
from stackwise.cli import main
from stackwise.cli.moving import size


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def theirs(here) -> Path:
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(here / "tiny llama")
    return here / "tiny llama"


def said(capsys, *arguments: str, code: int = 0) -> list[str]:
    """What a command prints, line by line."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    return (err if code else out).splitlines()


def command_in(line: str) -> list[str]:
    """The command that a message ends with, without the program's own name."""
    return shlex.split(line.partition(": ")[2])[1:]


def test_in_and_out_again(theirs, capsys) -> None:
    first, note, train, hint = said(capsys, "import", str(theirs), "--blocks-per-stack", "2")
    assert first == "models/tiny llama: 2 stacks of 2, width 32, gqa, 33.6 k parameters, bfloat16"
    assert sw.read_model("models/tiny llama").rack.stacks == 2
    assert note.startswith("note: it has no tokenizer.json: text is read as bytes")
    assert command_in(train) == ["run", "models/tiny llama"]
    command = command_in(hint)
    assert command == ["export", "models/tiny llama", "TARGET"]
    weights, loads = said(capsys, *command[:2], "back", "--shard-size", "20kB")
    assert weights == ("back: the weights of tiny llama, as they were imported from tiny llama")
    assert loads == "load it with: transformers.AutoModelForCausalLM.from_pretrained('back')"
    assert AutoModelForCausalLM.from_pretrained("back").dtype == torch.bfloat16
    files = sorted(Path("back").glob("*.safetensors"))
    assert len(files) > 1
    back = {name: tensor for file in files for name, tensor in load_file(file).items()}
    want = load_file(theirs / "model.safetensors")
    assert back.keys() == want.keys() and all(torch.equal(back[k], want[k]) for k in want)


def test_notes_are_printed(theirs, capsys) -> None:
    config = theirs / "config.json"
    text = config.read_text().replace('"attention_dropout": 0.0', '"attention_dropout": 0.1')
    config.write_text(text)
    note = said(capsys, "import", str(theirs), "ours")[1]
    assert note == ("note: attention_dropout: 0.1 is kept for export; nothing is dropped here")


def test_a_run_goes_out_by_its_name(here, tiny, capsys) -> None:
    place = sw.Placement(device="cpu", runs_dir=str(here / "my runs"))
    run = sw.train(tiny.replace(objective="clm"), place)
    weights, note, loads = said(capsys, "export", "tiny-end", "out", "--runs-dir", "my runs")
    assert weights == f"out: the moving average (optim.ema=0.9) of run {run.id}"
    assert note == (
        "note: the vector of [START], which every text began with in training, has no row in a "
        "Llama: a prompt begins with its own first token"
    )
    assert re.fullmatch(r"load it with: .*from_pretrained\('out'\)", loads)
    assert AutoModelForCausalLM.from_pretrained("out").config.num_hidden_layers == 4
    for number, path in enumerate((f"my runs/{run.id}", str(run.path))):
        assert said(capsys, "export", path, f"out {number}")[1:] == [
            note,
            loads.replace("out", f"out {number}"),
        ]
    (line,) = said(capsys, "export", "out", "again", code=2)
    assert line == (
        "stackwise: out: is neither a model folder (it has no model.yaml) nor a run (it has no "
        "stages.json); name one, or a run's id"
    )
    (line,) = said(capsys, "export", str(run.path), "out", code=2)
    assert line == "stackwise: out: is there and not empty; name another folder, or remove it"


def test_options_of_runs_are_refused_for_model_folders(theirs, capsys) -> None:
    said(capsys, "import", str(theirs), "ours")
    for option in ("raw", "best"):
        (line,) = said(capsys, "export", "ours", "out", f"--{option}", code=2)
        assert line == (f"stackwise: {option}: a model folder has one set of weights; leave it out")


def test_a_rack_that_is_no_llama_is_answered_with_the_reasons(here, tiny, capsys) -> None:
    exp = tiny.replace(**{"rack.qk_norm": True, "budget.tokens": 128})
    run = sw.train(exp, sw.Placement(device="cpu", runs_dir=str(here / "runs")))
    lines = said(capsys, "export", run.id, "out", code=2)
    assert len(lines) == 3
    assert lines[0].startswith(f"stackwise: run {run.id}: objective: 'diffusion' reads in both")
    assert lines[1].startswith(f"run {run.id}: rack.qk_norm: True is not a Llama's")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("5GB", 5 * 10**9),
        ("500 MB", 500 * 10**6),
        ("2GiB", 2 << 30),
        ("1.5kib", 1536),
        ("7", 7),
        ("3b", 3),
        ("2t", 2 * 10**12),
    ],
)
def test_sizes_are_read_as_people_write_them(text, count) -> None:
    assert size(text) == count
