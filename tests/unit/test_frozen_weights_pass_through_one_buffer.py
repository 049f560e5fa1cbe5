"""Inside `workspace` weights are made in one memory, one after the other; no number changes."""

import threading

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from stackwise.model import workspace as module
from stackwise.model.formats import FORMATS, room_for
from stackwise.model.freezing import freeze_linears
from stackwise.model.workspace import room, workspace

SHAPES = [(72, 40), (40, 72), (33, 40), (7, 33)]  # larger, equal, smaller, not of whole blocks


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch):
    monkeypatch.setattr(module, "MAPPED_BYTES", 0)


def layers(name):
    torch.manual_seed(0)
    made = nn.Sequential(*(nn.Linear(i, o) for o, i in SHAPES))
    freeze_linears(made, name)
    return made


def outcome(made, dtype):
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    y = made(x)
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    return y.detach(), grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", FORMATS)
def test_outputs_and_gradients_are_the_same(name, dtype, monkeypatch):
    monkeypatch.setattr(
        "stackwise.model.codes.FEWEST_READS", 640
    )  # several slices, the last shorter
    made = layers(name)
    wanted = outcome(made, dtype)
    with workspace():
        for _ in range(2):
            assert all(map(torch.equal, outcome(made, dtype), wanted))


@pytest.mark.parametrize("name", ["nf4", "int8", "fp8", "fp16"])
def test_there_is_one_buffer_as_large_as_the_largest_and_it_goes(name):
    made = layers(name)
    with workspace():
        outcome(made, torch.float32)
        (buffer,) = module._entered.large.values()
        assert len(buffer) == max(map(room_for, SHAPES)) == 72 * 40
        with workspace():
            assert room(buffer, (7, 33), torch.float32) is buffer
        outcome(made, torch.float32)
        assert [b.data_ptr() for b in module._entered.large.values()] == [buffer.data_ptr()]
    assert room(buffer, (7, 33), torch.float32) is None


def test_small_ones_and_large_ones_have_each_their_own(monkeypatch):
    monkeypatch.setattr(module, "MAPPED_BYTES", room_for((72, 40)) * 4)
    with workspace():
        assert room(torch.ones(1), (72, 40), torch.bfloat16) is None
        large = room(torch.ones(1), (72, 40), torch.float32)
        assert len(large) == 72 * 40
        with workspace(small=True):
            small = room(torch.ones(1), (72, 40), torch.bfloat16)
            assert len(small) == 72 * 40
            assert room(torch.ones(1), (72, 40), torch.float32) is large
        assert room(torch.ones(1), (72, 40), torch.bfloat16) is None
    with workspace(small=True):
        assert room(torch.ones(1), (72, 40), torch.float32) is None


def test_a_weight_that_is_read_is_never_in_the_buffer():
    made = layers("nf4")
    with workspace():
        weight_OI = made[0].weight
        before_OI = weight_OI.clone()
        outcome(made, torch.float32)
        assert torch.equal(weight_OI, before_OI)


def test_another_thread_has_no_part_in_it():
    found = []
    with workspace():
        thread = threading.Thread(
            target=lambda: found.append(room(torch.ones(1), (8, 8), torch.half))
        )
        thread.start()
        thread.join()
    assert found == [None]


def test_fake_tensors_and_meta_are_left_alone():
    with workspace(), FakeTensorMode():
        outcome(layers("nf4"), torch.float32)
        assert not module._entered.large
    with workspace():
        assert room(torch.empty(1, device="meta"), (8, 8), torch.float32) is None


def test_an_error_inside_gives_the_buffer_back():
    with pytest.raises(ZeroDivisionError), workspace():
        outcome(layers("nf4"), torch.float32)
        raise ZeroDivisionError
    assert room(torch.ones(1), (8, 8), torch.float32) is None
