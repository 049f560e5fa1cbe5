"""Presets have exactly the parameters of their publications, by arithmetic and as modules."""

import pytest
import torch

from stackwise.config import Experiment, presets
from stackwise.memory.flops import vocab_size
from stackwise.model.count import count_parameters, embedding_parameters, head_parameters
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape

# GPT-2: Radford et al. 2019 with its tied head once. BERT: transformers' BertForMaskedLM. Llama:
# parameter counts of the published weights.
PUBLISHED = {
    "gpt2-small": 124_439_808,
    "bert-base": 109_514_298,
    "1b": 1_235_814_400,
    "8b": 8_030_261_248,
    "llama-2-70b": 68_976_648_192,
    "llama-3-70b": 70_553_706_496,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_closed_form_gives_the_published_count(name: str) -> None:
    exp = Experiment.preset(name)
    assert count_parameters(exp.rack, exp.attention, vocab_size(exp)) == PUBLISHED[name]


@pytest.mark.parametrize("name", presets())
def test_the_module_has_as_many_and_the_two_special_vectors(name: str) -> None:
    exp = Experiment.preset(name)
    vocab = vocab_size(exp)
    with torch.device("meta"):
        rack = Rack(exp.rack, exp.attention, vocab)
    special = rack.embedding.special.numel()
    built = sum(parameter.numel() for parameter in rack.parameters())
    assert special == 2 * exp.rack.d_model
    assert built - special == count_parameters(exp.rack, exp.attention, vocab)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tied": True, "norm": "layernorm", "bias": True, "ffn": "gelu"},
        {"positions": "learned", "max_positions": 9, "embed_norm": True, "token_types": 2},
        {"norm_place": "post", "head_transform": True, "head_bias": True, "qk_norm": True},
        {"d_ff": 48, "head_dim": 10, "positions": "none"},
    ],
)
@pytest.mark.parametrize("kind", ["mha", "gqa", "mla", "kernel"])
def test_every_option_is_counted(options: dict, kind: str, params) -> None:
    if kind in ("mla", "kernel"):
        options = {**options, "qk_norm": False}
    if kind == "gqa":
        options = {**options, "kv_heads": 2}
    shape = RackShape(stacks=2, blocks_per_stack=1, d_model=32, heads=4, **options)
    rack = Rack(shape, params.attention(kind), 17)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in rack.parts().items()}
    assert parts["embedding"] - 2 * 32 == embedding_parameters(shape, 17)
    assert parts["head"] == head_parameters(shape, 17)
    assert sum(parts.values()) - 2 * 32 == count_parameters(shape, params.attention(kind), 17)
