"""Runs that were trained here, exported, and loaded by transformers alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import stackwise as sw

# transformers and nothing of ours, in a process of its own.
ALONE = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    torch.save(model(torch.load(sys.argv[2])).logits, sys.argv[3])
assert not any(name.startswith("stackwise") for name in sys.modules)
"""
IDS = torch.randint(256, (3, 16), generator=torch.Generator().manual_seed(0))


def agree(folder, rack: sw.Rack) -> bool:
    """Logits in float64: RoPE's tables are float32 on both sides, up to 16 radians."""
    model = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    with torch.no_grad():
        want_BTV, got_BTV = model(IDS).logits, rack.double()(IDS, causal=True)
    size = float(want_BTV.abs().max())
    torch.testing.assert_close(got_BTV / size, want_BTV / size, rtol=0, atol=16 * 2**-23)
    return True


def stopping(after: int):
    """What asks for a stop after so many steps."""

    def on_step(work, numbers):
        work.stop_requested = work.at.total_steps == after

    return on_step


@pytest.fixture
def causal(tiny) -> sw.Experiment:
    return tiny.replace(objective="clm")


OPTIONS = {
    "plain": {},
    "grouped and wide": {"attention": "gqa", "rack": {"kv_heads": 1, "head_dim": 24}},
    "tied": {"rack.tied": True},
    "biases": {"rack.bias": True},
    "two blocks in a stack, stretched": {
        "rack": {
            "blocks_per_stack": 2,
            "rope_base": 100.0,
            "rope_scaling": {"factor": 8.0, "low": 0.25, "high": 1.5, "original": 16},
        }
    },
    "lists that repeat one": {"rack": {"rope_base": [50.0, 50.0], "window": [None, None]}},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_its_logits_are_ours(options, causal, place, tmp_path) -> None:
    run = sw.train(causal.replace(**options), place)
    folder = sw.export_model(run, tmp_path / "out")
    assert agree(folder, run.rack())


def test_a_script_that_knows_only_transformers_gets_our_logits(causal, place, tmp_path) -> None:
    run = sw.train(causal, place)
    out = sw.export_model(run, tmp_path / "out", shard_bytes=20_000)
    torch.save(IDS, tmp_path / "ids")
    words = [sys.executable, "-c", ALONE, out, tmp_path / "ids", tmp_path / "logits"]
    subprocess.run(list(map(str, words)), check=True, cwd=tmp_path, env={"OMP_NUM_THREADS": "1"})
    got_BTV = torch.load(tmp_path / "logits")
    with torch.no_grad():
        want_BTV = run.rack()(IDS, causal=True)
    # float32 on both sides: sums of up to 64 products through four blocks, 2^-23 each at the most.
    size = float(want_BTV.abs().max())
    torch.testing.assert_close(got_BTV / size, want_BTV / size, rtol=0, atol=4 * 64 * 2**-23)


def test_a_head_that_parted_from_its_table_is_a_head_of_its_own(causal, place, tmp_path) -> None:
    exp = causal.replace(curriculum="left_to_right", **{"rack.tied": True})
    run = sw.train(exp, place)
    folder = sw.export_model(run, tmp_path / "out")
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
    assert "lm_head.weight" in load_file(folder / "model.safetensors")
    assert agree(folder, run.rack())


def said_by(folder) -> str:
    return json.loads((folder / "stackwise.json").read_text())["weights"]


def test_average_raw_and_best_weights_are_told_apart(causal, place, tmp_path) -> None:
    exp = causal.replace(curriculum="left_to_right")
    run = sw.train(exp, place, on_step=stopping(6))
    assert run.state == "stopped" and run.status()["stage"] == 1
    average = sw.export_model(run, tmp_path / "average")
    raw = sw.export_model(run, tmp_path / "raw", raw=True)
    assert agree(average, run.rack()) and agree(raw, run.rack(raw=True))
    assert said_by(average) == f"the moving average (optim.ema=0.9) of run {run.id}"
    assert said_by(raw) == f"the raw weights of run {run.id}, without averaging in head, s1"
    assert json.loads((raw / "config.json").read_text())["num_hidden_layers"] == 2
    run = sw.resume(run)
    best = sw.export_model(run, tmp_path / "best", best=True)
    assert agree(best, run.rack(best=True))
    assert said_by(best) == (
        f"the moving average (optim.ema=0.9) of run {run.id}, where the last stage's held-out loss "
        "was lowest"
    )
    again = sw.export_model(run, tmp_path / "again", raw=True)
    assert said_by(again) == (
        f"the moving average (optim.ema=0.9) of run {run.id}; it is not in the middle of a stage, "
        "and has no others"
    )
    assert agree(again, run.rack())


def test_the_best_weights_are_those_of_a_look_and_not_the_last(causal, place, tmp_path) -> None:
    run = sw.train(causal, place, on_step=stopping(14))  # looks are at 4, 8, 12 and 16
    best, last = (sw.export_model(run, tmp_path / str(b), best=b) for b in (True, False))
    assert agree(best, run.rack(best=True)) and agree(last, run.rack())
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (best, last))
    assert not any(ours[name].equal(theirs[name]) for name in ours if ours[name].ndim == 2)


