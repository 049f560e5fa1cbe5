"""`stackwise export`: a model folder or a run into a folder that transformers loads by itself.

Some rows of a tensor are in memory at a time, as in the import. What is written, and what is
refused, is in `export_plan.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackwise import __version__
from stackwise.atomic import flush, write_text
from stackwise.interop.errors import ModelError
from stackwise.interop.export_plan import Export, prepared
from stackwise.interop.importing import OnBytes, size_bytes
from stackwise.interop.model_file import TOKENIZER
from stackwise.interop.new_folder import new_folder
from stackwise.interop.source import CONFIG, INDEX, ONE_FILE
from stackwise.interop.stored import told
from stackwise.runs import Run
from stackwise.training.tensorfile import LazyTensor, save_file

SHARD_BYTES = 5 * 10**9
FORMATS = ("hf",)
ORIGIN, TOKENIZER_CONFIG = "stackwise.json", "tokenizer_config.json"
PLAIN_TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
}


def export_model(
    source: str | Path | Run,
    target: str | Path,
    *,
    to: str = "hf",
    shard_bytes: int = SHARD_BYTES,
    raw: bool = False,
    best: bool = False,
) -> Path:
    """Write a folder that transformers' `AutoModelForCausalLM` loads, with no code of ours.

    Some rows of a tensor are in memory at a time, however large the model is. Which weights they
    are stands in the new folder's stackwise.json.

    Args:
        source: A model folder, a run, its folder or its id.
        target: The new folder, not there yet or empty.
        to: The format; `hf` is the one there is: Hugging Face's Llama.
        shard_bytes: At most this much in a file, but for a larger tensor.
        raw: Of a run that is not finished, the weights themselves and not their average.
        best: Of a run, the weights of the lowest held-out loss in its last stage.

    Returns:
        The new folder.

    Raises:
        ModelError: If the rack is none that a Llama can be, with every reason, or the target
            cannot be had; nothing is left behind.
        RunError: If there is no such run.
        CheckpointError: If its weights are damaged, or there are none yet.
        OSError: If the target cannot be written; nothing is left behind.
    """
    if to not in FORMATS:
        raise ModelError(f"to: {to!r} is not written; known: {', '.join(FORMATS)}")
    return written(prepared(source, raw=raw, best=best), target, shard_bytes=shard_bytes)


def written(
    export: Export,
    target: str | Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    on_bytes: OnBytes | None = None,
) -> Path:
    """Write an export.

    Raises:
        ModelError: If the target cannot be had, or a file is no longer what it was.
        OSError: If it cannot be written; nothing is left behind.
    """
    if not isinstance(shard_bytes, int) or shard_bytes < 1:
        raise ModelError(f"shard_bytes: {shard_bytes!r} must be a whole number of 1 or more")
    target, shards = Path(target), sharded(export.tensors, shard_bytes)
    need = export.bytes + sum(path.stat().st_size for path in export.copied.values())
    with new_folder(target, export.folder, need) as folder:
        placed: dict[str, str] = {}
        for number, names in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            file = file if len(shards) > 1 else ONE_FILE
            tensors = {name: export.tensors[name] for name in names}
            if on_bytes is not None:
                tensors = {name: told(tensor, on_bytes) for name, tensor in tensors.items()}
            save_file(tensors, folder / file)
            flush(folder / file)
            placed |= dict.fromkeys(names, file)
        if len(shards) > 1:
            index = {"metadata": {"total_size": export.bytes}, "weight_map": placed}
            write_json(folder / INDEX, index)
        for name, path in export.copied.items():
            shutil.copyfile(path, folder / name)
        if TOKENIZER in export.copied and TOKENIZER_CONFIG not in export.copied:
            write_json(folder / TOKENIZER_CONFIG, PLAIN_TOKENIZER)
        origin = {**export.origin, "weights": export.weights, "stackwise": __version__}
        write_json(folder / ORIGIN, origin)
        write_json(folder / CONFIG, export.config)
    return target


def sharded(tensors: Mapping[str, LazyTensor], most_bytes: int) -> list[list[str]]:
    """Names of tensors by file, each as full as it may be, in their order."""
    found: list[list[str]] = [[]]
    held = 0
    for name, tensor in tensors.items():
        if found[-1] and held + size_bytes(tensor) > most_bytes:
            found.append([])
            held = 0
        found[-1].append(name)
        held += size_bytes(tensor)
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON file, flushed."""
    write_text(path, json.dumps(value, indent=2) + "\n")
