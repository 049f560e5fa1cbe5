"""A model folder is opened by its headers; what is not as it was written is named."""

from __future__ import annotations

import json
import shlex
import shutil
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors import safe_open

import stackwise as sw
from stackwise.interop.source import read_source

AGAIN = "import it again, or restore it from a copy"


@pytest.fixture
def folder(llama, tmp_path):
    return sw.import_model(llama(torch.bfloat16), tmp_path / "ours", blocks_per_stack=2)


def file_of(folder, part: str):
    """The file of a part."""
    manifest = json.loads((folder / "rack" / "manifest.json").read_text())
    return folder / "rack" / manifest["parts"][part]["file"]


def refusal(folder, **options) -> str:
    with pytest.raises(sw.ModelError) as error:
        sw.read_model(folder, **options)
    return str(error.value)


def test_it_says_what_a_run_needs_to_start(folder):
    model = sw.read_model(folder)
    assert (model.path, model.vocab, model.dtype, model.objective) == (
        folder,
        31,
        "bfloat16",
        "clm",
    )
    assert (model.rack.stacks, model.rack.blocks_per_stack, model.attention.choice) == (2, 2, "gqa")
    assert set(model.manifest["parts"]) == {"embedding", "s0", "s1", "head"}
    sections = {"attention": model.attention, "objective": model.objective}
    sizes = {**model.rack.model_dump(), "vocab": 256}  # of the usual tokenizer
    assert sw.Experiment(rack=sizes, **sections).attention == model.attention


def test_weights_are_equal_where_hashes_are(folder, llama, tmp_path):
    other = sw.import_model(llama(torch.bfloat16), tmp_path / "other", blocks_per_stack=2)
    assert sw.read_model(other).weights_hash == sw.read_model(folder).weights_hash
    seeded = sw.import_model(tmp_path / "theirs", tmp_path / "third", blocks_per_stack=2, seed=1)
    assert sw.read_model(seeded).weights_hash != sw.read_model(folder).weights_hash


def test_no_model_folder(tmp_path):
    assert refusal(tmp_path) == (
        f"{tmp_path}: is no model folder (it has no model.yaml); make one with: stackwise import"
    )


def test_a_folder_of_hugging_faces_is_named_with_what_imports_it(llama):
    theirs = llama(name="a llama")
    said, _, command = refusal(theirs).rpartition("; make one with: ")
    assert said == f"{theirs}: is no model folder (it has no model.yaml)"
    assert shlex.split(command)[-2:] == ["import", str(theirs)]


def test_a_damaged_model_yaml(folder):
    path = folder / "model.yaml"
    whole = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**whole, "self": 1, "weights": "x"}))
    assert refusal(folder).splitlines() == [
        f"{path}: weights: 'x' must match ^[0-9a-f]{{64}}$",
        f"{path}: self: unknown key; known: format, rack, attention, objective, dtype, weights, "
        "source",
    ]
    path.write_text(yaml.safe_dump({**whole, "attention": {"kind": "gqaa"}}))
    assert refusal(folder).startswith(f"{path}: unknown attention 'gqaa'; did you mean 'gqa'?")
    path.write_text("")
    assert refusal(folder) == f"{path}: is empty; a model is a mapping of keys"
    path.write_text(yaml.safe_dump({**whole, "rack": {**whole["rack"], "vocab": None}}))
    assert refusal(folder) == f"{path}: rack.vocab: is empty; {AGAIN}"


def test_sizes_that_are_not_those_of_the_files(folder):
    path = folder / "model.yaml"
    whole = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**whole, "rack": {**whole["rack"], "d_ff": 95, "stacks": 3}}))
    lines = refusal(folder).splitlines()
    assert lines == [
        f"{file_of(folder, 's0')}: blocks.0.ffn.down.weight is (64, 96), and model.yaml says "
        f"(64, 95); {AGAIN}",
        f"{file_of(folder, 's1')}: blocks.0.ffn.down.weight is (64, 96), and model.yaml says "
        f"(64, 95); {AGAIN}",
        f"{folder / 'rack'}: has no part 's2'; {AGAIN}",
    ]


def test_a_rack_of_another_model(folder, llama, tmp_path):
    other = sw.import_model(llama(name="others"), tmp_path / "other", blocks_per_stack=2)
    shutil.rmtree(folder / "rack")
    shutil.copytree(other / "rack", folder / "rack")
    assert refusal(folder) == (
        f"{folder / 'rack'}: is not the rack that model.yaml was written with; {AGAIN}"
    )


def test_no_manifest(folder):
    (folder / "rack" / "manifest.json").unlink()
    assert refusal(folder) == f"{folder / 'rack' / 'manifest.json'}: is missing; {AGAIN}"


def test_a_file_that_is_missing_cut_or_altered(folder, tmp_path):
    path = file_of(folder, "s1")
    whole = path.read_bytes()
    path.unlink()
    assert refusal(folder) == f"{path}: is missing; {AGAIN}"
    path.write_bytes(whole[:-2])
    assert refusal(folder) == f"{path}: is not as long as it was written; {AGAIN}"
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said = (
        f"{folder}: rack/{path.name}: is not what was written (its bytes or hash differ); {AGAIN}"
    )
    assert refusal(folder, verify=True) == said
    assert sw.read_model(folder).vocab == 31, "headers alone do not tell"
    uses = [sw.open_model, lambda f: sw.export_model(f, tmp_path / "out")]
    uses.append(lambda f: sw.read_model(f).part("s1"))
    for use in uses:
        with pytest.raises(sw.ModelError) as error:
            use(folder)
        assert str(error.value) == said
    assert not (tmp_path / "out").exists()


class HeaderOf:
    """A safetensors file that gives dtypes and shapes, and fails where numbers are asked for."""

    def __init__(self, path, framework):
        self.file = safe_open(path, framework=framework)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        self.file.__exit__(*error)

    def keys(self):
        return self.file.keys()

    def get_slice(self, name):
        header = self.file.get_slice(name)
        return SimpleNamespace(get_dtype=header.get_dtype, get_shape=header.get_shape)


def test_a_source_is_looked_at_by_its_headers(llama, monkeypatch):
    theirs = llama(torch.bfloat16, shard="40KB")
    monkeypatch.setattr("stackwise.interop.stored.safe_open", HeaderOf)
    source = read_source(theirs)
    assert source.tensors["model.norm.weight"].shape == (64,)
    with pytest.raises(TypeError):
        source.tensors["model.norm.weight"].make()  # the control: here numbers are asked for


def test_opening_reads_headers_alone(folder, monkeypatch):
    def fails(*arguments):
        pytest.fail("weights were read")

    monkeypatch.setattr("stackwise.training.manifest.sha256_of", fails)
    monkeypatch.setattr("stackwise.training.tensorfile.LazyTensor.make", fails)
    monkeypatch.setattr("stackwise.interop.stored.safe_open", HeaderOf)
    assert sw.read_model(folder).vocab == 31
    with pytest.raises(pytest.fail.Exception):
        sw.read_model(folder, verify=True)
