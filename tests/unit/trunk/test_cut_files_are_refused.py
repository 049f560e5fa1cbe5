"""Files that are not what they should be: said at once, or at the call that meets it."""

from __future__ import annotations

import errno
import json
import os

import pytest
import torch

from stackwise.training.manifest import CheckpointError
from stackwise.training.tensorfile import save_file
from stackwise.trunk.blocks import StoredBlock, read_header
from stackwise.trunk.stream import BlockReader

WAY_OUT = "restore it from a copy of the run, or train again (rerun=True, --rerun)"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rack" / "s0.safetensors"
    path.parent.mkdir()
    save_file({"blocks.0.up.packed": torch.arange(100, dtype=torch.uint8)}, path)
    return path


def refused(path, *names):
    with pytest.raises(CheckpointError) as error:
        BlockReader([StoredBlock("s0.0", path, "blocks.0.", names or ("up.packed",))])
    return str(error.value)


def with_header(path, entries) -> None:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(100))


def test_a_cut_file_is_refused_before_anything_is_read(file):
    size = file.stat().st_size
    os.truncate(file, size - 1)
    assert refused(file) == (
        f"rack/s0.safetensors: has {size - 1} bytes, and its header says {size}; {WAY_OUT}"
    )


def test_a_longer_file_is_refused(file):
    size = file.stat().st_size
    os.truncate(file, size + 1)
    assert refused(file).startswith(f"rack/s0.safetensors: has {size + 1} bytes, and its header")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 20])
def test_a_file_cut_in_its_header_is_refused(file, length):
    os.truncate(file, length)
    said = refused(file)
    assert said.startswith(f"rack/s0.safetensors: {length} bytes cannot hold a header of ")
    assert said.endswith(f"the file is cut or no safetensors file; {WAY_OUT}")


def test_a_header_that_claims_the_memory_of_the_world_is_refused(file):
    file.write_bytes((1 << 60).to_bytes(8, "little") + bytes(100))
    assert "108 bytes cannot hold a header of 1152921504606846976;" in refused(file)


ENTRY = {"dtype": "U8", "shape": [100], "data_offsets": [0, 100]}


@pytest.mark.parametrize(
    "entries",
    [
        b"not JSON at all",
        b"[" * 5000,
        b"\xff\xfe" * 10,
        [],
        {"blocks.0.up.packed": {**ENTRY, "dtype": "U9"}},
        {"blocks.0.up.packed": {**ENTRY, "shape": [99]}},
        {"blocks.0.up.packed": {**ENTRY, "shape": [-100]}},
        {"blocks.0.up.packed": {**ENTRY, "shape": [100.0]}},
        {"blocks.0.up.packed": {**ENTRY, "data_offsets": [0]}},
        {"blocks.0.up.packed": {**ENTRY, "data_offsets": [-100, 0]}},
        {"blocks.0.up.packed": {"dtype": "U8"}},
        {"blocks.0.up.packed": None},
    ],
)
def test_an_odd_header_is_refused(file, entries):
    with_header(file, entries)
    assert refused(file) == f"rack/s0.safetensors: its header is damaged; {WAY_OUT}"


def test_a_missing_file_is_refused(tmp_path):
    assert refused(tmp_path / "gone").endswith(f"/gone: No such file or directory; {WAY_OUT}")


def test_a_tensor_that_is_not_there_is_named(file):
    assert refused(file, "up.pact") == (
        "rack/s0.safetensors: has no tensor 'blocks.0.up.pact' of block 's0.0'; did you mean "
        "'blocks.0.up.packed'? known: blocks.0.up.packed"
    )


def test_an_empty_file_of_the_library_is_read(tmp_path):
    save_file({}, tmp_path / "empty")
    assert read_header(tmp_path / "empty") == {}


def test_a_file_cut_later_is_said_at_the_call_and_a_mended_one_goes_on(
    tmp_path, stored, right, fetched
):
    eight = stored(8, tmp_path)
    path, key = eight.blocks[-1].path, eight.keys[-1]
    whole = path.read_bytes()
    with BlockReader(eight.blocks, slots=2) as reader:
        assert [fetched.get(timeout=10) for _ in range(2)] == eight.keys[:2]
        os.truncate(path, len(whole) // 2)
        with pytest.raises(CheckpointError) as error:
            reader.tensors(key)
        said = str(error.value)
        assert said.startswith(f"{tmp_path.name}/s1.safetensors: ends at byte ")
        assert said.endswith(f"and was longer when it was opened; {WAY_OUT}")
        with path.open("r+b") as file:
            file.write(whole)
        assert right(reader.tensors(key), eight.truth[key])


def test_an_error_of_the_disk_surfaces_at_the_next_call(stored, right, monkeypatch, fetched):
    six = stored(6)
    with BlockReader(six.blocks, slots=2) as reader:
        assert [fetched.get(timeout=10) for _ in range(2)] == six.keys[:2]
        with monkeypatch.context() as patch:

            def broken(*arguments):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            patch.setattr(os, "preadv", broken)
            with pytest.raises(CheckpointError) as error:
                reader.tensors(six.keys[4])
            assert str(error.value).endswith(
                f"/s1.safetensors: cannot be read: Input/output error; {WAY_OUT}"
            )
        for key in six.keys:
            assert right(reader.tensors(key), six.truth[key])


def test_a_file_that_is_replaced_meanwhile_is_still_the_old_one(tmp_path, stored, right):
    """A newer checkpoint renames its files over; the reader's are held open."""
    six = stored(6, tmp_path)
    with BlockReader(six.blocks, slots=2) as reader:
        for path in {block.path for block in six.blocks}:
            path.unlink()
        for key in six.keys:
            assert right(reader.tensors(key), six.truth[key])
