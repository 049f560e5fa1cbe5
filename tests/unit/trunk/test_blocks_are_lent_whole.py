"""Whatever the order, what is lent is the block that was asked for, bit for bit."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stackwise.training.tensorfile import save_file
from stackwise.trunk import blocks as places
from stackwise.trunk.blocks import StoredBlock, images_of
from stackwise.trunk.stream import BlockReader

SIX = 6


@pytest.fixture(scope="module")
def six(stored):
    return stored(SIX)


@pytest.mark.parametrize("source", ["disk", "host"])
@given(
    order=st.lists(st.integers(0, SIX - 1), min_size=1, max_size=30),
    slots=st.integers(2, SIX + 2),
)
def test_any_order_gives_the_right_bytes(six, right, source, order, slots):
    with BlockReader(six.blocks, source=source, slots=slots) as reader:
        for number in order:
            key = six.keys[number]
            assert right(reader.tensors(key), six.truth[key])


@pytest.mark.parametrize("source", ["disk", "host"])
@pytest.mark.parametrize("slots", [2, 3, SIX])
def test_steps_forward_and_backward_give_the_right_bytes(six, right, source, slots):
    with BlockReader(six.blocks, source=source, slots=slots) as reader:
        for _ in range(4):
            for key in [*six.keys, *reversed(six.keys)]:
                for _ in range(3):  # each linear of a block asks by itself
                    assert right(reader.tensors(key), six.truth[key])


def test_one_block_alone_is_read_once(stored, right, fetched):
    one = stored(1)
    with BlockReader(one.blocks, slots=2) as reader:
        for _ in range(5):
            assert right(reader.tensors(one.keys[0]), one.truth[one.keys[0]])
    assert fetched.qsize() == 1


def test_what_was_asked_for_last_stays_while_others_are_read(six, right, fetched):
    """With two slots the other one must go for each block that is read ahead; this one may not."""
    with BlockReader(six.blocks, slots=2) as reader:
        assert [fetched.get(timeout=10) for _ in range(2)] == six.keys[:2]
        for number in range(6):
            lent = reader.tensors(six.keys[number])
            if number:
                assert fetched.get(timeout=10) == six.keys[(number + 1) % 6]
            assert right(lent, six.truth[six.keys[number]])


def test_a_block_longer_than_one_read_is_whole(monkeypatch, six, right):
    monkeypatch.setattr(places, "READ_BYTES", 16)
    assert max(read.bytes for image in images_of(six.blocks) for read in image.reads) == 16
    with BlockReader(six.blocks) as reader:
        for key in six.keys:
            assert right(reader.tensors(key), six.truth[key])


def test_neighbours_in_the_file_are_read_together(six):
    """A file holds tensors by size of element, then by name: of this block only two are neighbours.

    Between the others lie those of its stack's other blocks, and the norm, which is not lent.
    """
    [image] = images_of(six.blocks[:1])
    assert [tensor.name for tensor in image.tensors if tensor.bytes] == [
        "attention.qkv.scale",
        "ffn.up.packed",
        "attention.qkv.packed",
        "ffn.up.scale",
    ]
    assert [read.bytes for read in image.reads] == [13 * 4, 5 * 3 * 2, 13 * 7 + 5 * 2]


@pytest.mark.parametrize("card", [False, True])
def test_a_whole_stack_is_one_run(tmp_path, card):
    names = tuple(f"linear{n}.packed" for n in range(9))
    save_file({f"blocks.0.{n}": torch.zeros(100, dtype=torch.uint8) for n in names}, tmp_path / "s")
    blocks = [StoredBlock("s.0", tmp_path / "s", "blocks.0.", names)]
    [image] = images_of(blocks, card=card)
    [read] = image.reads
    assert read.bytes == 900
    assert len(read.places) == (9 if card else 1)
    if card:
        assert all(tensor.at % 256 == 0 for tensor in image.tensors)


def test_a_tensor_keeps_its_place_in_a_cache_line(six):
    for image in images_of(six.blocks):
        assert all((tensor.at - tensor.start) % 64 == 0 for tensor in image.tensors)


def test_a_tensor_at_an_odd_place_of_its_file_is_lent(tmp_path, right):
    """The format allows it: here one byte comes before four floats."""
    entries = {
        "blocks.0.byte": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "blocks.0.floats": {"dtype": "F32", "shape": [4], "data_offsets": [1, 17]},
    }
    text, floats = json.dumps(entries).encode(), torch.arange(4.0)
    data = b"\7" + floats.numpy().tobytes()
    (tmp_path / "s").write_bytes(len(text).to_bytes(8, "little") + text + data)
    truth = {"byte": torch.tensor([7], dtype=torch.uint8), "floats": floats}
    with BlockReader([StoredBlock("s.0", tmp_path / "s", "blocks.0.", tuple(truth))]) as reader:
        assert right(reader.tensors("s.0"), truth)


def test_slots_take_what_they_say(six):
    largest = max(image.bytes for image in images_of(six.blocks))
    with BlockReader(six.blocks, slots=3) as reader:
        assert reader.slot_bytes == 3 * largest


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"slots": 1}, "slots: 1 must be 2 or more: one is in use, one is ahead"),
        ({"source": "dsk"}, "source: 'dsk' is not known; did you mean 'disk'? known: disk, host"),
        ({"blocks": []}, "blocks: there are none to lend; give at least one"),
    ],
)
def test_what_cannot_be_is_refused(six, change, text):
    arguments = {"blocks": six.blocks, **change}
    with pytest.raises(ValueError) as error:
        BlockReader(arguments.pop("blocks"), **arguments)
    assert str(error.value) == text


def test_two_blocks_of_one_key_are_refused(six):
    with pytest.raises(ValueError, match=r"^blocks: 's0.0' stands there twice; give every block"):
        BlockReader([*six.blocks, six.blocks[0]])


def test_an_unknown_block_is_refused_by_name(six):
    with BlockReader(six.blocks) as reader, pytest.raises(ValueError) as error:
        reader.tensors("s0.9")
    known = "s0.0, s0.1, s0.2, s1.0, s1.1, s1.2"
    assert (
        str(error.value) == f"block 's0.9': is not lent here; did you mean 's0.2'? known: {known}"
    )


def test_a_layer_is_lent_by_itself(six, right):
    with BlockReader(six.blocks, slots=2) as reader:
        lenders = {key: reader.lender(key, "ffn.up.") for key in six.keys}
        for key in [*six.keys, *reversed(six.keys)]:
            truth = six.truth[key]
            layer = {"packed": truth["ffn.up.packed"], "scale": truth["ffn.up.scale"]}
            assert right(lenders[key](), layer)
        with pytest.raises(ValueError) as error:
            reader.lender("s0.0", "ffn.down.")
    assert str(error.value) == "block 's0.0': lends no tensor that begins with 'ffn.down.'"
