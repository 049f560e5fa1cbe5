"""Tensors as they lie in safetensors files, read some rows at a time.

A file is opened for every piece, so that no page of an earlier one stays mapped. `joined`, `cut`
and `reordered` make new lazy tensors of others; they read nothing either. How such a tensor is
written is in `training/tensorfile.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stackwise.interop.errors import ModelError
from stackwise.training.tensorfile import DTYPES, LazyTensor, made

DTYPE_OF = {name: dtype for dtype, name in DTYPES.items()}


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, its header read and checked against its length.

    Raises:
        ModelError: If it is missing, cut short, or no such file.
    """
    try:
        check_is_file(path)
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; fetch it again") from None
    except SafetensorError as error:
        raise ModelError(
            f"{path}: is not a whole safetensors file ({error}); fetch it again"
        ) from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None


def check_is_file(path: Path) -> None:
    """Raise if something else lies in a file's place, of which a pipe would never end.

    Links are followed: a folder of the hub's cache is made of them.

    Raises:
        ModelError: If so.
    """
    if path.exists() and not path.is_file():
        raise ModelError(f"{path}: is no file; fetch it again")


def tensors_in(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a file, by its header alone.

    Raises:
        ModelError: If it is missing, cut short, no such file, or holds a dtype that torch has not.
    """
    found = {}
    with opened(path) as file:
        for name in file.keys():  # noqa: SIM118
            header = file.get_slice(name)
            kind, shape = header.get_dtype(), tuple(header.get_shape())
            if kind not in DTYPE_OF:
                raise ModelError(
                    f"{path}: tensor {name!r} has dtype {kind}, which is not read; known: "
                    f"{', '.join(DTYPE_OF)}"
                )
            found[name] = lying(path, name, DTYPE_OF[kind], shape)
    return found


def lying(path: Path, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> LazyTensor:
    """One tensor of a file."""

    def rows(start: int, stop: int) -> Tensor:
        with opened(path) as file:
            return file.get_slice(name)[start:stop]

    return LazyTensor(dtype, shape, rows)


def joined(tensors: Sequence[LazyTensor]) -> LazyTensor:
    """Tensors of one dtype and width, one under the other."""
    count = sum(tensor.shape[0] for tensor in tensors)

    def rows(start: int, stop: int) -> Tensor:
        found, first = [], 0
        for tensor in tensors:
            low, high = max(start, first), min(stop, first + tensor.shape[0])
            if low < high:
                found.append(tensor.rows(low - first, high - first))
            first += tensor.shape[0]
        return found[0] if len(found) == 1 else torch.cat(found)

    return LazyTensor(tensors[0].dtype, (count, *tensors[0].shape[1:]), rows)


def cut(tensor: LazyTensor, first: int, last: int) -> LazyTensor:
    """Rows `first` to `last` of a tensor."""

    def rows(start: int, stop: int) -> Tensor:
        return tensor.rows(first + start, first + stop)

    return LazyTensor(tensor.dtype, (last - first, *tensor.shape[1:]), rows)


def reordered(tensor: LazyTensor, order: Tensor) -> LazyTensor:
    """A tensor whose rows are taken in another order inside each group of `len(order)`."""
    size = len(order)

    def rows(start: int, stop: int) -> Tensor:
        low, high = start // size * size, -(-stop // size) * size
        whole = tensor.rows(low, high).unflatten(0, (-1, size))[:, order].flatten(0, 1)
        return whole[start - low : stop - low]

    return LazyTensor(tensor.dtype, tensor.shape, rows)


def narrowed(tensor: LazyTensor, dtype: torch.dtype) -> LazyTensor:
    """A tensor rounded to a dtype, to nearest and ties to even; itself if it is no wider."""
    if tensor.itemsize <= dtype.itemsize:
        return tensor
    return LazyTensor(dtype, tensor.shape, lambda start, stop: tensor.rows(start, stop).to(dtype))


def told(tensor: LazyTensor, on_bytes: Callable[[int], object]) -> LazyTensor:
    """A tensor that says how many bytes were made of it."""

    def rows(start: int, stop: int) -> Tensor:
        found = tensor.rows(start, stop)
        on_bytes(found.nbytes)
        return found

    return LazyTensor(tensor.dtype, tensor.shape, rows)


def same(left: LazyTensor, right: LazyTensor) -> bool:
    """Whether two tensors have the same dtype, shape and bits."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return all(a == b for a, b in zip(made("left", left), made("right", right), strict=True))
