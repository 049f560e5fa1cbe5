"""From a part's tensors on disk to a module of a rack, as it trains or frozen.

Which parts a checkpoint has is in `saved.py`; which stacks are in memory in a stage, and in what
form, in `residence.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stackwise.model.frozen import FrozenLinear, replace_linears
from stackwise.model.rack import Rack
from stackwise.training.checkpoint import CheckpointError, read_part


def fill(rack: Rack, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Load the parts of a checkpoint into a rack, adding the stacks that it lacks.

    Raises:
        CheckpointError: If a part is damaged, or of a rack that is built otherwise.
    """
    for name, entry in manifest["parts"].items():
        if "." not in name:
            if name not in rack.parts():
                rack.add(name, empty=True)
            put(rack, name, read_part(folder, manifest, name), folder, entry.get("format"))


def put(
    rack: Rack,
    name: str,
    tensors: Mapping[str, Tensor],
    folder: Path,
    form: str | None = None,
) -> None:
    """Load a part's tensors into its module.

    Args:
        rack: Has the part.
        name: The part's.
        tensors: By name, as its file holds them.
        folder: Where they come from, for messages.
        form: What the part's matrices are frozen to; None if they are as they train.

    Raises:
        CheckpointError: If they are of a rack that is built otherwise.
    """
    module = rack.parts()[name]
    if name == "head" and "weight" in tensors:
        rack.untie()
    try:
        if form is not None:
            freeze_to(module, form, tensors)
            frozen = {key for key, part in module.named_modules() if isinstance(part, FrozenLinear)}
            tensors = {k: v for k, v in tensors.items() if k.rpartition(".")[0] not in frozen}
            missing, odd = module.load_state_dict(tensors, strict=False)
            wrong = [k for k in missing if k.rpartition(".")[0] not in frozen] + list(odd)
            if wrong:
                raise KeyError(wrong[0])
        else:
            module.load_state_dict(tensors)
    except (RuntimeError, KeyError):
        raise CheckpointError(
            f"{folder}: part {name!r} has other tensors than this version's rack; train it "
            "again, or open it with the version in provenance.json"
        ) from None


def freeze_to(module: nn.Module, form: str, tensors: Mapping[str, Tensor]) -> None:
    """Put a `FrozenLinear` that holds its tensors in the place of each linear layer."""

    def made(name: str, linear: nn.Linear) -> FrozenLinear:
        inside = {
            key.removeprefix(f"{name}."): value
            for key, value in tensors.items()
            if key.startswith(f"{name}.") and key != f"{name}.bias"
        }
        shape = (linear.out_features, linear.in_features)
        return FrozenLinear(form, shape, inside, linear.bias)

    replace_linears(module, made)
