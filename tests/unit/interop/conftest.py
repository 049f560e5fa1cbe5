"""Small Llamas of Hugging Face's own, with random weights, as `save_pretrained` leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB, LENGTH = 31, 40
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 0.25,
    "high_freq_factor": 1.5,
    "original_max_position_embeddings": 16,
}
# What Llamas differ in: each of these decides a number.
KINDS: dict[str, dict[str, Any]] = {
    "gqa": {},
    "mha": {"num_key_value_heads": 4},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "llama3": {"rope_parameters": LLAMA3},
    "head_dim": {"head_dim": 24},
    "base": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "eps": {"rms_norm_eps": 0.3},
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One kind of Llama after the other, as keys of its configuration."""
    return KINDS[request.param]


@pytest.fixture
def llama(tmp_path: Path) -> Callable[..., Path]:
    """A maker of folders: `llama(dtype, shard, **keys)`; four layers, width 64."""

    def make(
        dtype: torch.dtype = torch.float32, shard: str = "1GB", name: str = "theirs", **keys: Any
    ) -> Path:
        config = LlamaConfig(
            vocab_size=keys.pop("vocab_size", VOCAB),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            **{"num_key_value_heads": 2, **keys},
        )
        model = LlamaForCausalLM(config).to(dtype)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.2, generator=generator)
        model.save_pretrained(tmp_path / name, max_shard_size=shard)
        return tmp_path / name

    return make


@pytest.fixture
def tensors() -> Callable[[Path], dict[str, Tensor]]:
    """All tensors of a folder, whatever its files."""

    def read(folder: Path) -> dict[str, Tensor]:
        files = folder.glob("*.safetensors")
        return {name: tensor for file in files for name, tensor in load_file(file).items()}

    return read


@pytest.fixture
def changed() -> Callable[..., None]:
    """Changes keys of a folder's config.json (None takes one out) or tensors of its one file."""

    def change(folder: Path, config: dict[str, Any] | None = None, **changes: Any) -> None:
        path = folder / "config.json"
        keys = {**json.loads(path.read_text()), **(config or {})}
        path.write_text(json.dumps({k: v for k, v in keys.items() if v is not None}))
        for name, tensor in changes.items():
            found = load_file(folder / "model.safetensors")
            found |= {name: tensor} if tensor is not None else {}
            if tensor is None:
                del found[name]
            save_file(found, folder / "model.safetensors")

    return change
