"""Imported and exported again, every tensor and every key is what it was."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import stackwise as sw
from stackwise.interop.export_plan import prepared
from stackwise.interop.exporting import written
from stackwise.training import tensorfile


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Names, dtypes, shapes and bits; NaN's bits too."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and torch.equal(left[name].view(torch.uint8), right[name].view(torch.uint8))
        for name in left
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_and_configuration_are_those_of_the_source(kind, dtype, llama, tensors, tmp_path):
    theirs = llama(dtype, **kind)
    ours = sw.import_model(theirs, tmp_path / "ours", blocks_per_stack=2)
    back = sw.export_model(ours, tmp_path / "back")
    assert same(tensors(back), tensors(theirs))
    assert json.loads((back / "config.json").read_text()) == json.loads(
        (theirs / "config.json").read_text()
    )
    model = AutoModelForCausalLM.from_pretrained(back)
    assert model.dtype == dtype
    assert sw.read_model(ours).dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_bits_come_back(dtype, llama, tensors, tmp_path):
    """Of NaN its payload, infinities, zeros with a sign, subnormal numbers."""
    theirs = llama(dtype)
    found = load_file(theirs / "model.safetensors")
    for tensor in found.values():
        tensor.view(torch.uint8).random_(256)
    assert all(not tensor.isfinite().all() for tensor in found.values() if tensor.ndim == 2)
    save_file(found, theirs / "model.safetensors")
    back = sw.export_model(sw.import_model(theirs, tmp_path / "ours"), tmp_path / "back")
    assert same(tensors(back), found)


@pytest.mark.parametrize("at_once", [64, 1000, 5000])
def test_pieces_of_any_size_give_the_same_bits(at_once, llama, tensors, tmp_path, monkeypatch):
    """Also where they end inside a head, or across queries, keys and values."""
    monkeypatch.setattr(tensorfile, "MADE_BYTES", at_once)
    theirs = llama(torch.bfloat16, attention_bias=True, mlp_bias=True)
    ours = sw.import_model(theirs, tmp_path / "ours")
    assert same(tensors(sw.export_model(ours, tmp_path / "back")), tensors(theirs))


def test_shards_are_read_and_written(llama, tensors, tmp_path):
    theirs = llama(shard="40KB")
    assert len(list(theirs.glob("*.safetensors"))) > 4
    ours = sw.import_model(theirs, tmp_path / "ours")
    back = sw.export_model(ours, tmp_path / "back", shard_bytes=100_000)
    assert same(tensors(back), tensors(theirs))
    index = json.loads((back / "model.safetensors.index.json").read_text())
    files = sorted(back.glob("*.safetensors"))
    assert [f.name for f in files] == [
        f"model-{n + 1:05}-of-{len(files):05}.safetensors" for n in range(len(files))
    ]
    held = {name: file.name for file in files for name in load_file(file)}
    assert index["weight_map"] == held
    sizes = [sum(t.nbytes for t in load_file(file).values()) for file in files]
    assert max(sizes) <= 100_000 and index["metadata"]["total_size"] == sum(sizes)
    assert AutoModelForCausalLM.from_pretrained(back).num_parameters() == sum(
        tensor.numel() for tensor in tensors(theirs).values()
    )


def test_a_tensor_over_the_size_of_a_file_has_one_of_its_own(llama, tensors, tmp_path):
    theirs = llama()
    back = sw.export_model(
        sw.import_model(theirs, tmp_path / "ours"), tmp_path / "back", shard_bytes=1
    )
    assert len(list(back.glob("*.safetensors"))) == len(tensors(theirs))
    assert same(tensors(back), tensors(theirs))


def test_a_norm_may_have_another_dtype(llama, tensors, tmp_path):
    theirs = llama(torch.bfloat16)
    found = load_file(theirs / "model.safetensors")
    found |= {name: t.float() / 3 for name, t in found.items() if "norm" in name}
    save_file(found, theirs / "model.safetensors")
    ours = sw.import_model(theirs, tmp_path / "ours")
    assert same(tensors(sw.export_model(ours, tmp_path / "back")), found)
    assert sw.read_model(ours).dtype == "bfloat16"
    assert prepared(ours).notes == (
        "some weights are float32; from_pretrained makes all of them bfloat16 unless it is given "
        "another dtype",
    )
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert loaded.model.norm.weight.dtype == torch.bfloat16


def test_a_tied_table_that_is_stored_twice_is_given_back_twice(llama, tensors, tmp_path):
    theirs = llama(tie_word_embeddings=True)
    found = load_file(theirs / "model.safetensors")
    found["lm_head.weight"] = found["model.embed_tokens.weight"].clone()
    save_file(found, theirs / "model.safetensors")
    ours = sw.import_model(theirs, tmp_path / "ours")
    assert sw.read_model(ours).rack.tied
    assert same(tensors(sw.export_model(ours, tmp_path / "back")), found)


def test_what_the_configuration_says_already_is_left_out_with_a_note(llama, tensors, tmp_path):
    theirs = llama(attention_dropout=0.1)
    found = load_file(theirs / "model.safetensors")
    computed = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(8) for n in range(4)}
    save_file(found | computed, theirs / "model.safetensors")
    ours = sw.import_model(theirs, tmp_path / "ours")
    assert same(tensors(sw.export_model(ours, tmp_path / "back")), found)
    assert sw.read_model(ours).source.notes == (
        "4 tensors rotary_emb.inv_freq are left out: config.json says the same",
        "attention_dropout: 0.1 is kept for export; nothing is dropped here",
        "it has no tokenizer.json: text is read as bytes, which are not the tokens that it knows, "
        "unless data.tokenizer=json:PATH is given",
    )


def test_a_model_without_tokenizer_json_is_noted(llama, tmp_path):
    theirs = llama()
    (theirs / "tokenizer.model").write_bytes(b"not read")
    (note,) = sw.read_model(sw.import_model(theirs, tmp_path / "ours")).source.notes
    assert note == (
        "it has no tokenizer.json, and tokenizer.model is not read: text is read as bytes, which "
        "are not the tokens that it knows, unless data.tokenizer=json:PATH is given"
    )
    (theirs / "tokenizer.json").write_text("{}")
    assert not sw.read_model(sw.import_model(theirs, tmp_path / "other")).source.notes


def test_small_files_go_along(llama, tmp_path):
    theirs = llama()
    texts = {
        "tokenizer.json": "{}",
        "tokenizer_config.json": '{"chat_template": "x"}',
        "special_tokens_map.json": "[]",
        "generation_config.json": '{"bos_token_id": 1}',
    }
    for name, text in texts.items():
        (theirs / name).write_text(text)
    (theirs / "README.md").write_text("not of the model")
    ours = sw.import_model(theirs, tmp_path / "ours")
    back = sw.export_model(ours, tmp_path / "back")
    for folder in (ours, back):
        assert {name: (folder / name).read_text() for name in texts} == texts
        assert not (folder / "README.md").exists()
    (ours / "tokenizer_config.json").unlink()
    other = sw.export_model(ours, tmp_path / "other")
    assert json.loads((other / "tokenizer_config.json").read_text()) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }


def test_the_new_folder_says_which_weights_it_holds(llama, tmp_path):
    ours = sw.import_model(llama(name="eight"), tmp_path / "ours")
    back = sw.export_model(ours, tmp_path / "back")
    assert json.loads((back / "stackwise.json").read_text()) == {
        "model": "eight",
        "checkpoint": sw.read_model(ours).weights_hash,
        "weights": "the weights of ours, as they were imported from eight",
        "stackwise": sw.__version__,
    }


@pytest.mark.parametrize("raised", [KeyboardInterrupt, OSError(28, "disk full")])
def test_an_export_that_is_stopped_leaves_nothing(raised, llama, tmp_path):
    ours, target = sw.import_model(llama(), tmp_path / "ours"), tmp_path / "new" / "back"
    seen = []

    def stop(count):
        seen.append(count)
        if len(seen) == 20:
            raise raised

    with pytest.raises((KeyboardInterrupt, OSError)):
        written(prepared(ours), target, shard_bytes=40_000, on_bytes=stop)
    assert len(seen) == 20 and list(target.parent.iterdir()) == []
    assert written(prepared(ours), target) == target


REFUSED = [
    ({"to": "gguf"}, "to: 'gguf' is not written; known: hf"),
    ({"shard_bytes": 0}, "shard_bytes: 0 must be a whole number of 1 or more"),
    ({"shard_bytes": "5GB"}, "shard_bytes: '5GB' must be a whole number of 1 or more"),
    ({"raw": True}, "raw: a model folder has one set of weights; leave it out"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_an_option_that_cannot_be_is_refused(options, said, llama, tmp_path):
    ours = sw.import_model(llama(), tmp_path / "ours")
    with pytest.raises(sw.ModelError) as error:
        sw.export_model(ours, tmp_path / "back", **options)
    assert str(error.value) == said
    with pytest.raises(sw.ModelError) as error:
        sw.export_model(ours, ours / "sub")
    assert (
        str(error.value)
        == f"{ours / 'sub'}: lies in {ours}, which is read; name a folder elsewhere"
    )
