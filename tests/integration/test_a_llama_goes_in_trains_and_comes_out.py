"""A Llama folder is imported, trained one stack at a time, exported, and loaded by transformers."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import stackwise as sw
from stackwise.data.library_tokenizer import trained_bpe
from stackwise.interop.export_plan import prepared
from stackwise.training.manifest import read_manifest, read_part


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def llama(request, tmp_path):
    """A Llama of three layers with random weights, as transformers saves one, and its dtype."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(config).to(request.param)
    model.save_pretrained(tmp_path / "llama")
    return tmp_path / "llama", request.param


def experiment(model: sw.ModelFolder, *, data=(), **changes) -> sw.Experiment:
    """One that begins with the model in the folder `model`, on synthetic text."""
    return sw.Experiment(
        start="model",
        rack=model.rack,
        attention=model.attention,
        objective="clm",
        data={"corpus": {"kind": "markov", "size_bytes": 40_000}, "seq_len": 32, **dict(data)},
        eval={"points": 2, "windows": 4, "final": 16},
        **changes,
    )


PRECISIONS = {
    "as they are": {},
    "nf4": {"frozen": "nf4", "master": "bf16"},
    "fp8": {"frozen": "fp8", "master": "fp32"},
}


@pytest.mark.parametrize("frozen", PRECISIONS)
@pytest.mark.parametrize("trunk", ["recompute", "streamed"])
def test_block_coordinates_change_every_stack_and_the_export_loads(
    llama, tmp_path, place, frozen, trunk
) -> None:
    folder, dtype = llama
    model = sw.read_model(sw.import_model(folder, tmp_path / "model"))
    low = dtype == torch.bfloat16
    exp = experiment(
        model,
        title="again",
        curriculum={"name": "block_coordinate", "cycles": 2, "embedding": "never"},
        optim={"batch": 2, "lr": 1e-3, "ema": None, "clip": None, "grads": "in_backward"},
        budget={"tokens": 12 * 64},
        precision={
            "compute": "bfloat16" if low else "float32",
            "weights": "bfloat16" if low else "float32",
            **PRECISIONS[frozen],
        },
    )
    run = sw.train(exp, place.replace(data_dir=str(tmp_path), trunk=trunk))
    assert [stage["active"] for stage in run.stages()] == [["s0"], ["s1"], ["s2"]] * 2
    target = sw.export_model(run, tmp_path / "out")
    there = AutoModelForCausalLM.from_pretrained(target, dtype=dtype)
    before = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    assert there.dtype == dtype
    for (name, new), (_, old) in zip(
        there.named_parameters(), before.named_parameters(), strict=True
    ):
        moved = not new.equal(old)
        assert moved == ("embed_tokens" not in name), name
    assert prepared(run).notes[-1] == (
        "every text began in training with the vector of token 1 (bos_token_id): let a prompt "
        "begin with that token, as a Llama's own tokenizer does"
    )
    stored, rack = load_file(target / "model.safetensors"), run.path / "rack"
    if low or frozen != "nf4":  # masters in bfloat16 of float32 weights are given as they are
        assert {tensor.dtype for tensor in stored.values() if tensor.ndim == 2} == {dtype}
    if low and frozen == "fp8":
        assert prepared(run).weights.endswith(" frozen stacks their masters, rounded to bfloat16")
        master = read_part(rack, read_manifest(rack), "s0.master")["blocks.0.ffn.down.weight"]
        assert master.dtype == torch.float32
        assert stored["model.layers.0.mlp.down_proj.weight"].equal(master.bfloat16())


def test_a_run_begins_with_exactly_the_models_weights(llama, tmp_path, place) -> None:
    folder, _ = llama
    model = sw.read_model(sw.import_model(folder, tmp_path / "model"))
    exp = experiment(
        model,
        optim={"batch": 2, "lr": 1e-30, "ema": None, "weight_decay": 0},
        budget={"tokens": 64},
    )
    run = sw.train(exp, place.replace(data_dir=str(tmp_path)))
    assert run.provenance()["start"]["weights"] == model.weights_hash
    there = AutoModelForCausalLM.from_pretrained(sw.export_model(run, tmp_path / "out"))
    before = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for (name, new), (_, old) in zip(
        there.named_parameters(), before.named_parameters(), strict=True
    ):
        assert new.equal(old), name


@pytest.mark.parametrize("form", ["nf4", "int8", "bf16"])
def test_without_masters_the_export_gives_what_freezing_left(tiny, place, tmp_path, form) -> None:
    exp = tiny.replace(
        rack={"d_model": 64},
        objective="clm",
        curriculum="left_to_right",
        precision={"frozen": form},
    )
    run = sw.train(exp, place)
    there = AutoModelForCausalLM.from_pretrained(sw.export_model(run, tmp_path / "out"))
    frozen, other = run.rack().stacks["s0"].blocks[0], there.model.layers[0]
    assert other.mlp.gate_proj.weight.equal(frozen.ffn.gate.weight)
    ids_BT = torch.randint(256, (2, 9))
    with torch.no_grad():
        ours, theirs = run.rack()(ids_BT, causal=True), there(ids_BT).logits
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()  # float32, other orders of sums


SMALL_FILES = {
    "generation_config.json": {"eos_token_id": 9, "temperature": 0.6},
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"},
    "special_tokens_map.json": {"eos_token": "<end>"},
}


@pytest.mark.parametrize("own", [True, False], ids=["its own tokenizer", "bytes"])
def test_what_a_model_says_of_itself_comes_out_again(llama, tmp_path, place, own) -> None:
    folder, _ = llama
    config = json.loads((folder / "config.json").read_text())
    config |= {"eos_token_id": 9, "pad_token_id": 3, "max_position_embeddings": 48, "mine": "kept"}
    (folder / "config.json").write_text(json.dumps(config))
    trained_bpe(iter(["of the king"]), 256).save(folder / "tokenizer.json")
    for name, content in SMALL_FILES.items():
        (folder / name).write_text(json.dumps(content))
    model = sw.read_model(sw.import_model(folder, tmp_path / "model"))
    tokenizer = "json:model/tokenizer.json" if own else "bytes"
    exp = experiment(
        model,
        data={"tokenizer": tokenizer, "seq_len": 64},
        optim={"batch": 2},
        budget={"tokens": 128},
    )
    run = sw.train(exp, place.replace(data_dir=str(tmp_path)))
    shutil.rmtree(tmp_path / "model")  # a run tells the whole truth about itself
    assert prepared(run).notes[-1] == (
        "the vector of [START], which every text began with in training, has no row in a Llama; "
        "that of token 1 (bos_token_id), which a prompt may begin with, is another"
    )  # the embedding has trained
    target = sw.export_model(run, tmp_path / "out")
    out = json.loads((target / "config.json").read_text())
    assert {key: out[key] for key in config if key not in ("dtype", "torch_dtype")} == {
        **{key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")},
        "max_position_embeddings": 64,  # it read that many
    }
    for name, content in SMALL_FILES.items():
        kept = json.loads((target / name).read_text()) if (target / name).exists() else None
        assert (kept == content) == own, name
    assert AutoTokenizer.from_pretrained(target).encode("king")
