"""config.json to rack and back: every key that decides a number is read or refused."""

from __future__ import annotations

import json

import pytest

import stackwise as sw
from stackwise.interop.llama_config import bos_of, config_of, means, rack_of

# As published with Llama 3.1 70B, in the words of transformers 4.
LLAMA_31_70B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "hidden_size": 8192,
    "initializer_range": 0.02,
    "intermediate_size": 28672,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
    "use_cache": True,
    "vocab_size": 128256,
}
SMALL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 31,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
FULL_STRETCH = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
STRETCH = {"rope_type": "llama3", **FULL_STRETCH}


def test_llama_70b_is_the_shipped_preset() -> None:
    shape, attention = rack_of(LLAMA_31_70B)
    preset = sw.Experiment.preset("llama-3-70b")
    stretched = {"factor": 8.0, "low": 1.0, "high": 4.0, "original": 8192}
    changes = {"head_dim": 128, "rope_scaling": stretched}
    assert shape == sw.RackShape(**{**preset.rack.model_dump(), **changes})
    assert attention == preset.attention
    assert sw.count_parameters(shape, attention, 128256) == 70_553_706_496


def test_what_is_missing_is_what_transformers_takes_for_it() -> None:
    """Held against the library: the attributes of a LlamaConfig made of the same keys."""
    from transformers import LlamaConfig

    theirs = LlamaConfig(**{k: v for k, v in SMALL.items() if k != "architectures"})
    shape, attention = rack_of(SMALL)
    assert attention.choice == "mha"
    assert (shape.norm_eps, shape.tied, shape.bias, shape.init_std) == (
        theirs.rms_norm_eps,
        theirs.tie_word_embeddings,
        theirs.attention_bias,
        theirs.initializer_range,
    )
    assert shape.head_dim == theirs.head_dim and shape.kv_heads == theirs.num_key_value_heads
    assert theirs.rope_parameters == {"rope_type": "default", "rope_theta": shape.rope_base}


OLD = {"rope_theta": 100.0, "rope_scaling": STRETCH}
NEW = {"rope_parameters": {**STRETCH, "rope_theta": 100.0}}
OTHERS = [
    {"rope_theta": 100.0, "rope_scaling": {"type": "llama3", **FULL_STRETCH}},
    {"rope_theta": 100.0, "rope_parameters": STRETCH},
    {**OLD, **NEW},
    {
        "rope_theta": 100.0,
        "rope_scaling": {k: v for k, v in STRETCH.items() if not k.startswith("original")},
        "max_position_embeddings": 16,
    },
    {**OLD, "original_max_position_embeddings": 16},
]


@pytest.mark.parametrize("keys", [NEW, *OTHERS])
def test_both_places_of_ropes_keys_mean_the_same(keys) -> None:
    assert rack_of({**SMALL, **keys}) == rack_of({**SMALL, **OLD})


@pytest.mark.parametrize(
    "keys", [{}, OLD, {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}]
)
def test_a_written_configuration_means_the_rack_it_was_written_for(keys) -> None:
    shape, _ = rack_of({**SMALL, **keys}, 2)
    made = config_of(shape, 31, {}, length=77, dtype="bfloat16")
    assert rack_of(made, 2)[0] == shape and means(made, shape, 31)
    assert "torch_dtype" not in made
    assert made["dtype"] == "bfloat16" and made["max_position_embeddings"] == 77
    assert made["eos_token_id"] is None and made["bos_token_id"] is None


def test_keys_of_the_source_stay_where_the_rack_is_still_its_own() -> None:
    base = {**SMALL, "eos_token_id": 5, "something": [1], "torch_dtype": "float16"}
    shape, _ = rack_of(base)
    assert config_of(shape, 31, base, length=9, dtype=None) == base
    kept = {key: value for key, value in base.items() if key != "torch_dtype"}
    for old in ({}, {"dtype": "float16"}, {"torch_dtype": "float16"}):
        made = config_of(shape, 31, {**kept, **old}, length=9, dtype="float32")
        assert made == {**kept, "dtype": "float32"}
    fewer = sw.RackShape(**{**shape.model_dump(), "stacks": 3})
    made = config_of(fewer, 31, base, length=9, dtype="float32")
    assert made["num_hidden_layers"] == 3
    assert (made["eos_token_id"], made["something"]) == (5, [1])
    assert rack_of(made)[0] == fewer


def test_the_key_of_the_dtype_is_the_one_that_transformers_writes(tmp_path) -> None:
    from transformers import LlamaConfig

    LlamaConfig(dtype="bfloat16").save_pretrained(tmp_path)
    theirs = json.loads((tmp_path / "config.json").read_text())
    ours = config_of(rack_of(SMALL)[0], 31, {}, length=9, dtype="bfloat16")
    assert {key for key in theirs if "dtype" in key} == {key for key in ours if "dtype" in key}


@pytest.mark.parametrize(
    ("named", "token"),
    [
        (0, 0),
        (30, 30),
        ([7, 8], 7),
        *((odd, None) for odd in (31, -1, None, [], True, "1", [[1]], 1.0)),
    ],
)
def test_a_text_begins_with_a_token_of_the_table_or_with_none(named, token) -> None:
    assert bos_of({"bos_token_id": named}, 31) == token
    assert bos_of({}, 31) is None


