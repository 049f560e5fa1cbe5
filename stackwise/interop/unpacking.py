"""Weights of frozen parts as numbers again, a matrix at a time as they are written."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from stackwise.model.formats import Format
from stackwise.training.tensorfile import LazyTensor


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
