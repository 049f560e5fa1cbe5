"""model.yaml: what a model folder says of itself, and the small files that go along.

How a folder is looked at is in `model_folder.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import Field

from stackwise.choice import Checked
from stackwise.interop.errors import ModelError
from stackwise.model.shape import RackShape
from stackwise.yaml_text import MOST_BYTES

MODEL, TOKENIZER, SENTENCEPIECE = "model.yaml", "tokenizer.json", "tokenizer.model"
KEPT = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    SENTENCEPIECE,
    "chat_template.jinja",
    "generation_config.json",
)


class Origin(Checked):
    """Where a model came from, and what its export needs beside the weights."""

    kind: Literal["llama"] = Field("llama", description="whose format it was")
    name: str = Field(description="name of the folder that it was read from")
    seed: int = Field(0, description="of the vectors of [MASK] and [START] that were drawn")
    repeated: tuple[str, ...] = Field((), description="tensors that it stored a second time")
    notes: tuple[str, ...] = Field(
        (), description="what was left out, is not read, or is not there"
    )
    config: dict[str, Any] = Field(description="its config.json")


class ModelFile(Checked):
    """What model.yaml says."""

    format: Literal[1] = Field(1, description="of this file")
    rack: RackShape = Field(description="sizes, as in an experiment")
    attention: dict[str, Any] = Field(description="kind of attention, as in an experiment")
    objective: str = Field("clm", description="what it was trained with: from left to right")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(description="of most weights")
    weights: str = Field(pattern="^[0-9a-f]{64}$", description="hash over the files of rack/")
    source: Origin = Field(description="where it came from")

    def to_yaml(self) -> str:
        """The text of model.yaml."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse a config.json that model.yaml could not hold and be read again.

    Raises:
        ModelError: If it is nested too deeply, or written out too long.
    """
    try:
        if len(yaml.safe_dump(dict(config)).encode()) <= MOST_BYTES // 2:
            return
    except RecursionError:
        pass
    raise ModelError(
        "config.json: is too long or nested too deeply to be a Llama's; fetch it again"
    )
