"""A source or a target that will not do: one line that names it, the rule, the way out.

Nothing is left behind, and nothing is read but headers.
"""

from __future__ import annotations

import json
import shutil
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file

import stackwise as sw
from stackwise.atomic import PART
from stackwise.drafts import claimed

DOWN = "model.layers.2.mlp.down_proj.weight"


def refusal(source, target, **options) -> str:
    """What an import is refused with; the target's folder is as it was."""
    before = sorted(target.parent.iterdir()) if target.parent.is_dir() else None
    with pytest.raises(sw.ModelError) as error:
        sw.import_model(source, target, **options)
    after = sorted(target.parent.iterdir()) if target.parent.is_dir() else None
    assert before == after
    return str(error.value)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "ours"


def test_no_folder(tmp_path, target):
    assert refusal(tmp_path / "x", target) == (
        f"{tmp_path / 'x'}: is no folder; name one that holds config.json and model.safetensors, "
        "as `save_pretrained` writes them"
    )


def test_no_config(tmp_path, target):
    assert refusal(tmp_path, target) == (
        f"{tmp_path / 'config.json'}: no such file; fetch it with the weights"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON (Expecting property name enclosed in double quotes: line 1"),
        ("[1]", "[1] is not a mapping of keys; fetch it again"),
        ('{"a": "\\ud800"}', "is not JSON ('utf-8' codec can't encode"),
        ("[" * 100_000, "is not JSON (maximum recursion depth exceeded"),
        (" " * (1 << 18) + "{}", "is over 262144 bytes long; fetch the model's own"),
    ],
)
def test_a_config_that_is_no_json(text, said, tmp_path, target):
    (tmp_path / "config.json").write_text(text)
    assert refusal(tmp_path, target).startswith(f"{tmp_path / 'config.json'}: {said}")


def test_a_config_too_deep_to_be_kept(llama, changed, target):
    theirs, deep = llama(), []
    for _ in range(400):
        deep = [deep]
    changed(theirs, {"deep": deep})
    assert refusal(theirs, target) == (
        f"{theirs}: config.json: is too long or nested too deeply to be a Llama's; fetch it again"
    )


def test_a_key_that_no_rack_can_have(llama, changed, target):
    theirs = llama()
    changed(theirs, {"hidden_act": "gelu"})
    assert refusal(theirs, target).startswith(f"{theirs}: config.json: hidden_act: 'gelu' cannot")


def test_a_pickle(llama, target):
    theirs = llama()
    (theirs / "model.safetensors").rename(theirs / "pytorch_model.bin")
    assert refusal(theirs, target) == (
        f"{theirs}: pytorch_model.bin is a pickle, which can run code and is not read; load it "
        "with transformers and save it with save_pretrained, which writes safetensors"
    )


def test_no_weights(llama, target):
    theirs = llama()
    (theirs / "model.safetensors").unlink()
    assert refusal(theirs, target) == (
        f"{theirs}: holds neither model.safetensors nor model.safetensors.index.json; fetch the "
        "weights"
    )


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_file_cut_short(kept, llama, target):
    theirs = llama()
    path = theirs / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    said = refusal(theirs, target)
    assert said.startswith(f"{path}: is not a whole safetensors file (")
    assert said.endswith("); fetch it again")


def test_an_index_that_names_what_is_not_there(llama, changed, target):
    theirs = llama(shard="40KB")
    first, second, *_ = sorted(theirs.glob("model-*"))
    index = theirs / "model.safetensors.index.json"
    whole = json.loads(index.read_text())
    first.rename(theirs / "away")
    assert refusal(theirs, target) == f"{index}: names {first.name}, which is not there; fetch it"
    (theirs / "away").rename(first)
    name = next(iter(load_file(first)))
    index.write_text(json.dumps({"weight_map": {**whole["weight_map"], name: second.name}}))
    assert refusal(theirs, target) == (
        f"{index}: says that {name} is in {second.name}, which has no such tensor; fetch both "
        f"again\n{first}: holds {name}, which the index does not place there; fetch both again"
    )
    index.write_text(json.dumps({"weight_map": {**whole["weight_map"], name: "../x.safetensors"}}))
    assert refusal(theirs, target) == (
        f"{index}: names '../x.safetensors', which is no safetensors file of this folder"
    )
    index.write_text(json.dumps({"weight_map": []}))
    assert refusal(theirs, target) == f"{index}: has no mapping 'weight_map'; fetch it again"


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (None, "is missing, and config.json says that there is one; fetch it again"),
        (
            torch.zeros(64, 95),
            "is (64, 95), and config.json says (64, 96); fetch both again",
        ),
        (
            torch.zeros(64, 96, dtype=torch.float64),
            "is float64; only float32, bfloat16 and float16 are read: save it in one of them with "
            "transformers",
        ),
    ],
)
def test_a_tensor_that_is_not_the_configurations(tensor, said, llama, changed, target):
    theirs = llama()
    changed(theirs, **{DOWN: tensor})
    assert refusal(theirs, target) == f"{theirs}: {DOWN} {said}"