REFUSED = {
    "another architecture": (
        {"architectures": ["MistralForCausalLM"]},
        "config.json: architectures: ['MistralForCausalLM'] is not read; known: LlamaForCausalLM "
        "(llama)",
    ),
    "another type": (
        {"model_type": "mistral"},
        "config.json: model_type: 'mistral' is not read; known: LlamaForCausalLM (llama)",
    ),
    "no type": (
        {"model_type": None},
        "config.json: model_type: is missing; known: LlamaForCausalLM (llama)",
    ),
    "code": (
        {"auto_map": {"AutoModel": "modeling.Mine"}},
        "config.json: auto_map: names code of the model's own, which is never run here; save the "
        "model with transformers' own LlamaForCausalLM",
    ),
    "packed weights": (
        {"quantization_config": {"bits": 4}},
        "config.json: quantization_config: the weights are packed; dequantise the model with "
        "transformers and save it again",
    ),
    "no width": (
        {"hidden_size": None},
        "config.json: hidden_size: is missing; give a whole number of 1 or more",
    ),
    "text for a size": (
        {"num_hidden_layers": "4"},
        "config.json: num_hidden_layers: '4' is not a size; give a whole number of 1 or more",
    ),
    "an activation": (
        {"hidden_act": "gelu"},
        "config.json: hidden_act: 'gelu' cannot be had in a rack, 'silu' can; the feed-forward is "
        "SwiGLU",
    ),
    "slices": (
        {"pretraining_tp": 2},
        "config.json: pretraining_tp: 2 cannot be had in a rack, 1 can; set it to 1, which is the "
        "same model up to rounding",
    ),
    "both directions": (
        {"is_causal": False},
        "config.json: is_causal: False cannot be had in a rack, True can; a rack's direction is "
        "its objective's; take the key out",
    ),
    "half the biases": (
        {"attention_bias": True},
        "config.json: mlp_bias: False, but attention_bias is True, and a rack has biases on all "
        "linear layers of its blocks or on none; store zeros for those that lack them, which is "
        "the same model",
    ),
    "no flag": (
        {"tie_word_embeddings": "yes"},
        "config.json: tie_word_embeddings: 'yes' is neither true nor false",
    ),
    "no epsilon": (
        {"rms_norm_eps": 0},
        "config.json: rms_norm_eps: 0 is not a number over 0",
    ),
    "another rope": (
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        "config.json: rope_parameters.rope_type: 'yarn' cannot be had in a rack; known: default, "
        "llama3",
    ),
    "an incomplete rope": (
        {"rope_scaling": {k: v for k, v in STRETCH.items() if k != "factor"}},
        "config.json: rope_parameters.factor: is missing, and llama3 reads it; give it",
    ),
    "crossed bounds": (
        {"rope_scaling": {**STRETCH, "low_freq_factor": 4.0}},
        "config.json: rope_parameters.low_freq_factor: 4 must be under high_freq_factor=4",
    ),
    "a rope for each kind of layer": (
        {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
        "config.json: rope_parameters: {'full_attention': {'rope_type': 'default'}} is not one "
        "mapping for all layers",
    ),
    "two bases": (
        {"rope_theta": 100.0, "rope_parameters": {"rope_theta": 200.0}},
        "config.json: rope_parameters.rope_theta: is 200.0 in one place and 100.0 in another; make "
        "them equal",
    ),
    "part of the heads": (
        {"rope_parameters": {"partial_rotary_factor": 0.5}},
        "config.json: partial_rotary_factor: 0.5 cannot be had: a rack turns whole heads; leave it "
        "at 1.0",
    ),
    "heads that do not divide": (
        {"num_attention_heads": 5, "head_dim": 16},
        "config.json: num_attention_heads: 5 does not divide hidden_size=64; transformers' Llama "
        "asks for that, whatever head_dim is; use heads that divide it",
    ),
    "groups that do not divide": (
        {"num_key_value_heads": 3},
        "config.json: cannot be a rack: kv_heads: 3 does not divide heads=4; every key head serves "
        "the same number of query heads",
    ),
    "odd heads": (
        {"head_dim": 15},
        "config.json: cannot be a rack: head_dim: 15 must be even, since RoPE turns pairs",
    ),
    "too many layers": (
        {"num_hidden_layers": 5000},
        "config.json: cannot be a rack: stacks: 5000 must be 1024 or less",
    ),
}


@pytest.mark.parametrize(("keys", "said"), REFUSED.values(), ids=list(REFUSED))
def test_what_a_rack_cannot_be_is_refused_by_key_and_value(keys, said) -> None:
    config = {k: v for k, v in {**SMALL, **keys}.items() if v is not None}
    with pytest.raises(sw.ModelError) as error:
        rack_of(config)
    assert str(error.value) == said


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(sw.ModelError) as error:
        rack_of({**SMALL, "hidden_act": "gelu", "vocab_size": 0, "rope_scaling": 3}, 3)
    lines = str(error.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "vocab_size",
        "rope_scaling",
        "hidden_act",
        "num_hidden_layers",
    ]
    assert lines[-1] == (
        "config.json: num_hidden_layers: 4 is not a multiple of blocks_per_stack=3; use 1 or "
        "another divisor"
    )
