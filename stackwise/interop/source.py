"""A folder as Hugging Face's `save_pretrained` leaves it: config.json and safetensors files.

Read by headers alone. What its configuration means for a rack is in `llama_config.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackwise.errors import short
from stackwise.interop.errors import ModelError, refuse
from stackwise.interop.stored import check_is_file, tensors_in
from stackwise.training.tensorfile import LazyTensor

CONFIG, ONE_FILE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
LARGEST_CONFIG, LARGEST_INDEX = 1 << 18, 16 << 20


@dataclass(frozen=True)
class Source:
    """A model's folder.

    Attributes:
        path: Where it lies.
        config: Its config.json.
        tensors: Every tensor of its files, by name.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, LazyTensor]


def read_source(path: str | Path) -> Source:
    """Read a folder's config.json and the headers of its safetensors files.

    Raises:
        ModelError: If it is no folder, or a file of it is missing, damaged, or a pickle.
    """
    path = Path(path)
    if not os.path.isdir(path):  # False where the system will not say
        raise ModelError(
            f"{path}: is no folder; name one that holds {CONFIG} and {ONE_FILE}, as "
            "`save_pretrained` writes them"
        )
    config = read_json(path / CONFIG, LARGEST_CONFIG)
    if (path / ONE_FILE).exists():
        return Source(path, config, tensors_in(path / ONE_FILE))
    if (path / INDEX).exists():
        return Source(path, config, sharded(path))
    pickles = sorted(f.name for f in path.iterdir() if f.suffix in (".bin", ".pt", ".pth"))
    if pickles:
        raise ModelError(
            f"{path}: {pickles[0]} is a pickle, which can run code and is not read; load it with "
            "transformers and save it with save_pretrained, which writes safetensors"
        )
    raise ModelError(f"{path}: holds neither {ONE_FILE} nor {INDEX}; fetch the weights")


def sharded(path: Path) -> dict[str, LazyTensor]:
    """The tensors of all the files that the index names."""
    placed = read_json(path / INDEX, LARGEST_INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise ModelError(f"{path / INDEX}: has no mapping 'weight_map'; fetch it again")
    files = {}
    for file in dict.fromkeys(map(str, placed.values())):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise ModelError(
                f"{path / INDEX}: names {short(file)}, which is no safetensors file of this folder"
            )
        if not (path / file).is_file():
            raise ModelError(f"{path / INDEX}: names {file}, which is not there; fetch it")
        files[file] = tensors_in(path / file)
    problems = [
        f"{path / INDEX}: says that {name} is in {file}, which has no such tensor; fetch both again"
        for name, file in placed.items()
        if name not in files[file]
    ]
    problems += [
        f"{path / file}: holds {name}, which the index does not place there; fetch both again"
        for file, tensors in files.items()
        for name in tensors
        if placed.get(name) != file
    ]
    refuse(problems)
    return {name: files[file][name] for name, file in placed.items()}


def read_json(path: Path, most_bytes: int) -> dict[str, Any]:
    """A JSON file that holds one mapping.

    Raises:
        ModelError: If it is missing, too long, or holds something else.
    """
    try:
        check_is_file(path)
        if path.stat().st_size > most_bytes:
            raise ModelError(f"{path}: is over {most_bytes} bytes long; fetch the model's own")
        value = json.loads(path.read_text("utf-8"))
        json.dumps(value, ensure_ascii=False).encode()  # half a character is no text
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; fetch it with the weights") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: is not JSON ({error}); fetch it again") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: {short(value)} is not a mapping of keys; fetch it again")
    return value