def test_without_an_average_there_are_only_the_weights(causal, place, tmp_path) -> None:
    run = sw.train(causal.replace(**{"optim.ema": None}), place, on_step=stopping(6))
    for name, raw in (("plain", False), ("raw", True)):
        folder = sw.export_model(run, tmp_path / name, raw=raw)
        assert said_by(folder) == f"the weights as they are of run {run.id}"
        assert agree(folder, run.rack())


def test_only_the_path_that_it_runs_goes_along(causal, place, tmp_path, monkeypatch) -> None:
    def outside_in(exp):
        ids = sw.stack_ids(exp.rack)
        yield sw.Stage(path=(ids[0], ids[-1]))
        yield sw.Stage(path=(ids[1], ids[-1]), active=(ids[1],), embedding=False)

    monkeypatch.setitem(sw.CURRICULA, "outside_in", outside_in)
    run = sw.train(causal.replace(curriculum="outside_in"), place)
    folder = sw.export_model(run, tmp_path / "out")
    rack = run.rack()
    assert rack.paths[0][2] == ("s1", "s3")
    assert agree(folder, rack)


def test_text_becomes_the_ids_that_it_was_trained_on(causal, place, tmp_path) -> None:
    text = "In the beginning\n  \u00e9\U0001f600"
    for kind in ("bytes", "bpe"):
        run = sw.train(causal.replace(**{"data.tokenizer": kind}), place)
        folder = sw.export_model(run, tmp_path / kind)
        theirs = AutoTokenizer.from_pretrained(folder)
        assert theirs(text)["input_ids"] == run.tokenizer().encode(text).tolist()
        assert theirs.decode(theirs(text)["input_ids"]) == text


@pytest.mark.parametrize("objective", ["mlm", "diffusion"])
def test_what_reads_in_both_directions_is_no_llama(objective, tiny, place, tmp_path) -> None:
    run = sw.train(tiny.replace(objective=objective), place, on_step=stopping(1))
    with pytest.raises(sw.ModelError) as error:
        sw.export_model(run, tmp_path / "out")
    assert str(error.value) == (
        f"run {run.id}: objective: '{objective}' reads in both directions, and a Llama is loaded "
        "as one that reads from left to right, which this rack never did; train with clm\n"
        f"run {run.id}: is no Llama for these reasons; it can be used from here (run.rack(), "
        "stackwise sample), and one that is trained without them exported"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["s0", "s0.master", "s1", "s1.average", "head.average"])
def test_a_damaged_checkpoint_is_not_exported(causal, place, tmp_path, part) -> None:
    """What is read of a stack is its master or its average, and their files are compared, too."""
    pytest.importorskip("bitsandbytes")
    exp = causal.replace(curriculum="left_to_right", precision={"frozen": "nf4", "master": "bf16"})
    run = sw.train(exp, place, on_step=stopping(6))
    (path,) = (run.path / ("state" if "." in part else "rack")).glob(f"{part}-*")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RuntimeError, match=f"{path.parent.name}/{path.name}: is not what was writ"):
        sw.export_model(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_trains_is_not_exported(causal, place, tmp_path) -> None:
    seen = []

    def on_step(work, numbers):
        with pytest.raises(sw.ModelError) as error:
            sw.export_model(work.run, tmp_path / "out")
        seen.append(str(error.value))
        work.stop_requested = True

    run = sw.train(causal, place, on_step=on_step)
    assert seen == [
        f"run {run.id}: is training, and its files change; stop it with Ctrl-C, export, and resume "
        "it"
    ]
