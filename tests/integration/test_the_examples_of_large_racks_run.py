"""Both experiments of docs/large_racks.md are carried out as they stand, but for their sizes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import stackwise as sw

DOCS = Path(__file__).parents[2] / "docs"
SMALL = {
    "data": {"corpus": {"kind": "markov", "size_bytes": 40_000}, "tokenizer": "bytes"},
    "optim": {"batch": 2, "lr": 0.02},  # large enough to be seen in a bfloat16 norm of one
    "eval": {"points": 1, "windows": 2, "final": 2},
}


@pytest.fixture(scope="module")
def examples():
    """The experiments and placements of the page, by title."""
    spec = importlib.util.spec_from_file_location("large_racks_page", DOCS / "large_racks.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    found = map(maker.settings, maker.examples((DOCS / "large_racks.md").read_text("utf-8")))
    return {exp.title: (exp, placement) for exp, placement in found}


def here(placement: sw.Placement, folder: Path) -> sw.Placement:
    """The same, on a machine without a card."""
    return placement.replace(device="cpu", runs_dir=str(folder / "runs"), data_dir=str(folder))


def test_the_imported_model_is_trained_block_by_block_and_exported(examples, tmp_path) -> None:
    exp, placement = examples["eight"]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "llama")
    model = sw.read_model(sw.import_model(tmp_path / "llama", tmp_path / exp.start))
    small = exp.replace(rack=model.rack, attention=model.attention, **SMALL)
    small = small.replace(data={"seq_len": 16}, budget={"tokens": 2 * 3 * 2 * 16})
    run = sw.train(small, here(placement, tmp_path))
    assert [stage["active"] for stage in run.stages()] == [["s0"], ["s1"], ["s2"]] * 2
    sw.export_model(run, tmp_path / "out")
    there = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    before = LlamaForCausalLM.from_pretrained(tmp_path / "llama")
    for (name, new), (_, old) in zip(
        there.named_parameters(), before.named_parameters(), strict=True
    ):
        assert new.equal(old) == (".layers." not in name), name


def test_the_rack_grows_from_left_to_right_over_a_streamed_nf4_trunk(examples, tmp_path) -> None:
    exp, placement = examples["seventy"]
    sizes = {"stacks": 4, "d_model": 64, "heads": 4, "kv_heads": 2, "d_ff": 96, "vocab": None}
    small = exp.replace(rack=sizes, **SMALL)
    small = small.replace(data={"seq_len": 16}, budget={"tokens": 4 * 4 * 2 * 16})
    run = sw.train(small, here(placement, tmp_path))
    assert [event["stacks"] for event in run.events("frozen")] == [["s0"], ["s1"], ["s2"]]
    resident = sw.train(small, here(placement, tmp_path).replace(trunk="recompute"), rerun=True)
    assert run.metrics()["loss"].equals(resident.metrics()["loss"])
