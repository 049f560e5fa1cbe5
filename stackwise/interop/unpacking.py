"""Weights of a checkpoint's parts, read lazily: of frozen ones as numbers again.

What is packed is made a matrix at a time as it is written; how packing is done is in
`model/formats.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stackwise.adapters import Adapter
from stackwise.interop.stored import narrowed, tensors_in
from stackwise.model.adapters import pairs_of
from stackwise.model.formats import Format, format_called
from stackwise.training.manifest import CheckpointError
from stackwise.training.part_names import AVERAGE, MASTER, home_of
from stackwise.training.tensorfile import LazyTensor


def weights_of(
    folder: Path,
    manifest: Mapping[str, Any],
    part: str,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    averages: bool = True,
    dtype: torch.dtype = torch.bfloat16,
) -> dict[str, LazyTensor]:
    """The weights of one part of a checkpoint, by the header of its file.

    Of a part that is frozen to less they are its master's, if one is kept, its matrices in no wider
    dtype than they train in; else what is left.

    Args:
        folder: The checkpoint's: the `rack` of a run or of a model folder.
        manifest: What `read_manifest` gave.
        part: The part's name.
        shapes: Of the part's tensors as they train, by name.
        averages: Where the part was training, its moving average, if there is one.
        dtype: Of weights as they train, and of those that are unpacked.

    Raises:
        CheckpointError: If the part is not listed.
        ModelError: If its file is missing or cut.
    """
    if part not in manifest["parts"]:
        raise CheckpointError(
            f"{folder.name}: no part {part!r}; it has {', '.join(manifest['parts'])}"
        )
    found = tensors_of(folder, manifest, part)
    form, master = manifest["parts"][part].get("format"), f"{part}.{MASTER}"
    if form and master not in manifest["parts"]:
        return unpacked(found, format_called(form), shapes, dtype)
    if form:
        kept = tensors_of(folder, manifest, master)
        return {n: kept[n] if n in found else narrowed(kept[n], dtype) for n in kept}
    if averages and f"{part}.{AVERAGE}" in manifest["parts"]:
        found |= tensors_of(folder, manifest, f"{part}.{AVERAGE}")
    return found


def tensors_of(folder: Path, manifest: Mapping[str, Any], name: str) -> dict[str, LazyTensor]:
    """What one file of a checkpoint holds."""
    return tensors_in(home_of(folder, name) / manifest["parts"][name]["file"])


def unpacked(
    tensors: Mapping[str, LazyTensor],
    form: Format,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
) -> dict[str, LazyTensor]:
    """What packed tensors stand for.

    Args:
        tensors: Of the part's file: those of the format, and norms and biases as they are.
        form: The format.
        shapes: Of the part's tensors as they train, by name.
        dtype: Of the matrices that are unpacked.
    """
    last, found = LastMade(tensors, form, dtype), {}
    for name, shape in shapes.items():
        if name in tensors:
            found[name] = tensors[name]
        else:
            linear = name.removesuffix(".weight")
            found[name] = LazyTensor(dtype, shape, partial(last.rows, linear, shape))
    return found


class LastMade:
    """Holds the matrix that was unpacked last, since its rows are asked for in pieces."""

    def __init__(self, tensors: Mapping[str, LazyTensor], form: Format, dtype: torch.dtype) -> None:
        self.tensors, self.form, self.dtype = tensors, form, dtype
        self.linear, self.weight_OI = "", torch.empty(0)

    def rows(self, linear: str, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
        """Some rows of a layer's matrix."""
        if linear != self.linear:
            self.weight_OI = torch.empty(0)  # before the next one is made
            rows, columns = shape
            kept = {name: self.tensors[f"{linear}.{name}"] for name in self.form.layout((1, 1))}
            packed = {name: tensor.make() for name, tensor in kept.items()}
            self.weight_OI = self.form.unpack(packed, (rows, columns), self.dtype)
            self.linear = linear
        return self.weight_OI[start:stop]


def with_adapter(
    weights: Mapping[str, LazyTensor],
    folder: Path,
    manifest: Mapping[str, Any],
    adapter: Adapter,
    *,
    averages: bool = True,
) -> dict[str, LazyTensor]:
    """A stack's weights with its adapter merged into them, some rows at a time.

    The sum is worked out in float32 and rounded to the dtype that the weight has.
    """
    name = adapter.part
    tensors = tensors_of(folder, manifest, name)
    if averages and f"{name}.{AVERAGE}" in manifest["parts"]:
        tensors |= tensors_of(folder, manifest, f"{name}.{AVERAGE}")
    scale, found = adapter.alpha / adapter.rank, dict(weights)
    for owner, a_RI, b_OR in pairs_of({key: tensor.make() for key, tensor in tensors.items()}):
        weight = weights[f"{owner}.weight"]

        def rows(
            start: int,
            stop: int,
            weight: LazyTensor = weight,
            a_RI: Tensor = a_RI,
            b_OR: Tensor = b_OR,
        ) -> Tensor:
            added_OI = scale * (b_OR[start:stop].float() @ a_RI.float())
            return (weight.rows(start, stop).float() + added_OI).to(weight.dtype)

        found[f"{owner}.weight"] = LazyTensor(weight.dtype, weight.shape, rows)
    return found
