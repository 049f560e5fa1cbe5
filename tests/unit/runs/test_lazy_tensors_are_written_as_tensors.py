"""A lazy tensor leaves the bytes that the tensor itself would, made a few rows at a time."""

from __future__ import annotations

import hashlib

import pytest
import torch

from stackwise.training import tensorfile
from stackwise.training.tensorfile import LazyTensor, holds, save_file


def lazy(tensor: torch.Tensor, asked: list[tuple[int, int]] | None = None) -> LazyTensor:
    def rows(start: int, stop: int) -> torch.Tensor:
        if asked is not None:
            asked.append((start, stop))
        return tensor[start:stop]

    return LazyTensor(tensor.dtype, tuple(tensor.shape), rows)


@pytest.mark.parametrize("at_once", [1, 24, 60, 1 << 20])
def test_the_file_is_that_of_the_tensors(at_once, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tensorfile, "MADE_BYTES", at_once)
    tensors = {
        "weight": torch.randn(7, 3),
        "bias": torch.randn(5).bfloat16(),
        "deep": torch.randn(4, 2, 3),
        "turned": torch.randn(4, 6).t(),
        "none": torch.empty(0, 3),
        "flat": torch.empty(3, 0),
    }
    save_file(tensors, tmp_path / "plain")
    made = {name: lazy(tensor) for name, tensor in tensors.items()}
    digest = save_file(made, tmp_path / "lazy")
    assert (tmp_path / "lazy").read_bytes() == (tmp_path / "plain").read_bytes()
    assert digest == hashlib.sha256((tmp_path / "plain").read_bytes()).hexdigest()
    assert holds(tmp_path / "plain", made)
    made["weight"] = lazy(tensors["weight"] + 1)
    assert not holds(tmp_path / "plain", made)
    assert all(torch.equal(lazy(tensor).make(), tensor) for tensor in tensors.values())


def test_as_many_rows_are_made_as_fit(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tensorfile, "MADE_BYTES", 100)
    asked: list[tuple[int, int]] = []
    save_file({"w": lazy(torch.randn(10, 12), asked)}, tmp_path / "x")  # 48 bytes a row
    assert asked == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]


def test_rows_that_were_not_announced_are_refused(tmp_path) -> None:
    short = LazyTensor(torch.float32, (4, 3), lambda start, stop: torch.zeros(stop - start, 2))
    with pytest.raises(ValueError, match="'w': rows 0 to 4 came as") as error:
        save_file({"w": short}, tmp_path / "x")
    assert str(error.value) == (
        "tensor 'w': rows 0 to 4 came as torch.float32 (4, 2), and torch.float32 (4, 3) were "
        "announced"
    )
