"""A finished run as what another one starts from: its rack, as it is read and scored.

A run names it by its folder, as it would a model's (`model_folder.py`). Parts are read at their
moving average where they have one; stacks that were frozen to less from their master, or else as
the numbers that they stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stackwise.adapters import carried_after
from stackwise.choice import Params
from stackwise.config import Experiment
from stackwise.data.tokenizer import Tokenizer
from stackwise.errors import ExperimentError
from stackwise.interop.errors import ModelError
from stackwise.memory.flops import vocab_size
from stackwise.model.adapters import deltas_of
from stackwise.model.shape import RackShape
from stackwise.runs import Run, attach
from stackwise.training.manifest import read_part
from stackwise.training.ownership import RACK, own_manifest
from stackwise.training.part_names import AVERAGE, MASTER, holds_weights
from stackwise.training.parts import numbers_of
from stackwise.training.start import stages_of


@dataclass(frozen=True)
class FinishedRun:
    """A finished run whose weights others begin with.

    Attributes:
        run: The run.
        manifest: Of its last checkpoint.
    """

    run: Run
    manifest: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.run.path

    @property
    def name(self) -> str:
        """What it is called in the provenance of a run that starts from it."""
        return self.run.id

    @property
    def experiment(self) -> Experiment:
        """What it trained."""
        return self.run.experiment

    @property
    def rack(self) -> RackShape:
        """Its sizes; a head that has parted from its table counts as one of its own."""
        shape = self.experiment.rack
        apart = "head" in self.manifest["parts"] and "weight" in self.part("head")
        return shape.model_copy(
            update={"vocab": vocab_size(self.experiment), "tied": shape.tied and not apart}
        )

    @property
    def attention(self) -> Params:
        """Its attention kind."""
        found: Params = self.experiment.attention
        return found

    @property
    def weights_hash(self) -> str:
        """One hash over its weights."""
        return self.run.weights_hash()

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part, as they train; of a stack with its adapter merged into them.

        Raises:
            CheckpointError: If its file is missing, cut or altered.
        """
        folder, parts = self.path / RACK, self.manifest["parts"]
        if f"{name}.{MASTER}" in parts:
            return self._merged(name, read_part(folder, self.manifest, f"{name}.{MASTER}"))
        tensors, form = read_part(folder, self.manifest, name), parts[name].get("format")
        if f"{name}.{AVERAGE}" in parts:
            tensors |= read_part(folder, self.manifest, f"{name}.{AVERAGE}")
        if form is not None:
            tensors = numbers_of(self.experiment, name, tensors, form)
        return self._merged(name, tensors)

    def _merged(self, name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors with what the stack's adapter adds to them, summed in float32."""
        adapter = carried_after(stages_of(self.run)).get(name)
        if adapter is None or adapter.part not in self.manifest["parts"]:
            return tensors
        beside = dict(deltas_of(self.part(adapter.part), adapter))
        summed = {key: tensors[key].float() + delta for key, delta in beside.items()}
        return tensors | {key: value.to(tensors[key].dtype) for key, value in summed.items()}


def check_tokenizer(begins: FinishedRun, tokenizer: Tokenizer) -> None:
    """Refuse to go on with weights that know other entries.

    Raises:
        ExperimentError: If the run read text with another tokenizer.
    """
    if begins.run.tokenizer().to_json() != tokenizer.to_json():
        raise ExperimentError(
            f"data.tokenizer: is another one than {begins.name} read text with, whose weights are "
            "to be trained on; take that of its experiment.yaml"
        )


def finished_run(folder: Path, *, verify: bool = False) -> FinishedRun:
    """A finished run, to start from.

    Args:
        folder: Its folder.
        verify: Read every part of it, which compares the files' hashes.

    Raises:
        ModelError: If it is not finished, or has not all stacks of its rack.
        CheckpointError: If its checkpoint is damaged.
    """
    run = attach(folder)
    if run.state != "finished":
        raise ModelError(f"{folder}: is {run.state}, and a run starts from a finished one")
    made = FinishedRun(run, own_manifest(run, RACK))
    for name in [n for n in made.manifest["parts"] if holds_weights(n)] if verify else ():
        made.part(name)
    return made
