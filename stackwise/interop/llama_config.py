"""Llama's config.json and the rack that it means, both ways.

Every key that decides a number is read or refused; the others are kept, so that an export gives
them back. How keys are read is in `config_keys.py`. Source: transformers 5.23, `LlamaConfig`; the
tests compare logits with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackwise.choice import Params, parse
from stackwise.errors import ExperimentError, short
from stackwise.interop.config_keys import SCALING, Keys
from stackwise.interop.errors import ModelError, refuse
from stackwise.model.attention import ATTENTION
from stackwise.model.shape import RackShape, d_ff, head_dim, kv_heads, total_blocks

ARCHITECTURES = {"LlamaForCausalLM": "llama"}
EPS, STD, LENGTH = 1e-6, 0.02, 2048  # what LlamaConfig takes for a missing key
DIVIDE = "transformers' Llama asks for that, whatever head_dim is; use heads that divide it"
LONGEST = "max_position_embeddings"
BOS = "bos_token_id"
TOKENS = (BOS, "eos_token_id", "pad_token_id")  # it would invent the first two


def check_architecture(config: Mapping[str, Any]) -> None:
    """Refuse a model that is not one of those that are read.

    Raises:
        ModelError: With the list of those that are.
    """
    named = config.get("architectures") or list(ARCHITECTURES)
    kind = config.get("model_type")
    known = "; known: " + ", ".join(f"{a} ({m})" for a, m in ARCHITECTURES.items())
    if named not in [[name] for name in ARCHITECTURES]:
        raise ModelError(f"config.json: architectures: {short(named)} is not read{known}")
    if kind != ARCHITECTURES[named[0]]:
        given = "is missing" if kind is None else f"{short(kind)} is not read"
        raise ModelError(f"config.json: model_type: {given}{known}")
    if config.get("auto_map"):
        raise ModelError(
            "config.json: auto_map: names code of the model's own, which is never run here; save "
            "the model with transformers' own LlamaForCausalLM"
        )
    if config.get("quantization_config"):
        raise ModelError(
            "config.json: quantization_config: the weights are packed; dequantise the model with "
            "transformers and save it again"
        )


def rack_of(config: Mapping[str, Any], blocks_per_stack: int = 1) -> tuple[RackShape, Params]:
    """The rack that a Llama's config.json means, and its attention.

    Args:
        config: Of config.json.
        blocks_per_stack: How its layers are put into stacks; divides their number.

    Raises:
        ModelError: With every key that is missing, wrong, or cannot be had in a rack.
    """
    check_architecture(config)
    keys = Keys(config)
    vocab, width, wide = (
        keys.whole(key) for key in ("vocab_size", "hidden_size", "intermediate_size")
    )
    layers, heads = keys.whole("num_hidden_layers"), keys.whole("num_attention_heads")
    groups = keys.whole("num_key_value_heads", heads or 1)
    each = keys.whole("head_dim", (width or 1) // (heads or 1) or 1)
    eps, std = keys.number("rms_norm_eps", EPS), keys.number("initializer_range", STD)
    base, scaling = keys.rope()
    tied = keys.flag("tie_word_embeddings")
    biases = {key: keys.flag(key) for key in ("attention_bias", "mlp_bias")}
    keys.only("hidden_act", "silu", "the feed-forward is SwiGLU")
    keys.only("pretraining_tp", 1, "set it to 1, which is the same model up to rounding")
    keys.only("is_causal", True, "a rack's direction is its objective's; take the key out")
    if biases["attention_bias"] != biases["mlp_bias"]:
        keys.refuse(
            "mlp_bias",
            f"{biases['mlp_bias']}, but attention_bias is {biases['attention_bias']}, and a rack "
            "has biases on all linear layers of its blocks or on none; store zeros for those that "
            "lack them, which is the same model",
        )
    if width is not None and heads is not None and width % heads:
        keys.refuse("num_attention_heads", f"{heads} does not divide hidden_size={width}; {DIVIDE}")
    if layers is not None and layers % blocks_per_stack:
        keys.refuse(
            "num_hidden_layers",
            f"{layers} is not a multiple of blocks_per_stack={blocks_per_stack}; use 1 or another "
            "divisor",
        )
    refuse([f"config.json: {problem}" for problem in keys.problems])
    try:
        shape = RackShape(
            stacks=(layers or 1) // blocks_per_stack,
            blocks_per_stack=blocks_per_stack,
            d_model=width,
            heads=heads,
            kv_heads=groups,
            head_dim=each,
            d_ff=wide,
            vocab=vocab,
            tied=tied,
            norm_eps=eps,
            bias=biases["attention_bias"],
            rope_base=base,
            rope_scaling=scaling,
            init_std=std,
        )
    except ExperimentError as error:
        raise ModelError(f"config.json: cannot be a rack: {error}") from None
    kind = "mha" if groups == heads else "gqa"
    return shape, parse(ATTENTION, kind, "attention", "kind")


def bos_of(config: Mapping[str, Any], vocab: int) -> int | None:
    """The token that a Llama's texts begin with; None if its config.json names none of the table.

    Args:
        config: Of config.json; of a list of tokens the first counts.
        vocab: Entries of the table.
    """
    named = config.get(BOS)
    token = named[0] if isinstance(named, list) and named else named
    if isinstance(token, bool) or not isinstance(token, int):
        return None
    return token if 0 <= token < vocab else None


def config_of(
    shape: RackShape, vocab: int, base: Mapping[str, Any], *, length: int, dtype: str | None
) -> dict[str, Any]:
    """The config.json that means a rack; `base` itself if it means this one.

    Args:
        shape: A rack that a Llama can be.
        vocab: Entries of the head.
        base: Keys to keep where they do not contradict: the config.json that it came from.
        length: Longest sequence, in tokens, where `base` does not say.
        dtype: Of the matrices: `bfloat16`; None for what `base` says.
    """
    rope: dict[str, Any] = {"rope_type": "default"}
    if shape.rope_scaling is not None:
        rope = {"rope_type": "llama3"}
        rope |= {theirs: getattr(shape.rope_scaling, ours) for theirs, ours in SCALING.items()}
    theta = rope_base(shape)
    made = {
        "architectures": list(ARCHITECTURES),
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": shape.d_model,
        "intermediate_size": d_ff(shape),
        "num_hidden_layers": total_blocks(shape),
        "num_attention_heads": shape.heads,
        "num_key_value_heads": kv_heads(shape),
        "head_dim": head_dim(shape),
        "hidden_act": "silu",
        "rms_norm_eps": shape.norm_eps,
        "initializer_range": shape.init_std,
        "attention_bias": shape.bias,
        "mlp_bias": shape.bias,
        "tie_word_embeddings": shape.tied,
        "rope_theta": theta,
        "rope_scaling": None if shape.rope_scaling is None else rope,
        "rope_parameters": {**rope, "rope_theta": theta},
    }
    stored = {} if dtype is None else {"dtype": dtype}
    dropped = () if dtype is None else ("dtype", "torch_dtype")
    if base and means(base, shape, vocab):
        return {**{key: value for key, value in base.items() if key not in dropped}, **stored}
    unsaid = {LONGEST: length, **dict.fromkeys(TOKENS)}
    kept = {key: value for key, value in base.items() if key not in dropped}
    return {**unsaid, **kept, **made, **stored}


def means(config: Mapping[str, Any], shape: RackShape, vocab: int) -> bool:
    """Whether a config.json says the sizes of this rack, however its layers are stacked."""
    said, _ = rack_of(config, shape.blocks_per_stack)
    sizes = {
        "vocab": vocab,
        "kv_heads": kv_heads(shape),
        "head_dim": head_dim(shape),
        "d_ff": d_ff(shape),
        "rope_base": rope_base(shape),
        "window": None,
    }
    return said.model_dump() == {**shape.model_dump(), **sizes}


def rope_base(shape: RackShape) -> float:
    """The base of every block; of a list, which repeats one, the first."""
    return shape.rope_base[0] if isinstance(shape.rope_base, tuple) else shape.rope_base