def test_a_tensor_too_many(llama, changed, target):
    theirs = llama()
    changed(theirs, **{"model.layers.4.mlp.down_proj.weight": torch.zeros(64, 96)})
    assert refusal(theirs, target) == (
        f"{theirs}: model.layers.4.mlp.down_proj.weight is no tensor of the Llama that config.json "
        "says; fetch both again"
    )


def test_many_problems_are_counted(llama, changed, target):
    theirs = llama()
    changed(theirs, {"intermediate_size": 90})
    *lines, last = refusal(theirs, target).splitlines()
    assert len(lines) == 8 and all("fetch both again" in line for line in lines)
    assert last == "and 4 more of the kind"  # three matrices in each of four layers


def test_a_matrix_in_two_dtypes(llama, changed, target):
    theirs = llama()
    changed(theirs, **{"model.layers.1.self_attn.k_proj.weight": torch.zeros(32, 64).bfloat16()})
    names = ", ".join(f"model.layers.1.self_attn.{n}_proj.weight" for n in "qkv")
    assert refusal(theirs, target) == (
        f"{theirs}: {names} have several dtypes, and are one matrix in a rack; save them in one "
        "with transformers"
    )


def test_a_head_that_is_tied_and_differs(llama, changed, target):
    theirs = llama(tie_word_embeddings=True)
    changed(theirs, **{"lm_head.weight": torch.zeros(31, 64)})
    assert refusal(theirs, target) == (
        f"{theirs}: lm_head.weight differs from model.embed_tokens.weight, but config.json says "
        "that they are one (tie_word_embeddings: true); say false to keep both"
    )


def test_a_target_that_something_would_be_lost_in(llama, tmp_path):
    theirs = llama()
    for target in (theirs, theirs / "sub", theirs / ".." / theirs.name / "sub"):
        assert refusal(theirs, target) == (
            f"{target}: lies in {theirs}, which is read; name a folder elsewhere"
        )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert refusal(theirs, tmp_path / "full") == (
        f"{tmp_path / 'full'}: is there and not empty; name another folder, or remove it"
    )
    assert refusal(theirs, tmp_path / "full" / "x") == (
        f"{tmp_path / 'full' / 'x'}: is there and no folder; name another, or remove it"
    )


def test_an_empty_folder_is_taken(llama, tmp_path):
    (tmp_path / "empty").mkdir()
    assert sw.import_model(llama(), tmp_path / "empty") == tmp_path / "empty"
    assert sw.read_model(tmp_path / "empty").vocab == 31


def test_a_disk_too_full(llama, tmp_path, target, monkeypatch):
    theirs = llama()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(0, 0, 3 << 20))
    assert refusal(theirs, target) == (
        f"{target}: takes 498.4 KiB, with 16.0 MiB left to the file system, and {tmp_path} "
        f"has 3.0 MiB free; make room, or name a folder on another disk"
    )


def test_another_process_at_the_same_target(llama, tmp_path):
    theirs, part = llama(), tmp_path / f".ours{PART}"
    part.mkdir()
    with claimed(part):
        assert refusal(theirs, tmp_path / "ours") == (
            f"{part}: is there already, of another process that writes {tmp_path / 'ours'}; wait "
            "for it, or remove it"
        )
    assert sw.import_model(theirs, tmp_path / "ours").is_dir() and not part.exists()


@pytest.mark.parametrize("raised", [KeyboardInterrupt, OSError(28, "disk full")])
def test_what_goes_wrong_on_the_way_leaves_nothing(raised, llama, tmp_path):
    """Ctrl-C, or a disk that fills up, in the middle of a tensor."""
    theirs, target, seen = llama(), tmp_path / "new" / "ours", []

    def stop(count):
        seen.append(count)
        if len(seen) == 20:
            raise raised

    with pytest.raises(BaseException) as error:
        sw.import_model(theirs, target, on_bytes=stop)
    assert len(seen) == 20 and list(target.parent.iterdir()) == []
    if isinstance(raised, OSError):
        assert str(error.value) == (
            f"[Errno 28] {target}: cannot be written: No space left on device; nothing was left "
            "behind. Make room, or name a folder that can be written"
        )


@pytest.mark.parametrize("value", [0, -1, True, "2", 1.0])
def test_stacks_of_no_number_of_blocks(value, tmp_path, target):
    assert refusal(tmp_path, target, blocks_per_stack=value) == (
        f"blocks_per_stack: {value!r} must be a whole number of 1 or more"
    )
