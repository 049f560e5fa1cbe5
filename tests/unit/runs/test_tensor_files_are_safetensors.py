"""Our writer against the library's reader and writer."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from stackwise.training.tensorfile import DTYPES, holds, save_file


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Same dtype, shape and bits; torch has no equality for every dtype."""
    bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)


@given(
    shapes=st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(list(DTYPES)), st.lists(st.integers(0, 4), max_size=3)),
        max_size=5,
    )
)
def test_the_library_reads_back_what_was_written(shapes, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("part") / "x.safetensors"
    tensors = {
        name: torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)
        for name, (dtype, shape) in shapes.items()
    }
    digest = save_file(tensors, path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    back = load_file(path)
    assert back.keys() == tensors.keys()
    assert all(same(back[name], tensors[name]) for name in tensors)


def test_the_bytes_are_those_of_the_library(tmp_path) -> None:
    tensors = {
        "weight": torch.randn(3, 5),
        "bias": torch.randn(7).bfloat16(),
        "step": torch.tensor(3.0),
        "seen": torch.arange(4),
    }
    save_file(tensors, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == save(tensors, {"format": "pt"})


def test_strided_tensors_and_parameters_are_written_as_they_look(tmp_path) -> None:
    whole = torch.randn(6, 4)
    tensors = {"t": whole.t(), "every_other": whole[::2, 1:], "p": torch.nn.Parameter(whole)}
    save_file(tensors, tmp_path / "x")
    back = load_file(tmp_path / "x")
    assert all(back[name].equal(tensors[name].detach()) for name in tensors)


def test_a_file_holds_exactly_what_it_was_made_from(tmp_path) -> None:
    path, tensors = tmp_path / "x", {"a": torch.zeros(1000, 1000), "b": torch.ones(3)}
    assert not holds(path, tensors)
    save_file(tensors, path)
    assert holds(path, tensors)
    tensors["a"][-1, -1] = 1e-30
    assert not holds(path, tensors)
    tensors["a"][-1, -1] = 0
    assert not holds(path, {**tensors, "c": torch.zeros(1)})
    with path.open("ab") as file:
        file.write(b"\0")
    assert not holds(path, tensors)


def test_a_dtype_that_no_file_can_hold_is_named(tmp_path) -> None:
    with pytest.raises(TypeError) as error:
        save_file({"w": torch.zeros(2, dtype=torch.complex128)}, tmp_path / "x")
    assert str(error.value) == "tensor 'w': torch.complex128 cannot be kept in safetensors"
