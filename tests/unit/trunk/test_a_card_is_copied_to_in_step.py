"""Blocks lent on a card: the order of copies and work, by a stand-in here, for real where one is.

The stand-in writes down what is queued where; memory is the CPU's, so that bytes can be compared.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace

import pytest
import torch

from stackwise.trunk import blocks as places
from stackwise.trunk import filling
from stackwise.trunk.blocks import images_of
from stackwise.trunk.filling import Disk, Host, Slot
from stackwise.trunk.pages import pages
from stackwise.trunk.stream import BlockReader

CUDA = torch.device("cuda")
needs_card = pytest.mark.card
REAL = filling.Card


@pytest.fixture
def six(stored):
    return stored(6)


@pytest.fixture
def card(monkeypatch):
    """A card that does at once what is queued, and the log of it."""
    log, numbers = [], count()

    class Event:
        def __init__(self):
            self.name = f"e{next(numbers)}"

        def record(self, stream):
            log.append(("record", stream.name, self.name))

        def synchronize(self):
            log.append(("synchronize", self.name))

    class Stream:
        def __init__(self, device=None, name="copies"):
            self.name = name

        def wait_event(self, event):
            log.append(("wait", self.name, event.name))

        def synchronize(self):
            log.append(("synchronize", self.name))

    class Card(filling.Card):
        def copy(self, target, source):
            log.append(("copy", self.stream.name, source.numel()))
            target.copy_(source)

    pinned = set()
    work = Stream(name="work")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: work)
    monkeypatch.setattr(filling, "Card", Card)
    monkeypatch.setattr(filling, "pin", lambda memory: pinned.add(memory.data_ptr()))
    monkeypatch.setattr(filling, "unpin", lambda memory: pinned.remove(memory.data_ptr()))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append(("synchronize",)))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, device=None, **how: empty(*shape, **how))
    return SimpleNamespace(log=log, pinned=pinned)


@pytest.mark.parametrize("source", ["disk", "host"])
def test_blocks_arrive_whole_and_pinned_memory_is_given_back(card, six, right, source, monkeypatch):
    monkeypatch.setattr(places, "READ_BYTES", 16)  # so that many pieces go through the staging
    with BlockReader(six.blocks, source=source, slots=2, device=CUDA) as reader:
        assert len(card.pinned) == (2 if source == "disk" else 6)
        for key in [*six.keys, *reversed(six.keys), *six.keys]:
            assert right(reader.tensors(key), six.truth[key])
    assert not card.pinned


def test_a_slot_is_refilled_after_the_work_on_it_and_used_after_its_copy(card, six, fetched):
    """Work on block 0 ends when block 1 is asked for; its slot takes block 2 after that."""
    with BlockReader(six.blocks, slots=2, device=CUDA) as reader:
        assert [fetched.get(timeout=10) for _ in range(2)] == six.keys[:2]
        reader.tensors(six.keys[0])
        before = len(card.log)
        reader.tensors(six.keys[1])
        assert fetched.get(timeout=10) == six.keys[2]
    log = card.log[before:]
    [left] = [entry[2] for entry in log if entry[:2] == ("record", "work")]
    waited = log.index(("wait", "copies", left))
    copies = [n for n, entry in enumerate(log) if entry[0] == "copy"]
    assert log.index(("record", "work", left)) < waited < min(copies)


def test_the_first_copy_waits_for_what_its_memory_was_used_for(card, six):
    """A card's allocator hands out memory that work queued before may still read."""
    with BlockReader(six.blocks, slots=2, device=CUDA) as reader:
        reader.tensors(six.keys[1])
    fences = [entry[2] for entry in card.log if entry[:2] == ("record", "work")][:2]
    assert len(set(fences)) == 2
    for fence in fences:
        assert ("wait", "copies", fence) in card.log
    assert card.log.index(("wait", "copies", fences[0])) < [e[0] for e in card.log].index("copy")


def test_work_waits_for_the_copy_of_its_block(card, six):
    with BlockReader(six.blocks, slots=2, device=CUDA) as reader:
        reader.tensors(six.keys[3])
    waits = [entry[2] for entry in card.log if entry[:2] == ("wait", "work")]
    assert len(waits) == 1
    assert card.log.index(("record", "copies", waits[0])) < card.log.index(
        ("wait", "work", waits[0])
    )


def test_a_staging_buffer_is_read_into_after_its_copy(card, six, monkeypatch):
    """Each of the two is waited for before it is read into again, by the event after its copy."""
    monkeypatch.setattr(places, "READ_BYTES", 16)
    [image] = images_of(six.blocks[:1], card=True)
    assert len(image.reads) > 4
    disk = Disk([image], CUDA)
    disk.fill(Slot(pages(image.bytes)), image)
    kinds = [entry for entry in card.log if entry[0] in ("synchronize", "copy", "record")]
    names = [kinds[n][1] for n in range(0, 3 * len(image.reads), 3)]
    assert [entry[0] for entry in kinds[: 3 * len(image.reads)]] == [
        "synchronize",
        "copy",
        "record",
    ] * len(image.reads)
    assert names == (names[:2] * len(names))[: len(names)]
    assert names[0] != names[1]
    assert [kinds[n][2] for n in range(2, 3 * len(image.reads), 3)] == names
    disk.close()


def test_a_copy_is_queued_on_the_stream_of_copies_and_not_waited_for(card, monkeypatch):
    """What the stand-in's card does not do itself: which stream is current, and how it is asked."""
    asked = []

    class Memory:
        def copy_(self, source, non_blocking=False):
            asked.append((current[-1], source, non_blocking))

    current = ["work"]

    @contextmanager
    def on(stream):
        current.append(stream.name)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "stream", on)
    REAL(CUDA).copy(Memory(), "bytes")
    assert asked == [("copies", "bytes", True)]
    assert current == ["work"]


def test_a_host_that_cannot_pin_lets_go(card, six, monkeypatch):
    def full(memory):
        if len(card.pinned) == 3:
            raise RuntimeError("CUDA error: out of memory")
        card.pinned.add(memory.data_ptr())

    monkeypatch.setattr(filling, "pin", full)
    with pytest.raises(RuntimeError, match="out of memory"):
        Host(images_of(six.blocks, card=True), CUDA)
    assert not card.pinned


@needs_card
@pytest.mark.parametrize("source", ["disk", "host"])
def test_on_a_card_blocks_are_right_while_work_is_slow(six, right, source):
    """Work that starts late reads the block that it was queued for."""
    sums, wanted = [], []
    with BlockReader(six.blocks, source=source, slots=2, device=CUDA) as reader:
        for key in [*six.keys, *reversed(six.keys)] * 5:
            lent = reader.tensors(key)
            torch.cuda._sleep(10_000_000)
            sums.append(lent["attention.qkv.packed"].double().sum())
            wanted.append(float(six.truth[key]["attention.qkv.packed"].double().sum()))
        torch.cuda.synchronize()
        assert [float(each) for each in sums] == wanted
        for key in six.keys:
            lent = {name: tensor.cpu() for name, tensor in reader.tensors(key).items()}
            assert right(lent, six.truth[key])


@needs_card
def test_on_a_card_memory_is_pinned_as_it_is():
    memory = pages(3 << 20)
    filling.pin(memory)
    assert memory.is_pinned()
    filling.unpin(memory)
    assert not memory.is_pinned()
