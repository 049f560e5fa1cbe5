"""A model folder: what an import leaves, and what a run can start from.

    model.yaml        sizes, attention, dtype, a hash over the weights, where it came from
    rack/             a checkpoint, one safetensors file per part (`training/checkpoint.py`)
    tokenizer.json    and the other small files of KEPT (`model_file.py`), where the source had them

Weights that are read lazily, of a model folder or of a run, come from `unpacking.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor

from stackwise.choice import Params, parse
from stackwise.errors import ExperimentError, said_in
from stackwise.interop.errors import DamagedModel, ModelError, refuse
from stackwise.interop.model_file import MODEL, ModelFile, Origin
from stackwise.interop.source import CONFIG
from stackwise.interop.stored import tensors_in
from stackwise.model.attention import ATTENTION
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape
from stackwise.objective import OBJECTIVES
from stackwise.report import program
from stackwise.runs.damage import RESTORE
from stackwise.runs.records import MANIFEST
from stackwise.training.manifest import CheckpointError, read_manifest, read_part, weights_hash
from stackwise.training.ownership import RACK
from stackwise.training.part_names import home_of
from stackwise.training.parts import check_part_held, fill
from stackwise.yaml_text import read_mapping, read_text

AGAIN = "import it again, or restore it from a copy"


@dataclass(frozen=True)
class ModelFolder:
    """A model folder that has been looked at: sizes, names and lengths go together.

    Attributes:
        path: The folder.
        rack: Its sizes; `rack.vocab` is given.
        attention: Its attention kind.
        objective: The objective it was trained with.
        dtype: Of most of its weights, as stored: `bfloat16`.
        weights_hash: One hash over them.
        manifest: What `rack/manifest.json` says.
        source: Where it came from.
    """

    path: Path
    rack: RackShape
    attention: Params
    objective: str
    dtype: str
    weights_hash: str
    manifest: Mapping[str, Any]
    source: Origin

    @property
    def vocab(self) -> int:
        """Entries of the head."""
        return self.rack.vocab or 0

    @property
    def name(self) -> str:
        """What it is called in the provenance of a run that starts from it."""
        return self.source.name

    @property
    def checkpoint(self) -> Path:
        """The folder of the weights."""
        return self.path / RACK

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part, their hash compared.

        Raises:
            ModelError: If the part's file is missing, cut or altered.
        """
        with blamed(self.path):
            return read_part(self.checkpoint, self.manifest, name)


def is_model(path: Path) -> bool:
    """Whether a folder is a model folder: it has a model.yaml."""
    return os.path.isfile(path / MODEL)  # False where the system will not say


def read_model(folder: str | Path, *, verify: bool = False) -> ModelFolder:
    """Look at a model folder: its files' headers, not their weights.

    Args:
        folder: What `import_model` made.
        verify: Compare every file's hash too, which reads all of it.

    Raises:
        ModelError: If it is no model folder, or a file of it is missing, cut, altered, or of
            another model.
    """
    folder = Path(folder)
    if not is_model(folder):
        command = "stackwise import"
        if os.path.isfile(folder / CONFIG):
            command = f"{program()} import {quote(str(folder))}"
        raise ModelError(
            f"{folder}: is no model folder (it has no {MODEL}); make one with: {command}"
        )
    where = str(folder / MODEL)
    try:
        values = read_mapping(read_text(where), where, "a model")
        with said_in(where):
            said = ModelFile.model_validate(values)
            attention = parse(ATTENTION, said.attention, "attention", "kind")
    except ExperimentError as error:
        raise ModelError(str(error)) from None
    if said.rack.vocab is None:
        raise ModelError(f"{folder / MODEL}: rack.vocab: is empty; {AGAIN}")
    if not (folder / RACK / MANIFEST).is_file():
        raise ModelError(f"{folder / RACK / MANIFEST}: is missing; {AGAIN}")
    with blamed(folder):
        manifest = read_manifest(folder / RACK)
        check_parts(folder, manifest, said, attention)
        for part in manifest["parts"] if verify else ():
            read_part(folder / RACK, manifest, part)
    return ModelFolder(
        path=folder,
        rack=said.rack,
        attention=attention,
        objective=said.objective,
        dtype=said.dtype,
        weights_hash=said.weights,
        manifest=manifest,
        source=said.source,
    )


@contextmanager
def blamed(folder: Path) -> Iterator[None]:
    """Say of a damaged checkpoint that it is a model folder's, which no training makes again."""
    try:
        yield
    except CheckpointError as error:
        raise DamagedModel(f"{folder}: {str(error).replace(RESTORE, AGAIN)}") from None


def check_parts(
    folder: Path, manifest: Mapping[str, Any], said: ModelFile, attention: Params
) -> None:
    """Refuse files that are not those that model.yaml means, by hash of the list, length, header.

    Raises:
        ModelError: With every tensor that differs.
    """
    if weights_hash(folder / RACK) != said.weights:
        raise ModelError(f"{folder / RACK}: is not the rack that {MODEL} was written with; {AGAIN}")
    for part, entry in manifest["parts"].items():
        check_part_held(said.rack, attention, said.rack.vocab or 0, part, entry, folder / RACK)
    problems = []
    for part, wanted in part_shapes(said.rack, attention).items():
        if part not in manifest["parts"]:
            problems.append(f"{folder / RACK}: has no part {part!r}; {AGAIN}")
            continue
        entry = manifest["parts"][part]
        path = home_of(folder / RACK, part) / entry["file"]
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            why = "is not as long as it was written" if path.is_file() else "is missing"
            problems.append(f"{path}: {why}; {AGAIN}")
            continue
        found = {name: tensor.shape for name, tensor in tensors_in(path).items()}
        if found != wanted:
            odd = sorted(found.items() ^ wanted.items())[0][0]
            problems.append(
                f"{path}: {odd} is {found.get(odd, 'missing')}, and {MODEL} says "
                f"{wanted.get(odd, 'nothing of it')}; {AGAIN}"
            )
    refuse(problems)


def part_shapes(shape: RackShape, attention: Params) -> dict[str, dict[str, tuple[int, ...]]]:
    """Name and shape of every tensor of a rack's parts, without making any."""
    with torch.device("meta"):
        rack = Rack(shape, attention, shape.vocab or 0)
    return {
        part: {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        for part, module in rack.parts().items()
    }


def open_model(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Rack:
    """The rack of a model folder, whole in memory: for models that fit there.

    Args:
        folder: What `import_model` made.
        dtype: Of its weights in memory.

    Raises:
        ModelError: As `read_model`, or if a file's hash differs.
    """
    model = read_model(folder)
    rack = Rack(model.rack, model.attention, model.vocab, seed=model.source.seed).to(dtype)
    with blamed(model.path):
        fill(rack, model.checkpoint, dict(model.manifest))
    rack.objective = parse(OBJECTIVES, model.objective, "objective", "kind")
    return rack.eval()
