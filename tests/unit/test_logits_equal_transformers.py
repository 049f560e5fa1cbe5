"""The same weights give the same logits as transformers' GPT-2, Llama and BERT.

Tolerance: both sides add the same float32 numbers in another order. A sum of n terms is off by at
most n * 2^-24 of its terms' size: 4e-6 for the 64 terms of the longest sum here, with values of
order one; three such sums in a row bound what two blocks were seen to do (1.9e-6). Weights are
widened and the norms' epsilon is 0.05, so that a wrong epsilon, scale or angle shows far above it.
"""

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from stackwise.model.rack import Rack
from stackwise.model.shape import Llama3Scaling, RackShape

VOCAB, WIDTH, LENGTH = 61, 32, 24
TOLERANCE = 1.2e-5
EPS = 0.05


def widened(model: nn.Module) -> nn.Module:
    """Every parameter random and of a size that matters, norms and biases too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def fill(rack: Rack, weights: dict[str, Tensor]) -> Rack:
    """Load weights by the rack's own names; only the special vectors may be left out."""
    wrong = rack.load_state_dict(weights, strict=False)
    assert wrong.unexpected_keys == []
    assert wrong.missing_keys == ["embedding.special"]
    return rack


def some_ids() -> Tensor:
    return torch.randint(VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(1))


def assert_logits_agree(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 0.3
    assert (ours - theirs).abs().max() < TOLERANCE


def test_gpt2(params) -> None:
    theirs = widened(
        GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCAB, n_positions=LENGTH, n_embd=WIDTH, n_layer=2, n_head=4,
                layer_norm_epsilon=EPS, bos_token_id=0, eos_token_id=0,
            )
        )
    )  # fmt: skip
    shape = RackShape(
        stacks=2, blocks_per_stack=1, d_model=WIDTH, heads=4, tied=True, ffn="gelu_tanh",
        norm="layernorm", norm_eps=EPS, bias=True, positions="learned", max_positions=LENGTH,
    )  # fmt: skip
    source = theirs.state_dict()
    weights = {
        "embedding.tokens": source["transformer.wte.weight"],
        "embedding.positions": source["transformer.wpe.weight"],
        "head.norm.weight": source["transformer.ln_f.weight"],
        "head.norm.bias": source["transformer.ln_f.bias"],
    }
    for number in range(2):
        ours, hers = f"stacks.s{number}.blocks.0.", f"transformer.h.{number}."
        for end in ("weight", "bias"):
            q, k, v = source[f"{hers}attn.c_attn.{end}"].chunk(3, dim=-1)
            weights |= {
                f"{ours}attention_norm.{end}": source[f"{hers}ln_1.{end}"],
                f"{ours}ffn_norm.{end}": source[f"{hers}ln_2.{end}"],
                f"{ours}attention.q.{end}": q.mT if end == "weight" else q,
                f"{ours}attention.k.{end}": k.mT if end == "weight" else k,
                f"{ours}attention.v.{end}": v.mT if end == "weight" else v,
            }
        for name, other in (
            ("attention.out", "attn.c_proj"),
            ("ffn.up", "mlp.c_fc"),
            ("ffn.down", "mlp.c_proj"),
        ):
            weights[f"{ours}{name}.weight"] = source[f"{hers}{other}.weight"].mT
            weights[f"{ours}{name}.bias"] = source[f"{hers}{other}.bias"]
    rack = fill(Rack(shape, params.attention("mha"), VOCAB), weights)
    with torch.no_grad():
        assert_logits_agree(rack(some_ids(), causal=True), theirs(some_ids()).logits)


