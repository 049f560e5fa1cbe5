"""Logits against Hugging Face's models of the same shape, with the same weights."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from stackwise.choice import parse
from stackwise.model.attention import ATTENTION
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape

VOCAB, LENGTH = 31, 40
# Both sides compute in float64, but for RoPE's tables, which both make in float32: rounding of sums
# of up to 64 products of order one through three blocks is below 1e-12. Angles of one formula
# agree to the last bit or the one before: 2^-23 of up to LENGTH radians.
EXACT = {"rtol": 0, "atol": 1e-12}
ROTATED = {"rtol": 0, "atol": LENGTH * 2**-23}


def rack_of(shape, kind):
    return Rack(shape, parse(ATTENTION, kind, "attention", "kind"), VOCAB).double()


def blocks_of(rack):
    return [block for stack in rack.stacks.values() for block in stack.blocks]


def copy_(target, source):
    """Weights (and bias) of one module into another of the same shape."""
    target.weight.copy_(source.weight)
    if getattr(source, "bias", None) is not None:
        target.bias.copy_(source.bias)


def as_neighbours(weight, head_dim):
    """Rows whose RoPE pairs are (i, i + E/2) in each head, in the order that pairs neighbours."""
    order = torch.arange(head_dim).unflatten(0, (2, -1)).T.flatten()
    return weight.unflatten(0, (-1, head_dim))[:, order].flatten(0, 1)


def shaken(model):
    """Every number random, so that no norm or bias is at its idle start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.2, generator=generator)
            if "norm" in name.lower() or "ln_" in name:
                parameter.add_(1.0)
    return model.double().eval()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_llama(scaled, tied):
    """With grouped queries; stretched, wavelengths fall on both sides of both thresholds."""
    rope = {"rope_type": "default", "rope_theta": 100.0}
    scaling = None
    if scaled:
        # Wavelengths of base 100 and 16 numbers: 6 to 353 tokens; thresholds at 16/4 and 16/1.
        scaling = {"factor": 8.0, "low": 0.25, "high": 1.5, "original": 16}
        rope = {
            "rope_type": "llama3",
            "rope_theta": 100.0,
            "factor": 8.0,
            "low_freq_factor": 0.25,
            "high_freq_factor": 1.5,
            "original_max_position_embeddings": 16,
        }
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        rope_parameters=rope,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
    )
    theirs = shaken(LlamaForCausalLM(config))
    shape = RackShape(
        stacks=3,
        blocks_per_stack=1,
        d_model=64,
        heads=4,
        kv_heads=2,
        d_ff=96,
        tied=tied,
        rope_base=100.0,
        rope_scaling=scaling,
    )
    ours = rack_of(shape, "gqa")
    ours.embedding.tokens.copy_(theirs.model.embed_tokens.weight)
    for block, layer in zip(blocks_of(ours), theirs.model.layers, strict=True):
        copy_(block.attention_norm, layer.input_layernorm)
        copy_(block.ffn_norm, layer.post_attention_layernorm)
        rows = [as_neighbours(getattr(layer.self_attn, f"{n}_proj").weight, 16) for n in "qk"]
        block.attention.qkv.weight.copy_(torch.cat([*rows, layer.self_attn.v_proj.weight]))
        copy_(block.attention.out, layer.self_attn.o_proj)
        for name in ("gate", "up", "down"):
            copy_(getattr(block.ffn, name), getattr(layer.mlp, f"{name}_proj"))
    copy_(ours.head.norm, theirs.model.norm)
    if not tied:
        ours.head.weight.copy_(theirs.lm_head.weight)
    ids_BT = torch.randint(VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    want_BTV = theirs(ids_BT).logits
    size = float(want_BTV.abs().max())
    torch.testing.assert_close(ours(ids_BT, causal=True) / size, want_BTV / size, **ROTATED)


@torch.no_grad()
def test_gpt2():
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=LENGTH,
        n_embd=64,
        n_layer=3,
        n_head=4,
        attn_implementation="eager",
    )
    theirs = shaken(GPT2LMHeadModel(config))
    shape = RackShape(
        stacks=3,
        blocks_per_stack=1,
        d_model=64,
        heads=4,
        tied=True,
        ffn="gelu_tanh",
        norm="layernorm",
        bias=True,
        positions="learned",
        max_positions=LENGTH,
    )
    ours = rack_of(shape, "mha")
    ours.embedding.tokens.copy_(theirs.transformer.wte.weight)
    ours.embedding.positions.copy_(theirs.transformer.wpe.weight)
    for block, layer in zip(blocks_of(ours), theirs.transformer.h, strict=True):
        copy_(block.attention_norm, layer.ln_1)
        copy_(block.ffn_norm, layer.ln_2)
        pairs = [
            (block.attention.qkv, layer.attn.c_attn),
            (block.attention.out, layer.attn.c_proj),
            (block.ffn.up, layer.mlp.c_fc),
            (block.ffn.down, layer.mlp.c_proj),
        ]
        for target, source in pairs:
            target.weight.copy_(source.weight.T)
            target.bias.copy_(source.bias)
    copy_(ours.head.norm, theirs.transformer.ln_f)
    ids_BT = torch.randint(VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    want_BTV = theirs(ids_BT).logits
    size = float(want_BTV.abs().max())
    torch.testing.assert_close(ours(ids_BT, causal=True) / size, want_BTV / size, **EXACT)


@torch.no_grad()
def test_bert():
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=LENGTH,
        attn_implementation="eager",
    )
    theirs = shaken(BertForMaskedLM(config))
    shape = RackShape(
        stacks=3,
        blocks_per_stack=1,
        d_model=64,
        heads=4,
        d_ff=128,
        tied=True,
        ffn="gelu",
        norm="layernorm",
        norm_eps=1e-12,
        norm_place="post",
        bias=True,
        positions="learned",
        max_positions=LENGTH,
        token_types=2,
        embed_norm=True,
        head_transform=True,
        head_bias=True,
    )
    ours = rack_of(shape, "mha")
    embeddings, head = theirs.bert.embeddings, theirs.cls.predictions
    ours.embedding.tokens.copy_(embeddings.word_embeddings.weight)
    ours.embedding.positions.copy_(embeddings.position_embeddings.weight)
    ours.embedding.types.copy_(embeddings.token_type_embeddings.weight)
    copy_(ours.embedding.norm, embeddings.LayerNorm)
    for block, layer in zip(blocks_of(ours), theirs.bert.encoder.layer, strict=True):
        inside = [getattr(layer.attention.self, name) for name in ("query", "key", "value")]
        block.attention.qkv.weight.copy_(torch.cat([part.weight for part in inside]))
        block.attention.qkv.bias.copy_(torch.cat([part.bias for part in inside]))
        copy_(block.attention.out, layer.attention.output.dense)
        copy_(block.attention_norm, layer.attention.output.LayerNorm)
        copy_(block.ffn.up, layer.intermediate.dense)
        copy_(block.ffn.down, layer.output.dense)
        copy_(block.ffn_norm, layer.output.LayerNorm)
    copy_(ours.head.dense, head.transform.dense)
    copy_(ours.head.dense_norm, head.transform.LayerNorm)
    ours.head.bias.copy_(head.bias)
    ids_BT = torch.randint(VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    want_BTV = theirs(ids_BT).logits
    size = float(want_BTV.abs().max())
    torch.testing.assert_close(ours(ids_BT, causal=False) / size, want_BTV / size, **EXACT)
