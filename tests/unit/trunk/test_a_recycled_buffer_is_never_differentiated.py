"""The fault of refilled buffers: losses to the last bit, gradients of another block's weights.

Forward runs blocks 0 to 5 through two buffers; when backward comes to a block, its buffer holds
another one's bytes. The first test keeps the fault alive, so that the gate is known to see it.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stackwise.training.tensorfile import save_file
from stackwise.trunk.blocks import StoredBlock
from stackwise.trunk.stream import BlockReader

BLOCKS, WIDTH = 6, 16
KEYS = [f"s0.{number}" for number in range(BLOCKS)]


@pytest.fixture(scope="module")
def weights():
    generator = torch.Generator().manual_seed(0)
    shape = (BLOCKS, WIDTH, WIDTH)
    return torch.randn(shape, generator=generator).bfloat16() / WIDTH**0.5


@pytest.fixture
def reader(weights, tmp_path):
    path = tmp_path / "s0.safetensors"
    save_file({f"blocks.{number}.w": weights[number] for number in range(BLOCKS)}, path)
    blocks = [StoredBlock(KEYS[n], path, f"blocks.{n}.", ("w",)) for n in range(BLOCKS)]
    with BlockReader(blocks, slots=2) as opened:
        yield opened


class Lent(torch.autograd.Function):
    """`x w.T` with a weight that is asked for in forward, and in backward again."""

    @staticmethod
    def forward(ctx, x_BD, ask):
        ctx.ask = ask
        return x_BD @ ask().T

    @staticmethod
    def backward(ctx, grad_BD):
        return grad_BD @ ctx.ask(), None


class Untagged:
    """Two buffers in turn: block k lies in buffer k % 2 once forward has brought it there."""

    def __init__(self, weights) -> None:
        self.weights = weights
        self.buffers = torch.empty_like(weights[:2])
        self.brought = -1

    def block(self, number):
        if number > self.brought:
            self.buffers[number % 2].copy_(self.weights[number])
            self.brought = number
        return self.buffers[number % 2]


def loss_and_grad(multiply):
    """A chain of blocks with something between them that is not linear."""
    x_BD = torch.linspace(-1, 1, 4 * WIDTH).reshape(4, WIDTH).bfloat16().requires_grad_()
    y_BD = x_BD
    for number in range(BLOCKS):
        y_BD = torch.tanh(multiply(y_BD, number))
    loss = y_BD.float().square().mean()
    loss.backward()
    return loss.detach(), x_BD.grad


def difference(a, b) -> float:
    return float((a.float() - b.float()).norm() / b.float().norm())


def test_a_reader_without_tags_gives_the_loss_and_wrong_gradients(weights):
    loss, grad_BD = loss_and_grad(lambda x_BD, n: F.linear(x_BD, weights[n]))
    naive = Untagged(weights)
    same_loss, wrong_BD = loss_and_grad(lambda x_BD, n: Lent.apply(x_BD, lambda: naive.block(n)))
    assert same_loss == loss
    assert difference(wrong_BD, grad_BD) > 0.5


def test_a_weight_kept_on_the_context_gives_wrong_gradients_too(weights):
    """As bitsandbytes' product keeps it (its issue 2034), out of autograd's sight."""

    class Kept(Lent):
        @staticmethod
        def forward(ctx, x_BD, ask):
            kept = ask()
            ctx.ask = lambda: kept
            return x_BD @ kept.T

    loss, grad_BD = loss_and_grad(lambda x_BD, n: F.linear(x_BD, weights[n]))
    naive = Untagged(weights)
    same_loss, wrong_BD = loss_and_grad(lambda x_BD, n: Kept.apply(x_BD, lambda: naive.block(n)))
    assert same_loss == loss
    assert difference(wrong_BD, grad_BD) > 0.5


def test_what_the_reader_lends_gives_both_to_the_last_bit(weights, reader):
    loss, grad_BD = loss_and_grad(lambda x_BD, n: F.linear(x_BD, weights[n]))
    for _ in range(5):  # the same two buffers, step after step
        ours, our_grad_BD = loss_and_grad(
            lambda x_BD, n: Lent.apply(x_BD, lambda: reader.tensors(KEYS[n])["w"])
        )
        assert ours == loss
        assert torch.equal(our_grad_BD, grad_BD)


def test_who_lets_autograd_keep_what_was_lent_is_told(weights, reader):
    """torch's own product saves the weight; its memory was refilled, and so its version is not."""
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss_and_grad(lambda x_BD, n: F.linear(x_BD, reader.tensors(KEYS[n])["w"]))
