"""`stackwise run MODEL_FOLDER` trains an imported model a stack at a time."""

from __future__ import annotations

import shlex

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import stackwise as sw
from stackwise.cli import main
from stackwise.data.library_tokenizer import trained_bpe


def llama(folder, dtype=torch.bfloat16, **changes):
    """A Llama of two layers with random weights, as transformers saves one."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(**{**sizes, **heads, **changes})).to(dtype).save_pretrained(folder)
    return folder


def test_three_commands_train_a_llama(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    source = llama(tmp_path / "Llama 3 (tiny)", max_position_embeddings=32)
    trained_bpe(iter(["in the beginning"]), 300).save(source / "tokenizer.json")
    assert main(["import", str(source), "models/tiny"]) == 0
    said = capsys.readouterr().out
    assert "train it a stack at a time with: " in said
    assert " run models/tiny\n" in said
    changes = "data.corpus=markov data.corpus.size_bytes=40000 budget.tokens=512 optim.lr=0.01"
    more = "eval.points=1 eval.windows=2 eval.final=2 placement.device=cpu"
    assert main(["run", "models/tiny", *changes.split(), *more.split()]) == 0
    (run,) = sw.runs_in("runs")
    exp = run.experiment
    assert (exp.title, exp.data.seq_len, exp.precision.weights) == ("tiny", 32, "bfloat16")
    assert exp.data.tokenizer.path == "models/tiny/tokenizer.json"
    assert main(["export", run.id, "out"]) == 0
    there = AutoModelForCausalLM.from_pretrained("out")
    before = AutoModelForCausalLM.from_pretrained(source)
    for (name, new), (_, old) in zip(
        there.named_parameters(), before.named_parameters(), strict=True
    ):
        fixed = ".layers." not in name  # nor does a norm of bfloat16 see every small step
        assert new.equal(old) or not fixed, name
        assert not new.equal(old) or fixed or "norm" in name, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_without_a_tokenizer_it_reads_bytes_and_trains_in_float32(tmp_path, dtype) -> None:
    folder = sw.import_model(llama(tmp_path / "_odd name", dtype), tmp_path / "_odd name 2")
    exp = sw.experiment_from(folder)
    assert (exp.title, exp.start) == ("odd-name-2", str(folder))
    assert exp.data.tokenizer.choice == "bytes"
    assert exp.precision == sw.Experiment().precision
    assert exp.objective.choice == "clm"


def test_a_folder_that_was_not_imported_is_answered_with_the_import(tmp_path, capsys) -> None:
    source = llama(tmp_path / "Llama 3 (tiny)")
    assert main(["run", str(source)]) == 2
    said = capsys.readouterr().err
    assert "is no model folder (it has no model.yaml); make one with: " in said
    command = shlex.split(said)[-2:]
    assert command == ["import", str(source)]
    assert main([*command, str(tmp_path / "ours")]) == 0


def test_a_folder_that_is_no_model_is_said(tmp_path, capsys) -> None:
    with pytest.raises(sw.ModelError, match="is no model folder"):
        sw.experiment_from(tmp_path)
    (tmp_path / "model.yaml").write_text("format: 2\n")
    assert main(["run", str(tmp_path)]) == 2
    assert "model.yaml: format: 2" in capsys.readouterr().err
