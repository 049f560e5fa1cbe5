"""Latent attention says what DeepSeek-V2 of transformers says with the same weights.

Joint matrices are cut, and that is all that differs. Tolerance as in
test_logits_equal_transformers.py: float32 sums of up to 64 terms of order one, in another order,
three in a row.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape

LENGTH = 13


@pytest.mark.parametrize("q_rank", [None, 12])
def test_logits_equal_deepseek_v2_of_transformers(q_rank: int | None, params) -> None:
    sizes = {"kv_rank": 16, "q_rank": q_rank, "nope_dim": 8, "rope_dim": 6, "v_dim": 10}
    torch.manual_seed(0)
    theirs = DeepseekV2ForCausalLM(
        DeepseekV2Config(
            vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=16, q_lora_rank=q_rank,
            qk_nope_head_dim=8, qk_rope_head_dim=6, v_head_dim=10, first_k_dense_replace=2,
            rms_norm_eps=1e-6, initializer_range=0.2, attention_bias=False,
        )
    ).eval()  # fmt: skip
    shape = RackShape(stacks=1, blocks_per_stack=2, d_model=32, heads=4, d_ff=48, norm_eps=1e-6)
    rack = Rack(shape, params.attention({"kind": "mla", **sizes}), 61)
    wrong = rack.load_state_dict(deepseek_weights(theirs, q_rank), strict=False)
    assert wrong.unexpected_keys == [] and wrong.missing_keys == []
    ids_BT = torch.randint(61, (2, LENGTH))
    with torch.no_grad():
        expected = theirs(ids_BT).logits
        assert expected.std() > 0.3
        assert (rack(ids_BT, causal=True) - expected).abs().max() < 1.2e-5


def deepseek_weights(model: nn.Module, q_rank: int | None) -> dict[str, Tensor]:
    """DeepSeek-V2's weights under the rack's names: joint matrices cut."""
    source = model.state_dict()
    weights = {
        "embedding.table": F.pad(source["model.embed_tokens.weight"], (0, 0, 0, 2)),
        "head.norm.weight": source["model.norm.weight"],
        "head.weight": source["lm_head.weight"],
    }
    for number in range(2):
        ours, hers = f"stacks.s0.blocks.{number}.", f"model.layers.{number}."
        inside = {name.removeprefix(hers): value for name, value in source.items() if hers in name}
        read_HED = inside["self_attn.kv_b_proj.weight"].unflatten(0, (4, 18))
        down, shared = inside["self_attn.kv_a_proj_with_mqa.weight"].split((16, 6))
        found = {
            "attention_norm": inside["input_layernorm.weight"],
            "ffn_norm": inside["post_attention_layernorm.weight"],
            "attention.q": inside[f"self_attn.q_{'b_' if q_rank else ''}proj.weight"],
            "attention.kv_down": down,
            "attention.kv_norm": inside["self_attn.kv_a_layernorm.weight"],
            "attention.k_rope": shared,
            "attention.k": read_HED[:, :8].flatten(0, 1),
            "attention.v": read_HED[:, 8:].flatten(0, 1),
            "attention.out": inside["self_attn.o_proj.weight"],
            **{f"ffn.{end}": inside[f"mlp.{end}_proj.weight"] for end in ("gate", "up", "down")},
        }
        if q_rank:
            found["attention.q_down"] = inside["self_attn.q_a_proj.weight"]
            found["attention.q_norm"] = inside["self_attn.q_a_layernorm.weight"]
        weights |= {f"{ours}{name}.weight": value for name, value in found.items()}
    return weights
