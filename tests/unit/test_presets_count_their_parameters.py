"""The published counts, in closed form and from modules that hold no memory."""

import pytest
import torch

from stackwise.cli import main
from stackwise.config import Experiment, Placement, presets
from stackwise.curriculum import stages
from stackwise.memory.bytes import cache_bytes_per_token, plan_rows
from stackwise.memory.flops import vocab_size
from stackwise.model.attention import ATTENTION
from stackwise.model.count import count_parameters
from stackwise.model.rack import Rack
from stackwise.model.shape import stack_ids

PUBLISHED = {
    "gpt2-small": 124_439_808,
    "bert-base": 109_514_298,
    "1b": 1_235_814_400,
    "8b": 8_030_261_248,
    "llama-2-70b": 68_976_648_192,
    "llama-3-70b": 70_553_706_496,
    "405b": 405_853_388_800,
}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_a_preset_has_its_published_count(name: str, published: int) -> None:
    exp = Experiment.preset(name)
    assert exp.title == name
    assert count_parameters(exp.rack, exp.attention, vocab_size(exp)) == published


@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize(
    "name", [name for name in presets() if Experiment.preset(name).rack.kv_heads is None]
)
def test_a_preset_with_as_many_key_heads_takes_every_attention(name: str, kind: str) -> None:
    """And `gqa` says how many: with as many as heads it would be `mha`."""
    fewer = {"rack": {"kv_heads": 1}} if kind == "gqa" else {}
    exp = Experiment.preset(name)
    assert exp.replace(attention=kind, **fewer).attention.choice == kind


@pytest.mark.parametrize("name", presets())
def test_the_closed_form_counts_what_the_module_has(name: str) -> None:
    exp = Experiment.preset(name)
    vocab = vocab_size(exp)
    with torch.device("meta"):
        rack = Rack(exp.rack, exp.attention, vocab)
    held = sum(parameter.numel() for parameter in rack.parameters())
    special = rack.embedding.special.numel()
    assert count_parameters(exp.rack, exp.attention, vocab) == held - special


@pytest.mark.parametrize(
    ("name", "key_heads", "head_dim", "blocks"),
    [("llama-2-70b", 8, 128, 80), ("8b", 8, 128, 32), ("gpt2-small", 12, 64, 12)],
)
def test_a_token_in_the_cache_takes_what_the_published_shape_says(
    name, key_heads, head_dim, blocks, capsys
) -> None:
    """A key and a value per key head and block; half as much in bfloat16 as in float32."""
    exp = Experiment.preset(name)
    path = stack_ids(exp.rack)
    full = exp.replace(precision=Experiment().precision)
    low = full.replace(precision="bfloat16")
    floats = 2 * key_heads * head_dim * blocks
    assert cache_bytes_per_token(low, path) == 2 * floats
    assert cache_bytes_per_token(full, path) == 4 * floats
    assert main(["presets"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(name)]
    assert f"{cache_bytes_per_token(exp, path):,}" in line.split()


def test_a_plan_says_what_a_token_takes_in_the_cache_of_each_stage() -> None:
    exp = Experiment.preset("toy").replace(curriculum="left_to_right")
    rows = plan_rows(exp, Placement(), stages(exp))
    each = 2 * 64 * 4  # a key and a value of 64 numbers, 4 bytes each
    assert [row["cache_bytes_per_token"] for row in rows] == [each, 2 * each, 3 * each, 4 * each]
    linear = exp.replace(attention="kernel", rack={"qk_norm": False})
    rows = plan_rows(linear, Placement(), stages(linear))
    assert [row["cache_bytes_per_token"] for row in rows] == [0, 0, 0, 0]
