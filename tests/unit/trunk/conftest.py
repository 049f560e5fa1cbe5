"""Stacks of frozen blocks on disk, and small caches of trunk outputs."""

from __future__ import annotations

import queue
from types import SimpleNamespace

import pytest
import torch

from stackwise.training.tensorfile import save_file
from stackwise.trunk.blocks import StoredBlock
from stackwise.trunk.filling import Disk
from stackwise.trunk.writer import CacheWriter

LENT = ("attention.qkv.packed", "attention.qkv.scale", "ffn.up.packed", "ffn.up.scale", "ffn.none")


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    """`stored(blocks)`: as many in two files, tensors of four dtypes, no two of them alike."""

    def make(count: int, folder=None):
        folder = folder or tmp_path_factory.mktemp("rack")
        generator = torch.Generator().manual_seed(count)
        blocks, truth = [], {}
        for stack in range(2):
            tensors = {}
            path = folder / f"s{stack}.safetensors"
            for number in range(count // 2 + (count % 2 and stack)):
                own = {
                    "attention.qkv.packed": torch.randint(
                        0, 256, (13, 7 + number), dtype=torch.uint8, generator=generator
                    ),
                    "attention.qkv.scale": torch.randn(13, generator=generator),
                    "ffn.up.packed": torch.randn(5, 3, generator=generator).bfloat16(),
                    "ffn.up.scale": torch.randn(5, 2, generator=generator).to(torch.float8_e4m3fn),
                    "ffn.none": torch.empty(0, 4),
                    "norm.weight": torch.randn(4, generator=generator),
                }
                prefix = f"blocks.{number}."
                tensors |= {prefix + name: tensor for name, tensor in own.items()}
                key = f"s{stack}.{number}"
                blocks.append(StoredBlock(key, path, prefix, LENT))
                truth[key] = {name: own[name] for name in LENT}
            save_file(tensors, path)
        return SimpleNamespace(blocks=blocks, truth=truth, keys=[block.key for block in blocks])

    return make


def bits(tensor: torch.Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    """All there is to compare: torch has no equality for every dtype."""
    raw = tensor.contiguous().reshape(-1).view(torch.uint8)
    return tensor.dtype, tensor.shape, raw.numpy().tobytes()


@pytest.fixture(scope="session")
def right():
    """`right(lent, truth)`: the same names, dtypes, shapes and bits."""

    def same(lent, truth) -> bool:
        return {name: bits(t) for name, t in lent.items()} == {
            name: bits(t) for name, t in truth.items()
        }

    return same


@pytest.fixture
def fetched(monkeypatch):
    """Keys of blocks in the order in which they were fetched from disk."""
    keys: queue.Queue[str] = queue.Queue()
    fill = Disk.fill

    def noted(self, slot, image):
        fill(self, slot, image)
        keys.put(image.key)

    monkeypatch.setattr(Disk, "fill", noted)
    return keys


@pytest.fixture(scope="session")
def written():
    """`written(folder, layout, x_BTD)`: a complete cache of these rows, with the key `key`."""

    def write(folder, layout, x_BTD):
        with CacheWriter(folder, "key", layout) as writer:
            for first in range(writer.rows_done, layout.rows, layout.group):
                writer.write(first, x_BTD[first : first + layout.group])
        return folder

    return write
