"""The published counts, in closed form and from modules that hold no memory."""

import pytest
import torch

from stackwise.config import Experiment, presets
from stackwise.memory.flops import vocab_size
from stackwise.model.attention import ATTENTION
from stackwise.model.count import count_parameters
from stackwise.model.rack import Rack

PUBLISHED = {
    "gpt2-small": 124_439_808,
    "bert-base": 109_514_298,
    "1b": 1_235_814_400,
    "8b": 8_030_261_248,
    "llama-2-70b": 68_976_648_192,
    "llama-3-70b": 70_553_706_496,
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
    exp = Experiment.preset(name)
    assert exp.replace(attention=kind).attention.choice == kind


@pytest.mark.parametrize("name", presets())
def test_the_closed_form_counts_what_the_module_has(name: str) -> None:
    exp = Experiment.preset(name)
    vocab = vocab_size(exp)
    with torch.device("meta"):
        rack = Rack(exp.rack, exp.attention, vocab)
    held = sum(parameter.numel() for parameter in rack.parameters())
    special = rack.embedding.special.numel()
    assert count_parameters(exp.rack, exp.attention, vocab) == held - special