SCALINGS = {
    "plain": None,
    "llama3": Llama3Scaling(factor=8.0, low=1.0, high=4.0, original=16),
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_llama(scaling: str, tied: bool, params) -> None:
    stretch = SCALINGS[scaling]
    rope = {"rope_type": "default", "rope_theta": 500.0}
    if stretch is not None:
        rope = {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": stretch.factor,
            "low_freq_factor": stretch.low,
            "high_freq_factor": stretch.high,
            "original_max_position_embeddings": stretch.original,
        }
    theirs = widened(
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=2, head_dim=16, rms_norm_eps=EPS,
                max_position_embeddings=LENGTH, rope_parameters=rope, tie_word_embeddings=tied,
            )
        )
    )  # fmt: skip
    shape = RackShape(
        stacks=1, blocks_per_stack=2, d_model=WIDTH, heads=4, kv_heads=2, head_dim=16, d_ff=48,
        norm_eps=EPS, rope_base=500.0, rope_scaling=stretch, tied=tied,
    )  # fmt: skip
    rack = fill(Rack(shape, params.attention("gqa"), VOCAB), llama_weights(theirs, tied))
    with torch.no_grad():
        assert_logits_agree(rack(some_ids(), causal=True), theirs(some_ids()).logits)


def llama_weights(model: nn.Module, tied: bool) -> dict[str, Tensor]:
    """Llama's weights under the rack's names, for a rack of one stack."""
    source = model.state_dict()
    weights = {
        "embedding.tokens": source["model.embed_tokens.weight"],
        "head.norm.weight": source["model.norm.weight"],
    }
    if not tied:
        weights["head.weight"] = source["lm_head.weight"]
    names = {
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attention.q": "self_attn.q_proj",
        "attention.k": "self_attn.k_proj",
        "attention.v": "self_attn.v_proj",
        "attention.out": "self_attn.o_proj",
        "ffn.gate": "mlp.gate_proj",
        "ffn.up": "mlp.up_proj",
        "ffn.down": "mlp.down_proj",
    }
    for number in range(2):
        for ours, hers in names.items():
            weights[f"stacks.s0.blocks.{number}.{ours}.weight"] = source[
                f"model.layers.{number}.{hers}.weight"
            ]
    return weights


def test_bert(params) -> None:
    theirs = widened(
        BertForMaskedLM(
            BertConfig(
                vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4,
                intermediate_size=48, max_position_embeddings=LENGTH, layer_norm_eps=EPS,
            )
        )
    )  # fmt: skip
    shape = RackShape(
        stacks=2, blocks_per_stack=1, d_model=WIDTH, heads=4, d_ff=48, tied=True, ffn="gelu",
        norm="layernorm", norm_eps=EPS, norm_place="post", bias=True, positions="learned",
        max_positions=LENGTH, token_types=2, embed_norm=True, head_transform=True, head_bias=True,
    )  # fmt: skip
    source = theirs.state_dict()
    weights = {
        "embedding.tokens": source["bert.embeddings.word_embeddings.weight"],
        "embedding.positions": source["bert.embeddings.position_embeddings.weight"],
        "embedding.types": source["bert.embeddings.token_type_embeddings.weight"],
        "head.bias": source["cls.predictions.bias"],
    }
    names = {
        "attention.q": "attention.self.query",
        "attention.k": "attention.self.key",
        "attention.v": "attention.self.value",
        "attention.out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "ffn.up": "intermediate.dense",
        "ffn.down": "output.dense",
        "ffn_norm": "output.LayerNorm",
    }
    for end in ("weight", "bias"):
        weights[f"embedding.norm.{end}"] = source[f"bert.embeddings.LayerNorm.{end}"]
        weights[f"head.dense.{end}"] = source[f"cls.predictions.transform.dense.{end}"]
        weights[f"head.dense_norm.{end}"] = source[f"cls.predictions.transform.LayerNorm.{end}"]
        for number in range(2):
            for ours, hers in names.items():
                weights[f"stacks.s{number}.blocks.0.{ours}.{end}"] = source[
                    f"bert.encoder.layer.{number}.{hers}.{end}"
                ]
    rack = fill(Rack(shape, params.attention("mha"), VOCAB), weights)
    with torch.no_grad():
        assert_logits_agree(rack(some_ids(), causal=False), theirs(some_ids()).logits)
