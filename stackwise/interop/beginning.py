"""An experiment that begins with a model folder: `stackwise run MODEL_FOLDER`."""

from __future__ import annotations

import re
from pathlib import Path

from stackwise.config import Experiment
from stackwise.errors import short
from stackwise.interop.errors import ModelError
from stackwise.interop.llama_config import LENGTH, LONGEST
from stackwise.interop.model_file import TOKENIZER
from stackwise.interop.model_folder import read_model

LR, MOST_TOKENS = 1e-5, 512  # small steps from trained weights; length of a sample


def experiment_from(folder: str | Path) -> Experiment:
    """What trains an imported model a stack at a time, to be changed with `replace`.

    Sizes, attention, objective, dtype and tokenizer are the model's; float16 weights train in
    float32, which holds them exactly. Blocks train in turn, embedding and head stay, weights step
    in backward at a small rate. Corpus and budget are the defaults: give your own.

    Args:
        folder: What `import_model` made.

    Raises:
        ModelError: If it is no model folder, or damaged.
    """
    folder = Path(folder)
    model = read_model(folder)
    low = "bfloat16" if model.dtype == "bfloat16" else "float32"
    longest = model.source.config.get(LONGEST, LENGTH)
    if type(longest) is not int:
        raise ModelError(
            f"{folder}: source.config.{LONGEST}: {short(longest)} is no number of tokens"
        )
    data: dict[str, object] = {"seq_len": min(MOST_TOKENS, longest)}
    if (folder / TOKENIZER).is_file():
        data["tokenizer"] = {"kind": "json", "path": str(folder / TOKENIZER)}
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).lstrip("._-")
    return Experiment(
        title=name[:64] or "model",
        start=str(folder),
        rack=model.rack,
        attention=model.attention,
        objective=model.objective,
        curriculum={"name": "block_coordinate", "embedding": "never", "head": "never"},
        data=data,
        optim={"lr": LR, "batch": 4, "grads": "in_backward", "clip": None, "ema": None},
        precision={"compute": low, "weights": low},
    )
