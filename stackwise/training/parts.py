"""From a part's tensors on disk to a module of a rack, as it trains or frozen.

Which parts a checkpoint has is in `saved.py`; which stacks are in memory in a stage, and in what
form, in `residence.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stackwise.errors import ExperimentError
from stackwise.memory.flops import vocab_size
from stackwise.model.block import block_parameters
from stackwise.model.count import embedding_parameters, head_parameters
from stackwise.model.formats import format_called
from stackwise.model.freezing import replace_linears
from stackwise.model.frozen import FrozenLinear
from stackwise.model.init import shelled
from stackwise.model.rack import Rack, Stack
from stackwise.model.shape import stack_ids
from stackwise.runs.damage import RESTORE
from stackwise.training.manifest import CheckpointError, read_part, verify_part

if TYPE_CHECKING:
    from stackwise.choice import Params
    from stackwise.config import Experiment
    from stackwise.model.shape import RackShape

LEAST_BYTES, LEAST_FROZEN = 2.0, 0.5  # of a number, as bfloat16 and as four bits
SLACK, SLACK_BYTES = 1.5, 1 << 20


def check_held(
    exp: Experiment, folder: Path, manifest: Mapping[str, Any], *, ends: bool = True
) -> None:
    """Refuse a checkpoint whose files cannot hold its rack, before memory is taken for one.

    Sizes in experiment.yaml are only claims, and may be a stranger's.

    Args:
        exp: The experiment.
        folder: The checkpoint's.
        manifest: Its manifest.
        ends: Whether embedding and head have to be in it.

    Raises:
        CheckpointError: If a file is missing or cut, or much shorter than its part.
    """
    wanted = ("embedding", "head") if ends else ()
    parts = {name: {"bytes": 0} for name in wanted} | manifest["parts"]
    for name, entry in parts.items():
        if "." in name:
            continue
        if name in manifest["parts"]:
            verify_part(folder, manifest, name, whole=False)
        check_part_held(exp.rack, exp.attention, vocab_size(exp), name, entry, folder)


def check_part_held(
    shape: RackShape,
    attention: Params,
    vocab: int,
    name: str,
    entry: Mapping[str, Any],
    folder: Path,
) -> None:
    """The same of one part, by arithmetic; a format of frozen weights takes half a byte at least.

    Raises:
        CheckpointError: If its file is much shorter than that.
    """
    ends = {"embedding": embedding_parameters(shape, vocab), "head": head_parameters(shape, vocab)}
    stack = shape.blocks_per_stack * block_parameters(shape, attention)
    least = ends.get(name, stack) * (LEAST_FROZEN if entry.get("format") else LEAST_BYTES)
    if least > SLACK * entry["bytes"] + SLACK_BYTES:
        raise CheckpointError(
            f"{folder.name}: part {name!r} has {entry['bytes']} bytes, and would take {least:.0f} "
            f"or more in a rack of these sizes; {RESTORE}"
        )


def empty_rack(exp: Experiment, device: torch.device) -> Rack:
    """The rack of an experiment with its ends alone, as they start at random."""
    rack = Rack(
        exp.rack,
        exp.attention,
        vocab_size(exp),
        stacks=(),
        seed=exp.seed,
        dtype=getattr(torch, exp.precision.weights),
    ).to(device)
    rack.objective = exp.objective
    return rack


def numbers_of(
    exp: Experiment, name: str, tensors: Mapping[str, Tensor], form: str
) -> dict[str, Tensor]:
    """A frozen stack's tensors as they train: its matrices as the numbers that they stand for.

    Args:
        exp: The experiment of the rack.
        name: The stack's id.
        tensors: As its file holds them.
        form: The format of its matrices.
    """
    place, dtype = stack_ids(exp.rack).index(name), getattr(torch, exp.precision.weights)
    module: nn.Module = shelled(lambda: Stack(exp.rack, exp.attention, place), dtype)
    freeze_to(module, form, tensors)
    module.load_state_dict(tensors)
    linears = {k: m for k, m in module.named_modules() if isinstance(m, FrozenLinear)}
    rest = {k: v for k, v in tensors.items() if k.rpartition(".")[0] not in linears}
    biases = {f"{k}.bias": m.bias for k, m in linears.items() if m.bias is not None}
    return {**rest, **biases, **{f"{k}.weight": m.weight for k, m in linears.items()}}


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
        ExperimentError: If `form` needs a package that is not here.
    """
    module = rack.parts()[name]
    if name == "head" and "weight" in tensors:
        rack.untie()
    with built_alike(folder, name):
        if form is not None:
            freeze_to(module, form, tensors)
        module.load_state_dict(tensors)


def put_rest(rack: Rack, name: str, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Load what of a part is no matrix of a linear layer, reading nothing else of its file."""
    module = rack.parts()[name]
    linears = [key for key, inner in module.named_modules() if isinstance(inner, nn.Linear)]
    wanted = {
        key: value
        for key, value in read_part(folder, manifest, name, verify=False).items()
        if key.rpartition(".")[0] not in linears or key.endswith(".bias")
    }
    with built_alike(folder, name):
        missing, odd = module.load_state_dict(wanted, strict=False)
        lacks = [key for key in missing if key.removesuffix(".weight") not in linears]
        if odd or lacks:
            raise RuntimeError(f"{odd or lacks}")


def freeze_to(module: nn.Module, form: str, tensors: Mapping[str, Tensor]) -> None:
    """Put a `FrozenLinear` in the place of each linear layer, for the tensors that a file has."""
    chosen = format_called(form)

    def made(name: str, linear: nn.Linear) -> FrozenLinear:
        shape = (linear.out_features, linear.in_features)
        kept = {code: tensors[f"{name}.{code}"] for code in chosen.layout(shape)}
        return FrozenLinear(chosen, shape, kept, linear.bias, dtype=linear.weight.dtype)

    replace_linears(module, made)


@contextmanager
def built_alike(folder: Path, name: str) -> Iterator[None]:
    """Say in words of ours that tensors do not fit a module.

    Raises:
        CheckpointError: If they do not.
        ExperimentError: If their format needs a package that is not here; it says so itself.
    """
    try:
        yield
    except ExperimentError:
        raise
    except (RuntimeError, KeyError, ValueError):
        raise CheckpointError(
            f"{folder}: part {name!r} has other tensors than this version's rack; train it "
            "again, or open it with the version in provenance.json"
        ) from None
