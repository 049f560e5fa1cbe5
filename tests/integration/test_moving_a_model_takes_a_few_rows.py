"""Peak memory of import and export: a few pieces of 8 MiB, whatever a block or the model takes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

import stackwise as sw
from stackwise.interop.llama import llama_shapes
from stackwise.interop.llama_config import config_of
from stackwise.memory.meter import release_free_memory
from stackwise.training.tensorfile import MADE_BYTES, LazyTensor, save_file

BLOCK_BYTES = 4 * 1024 * (1024 * (2 + 1 + 3 * 4) + 2)  # q, o; k and v; the feed-forward; norms
TABLE_BYTES = 4 * 1024 * 16384  # larger than a block


def llama(folder: Path, layers: int, width: int, vocab: int) -> Path:
    """A Llama in one file, written lazily too."""
    folder.mkdir()
    shape = sw.RackShape(
        stacks=layers, blocks_per_stack=1, d_model=width, heads=8, kv_heads=4, d_ff=4 * width
    )
    tensors = {
        name: LazyTensor(
            torch.float32, sizes, lambda a, b, sizes=sizes: torch.rand(b - a, *sizes[1:])
        )
        for name, sizes in llama_shapes(shape, vocab).items()
    }
    save_file(tensors, folder / "model.safetensors")
    config = config_of(shape, vocab, {}, length=64, dtype="float32")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def peak_bytes() -> int:
    """The most that was resident since the last reset, mapped files included."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


def growth_bytes(folder: Path, layers: int) -> int:
    """How far an import and an export raise this process's peak."""
    torch.set_num_threads(1)
    theirs = llama(folder / "theirs", layers, 1024, 16384)
    small = sw.import_model(llama(folder / "small", 1, 64, 64), folder / "warm")
    sw.export_model(small, folder / "warm back")
    release_free_memory()
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    ours = sw.import_model(theirs, folder / "ours")
    sw.export_model(ours, folder / "back", shard_bytes=100 << 20)
    return peak_bytes() - before


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of peak memory")
def test_the_peak_is_far_under_a_block_and_does_not_grow_with_their_number(tmp_path) -> None:
    """Rows as they are mapped and as they are reordered: two pieces, and a third's room.

    malloc is told to hand back what is freed; left to itself it holds on to a few pieces more.
    """
    found = []
    for layers in (2, 8):
        folder = tmp_path / str(layers)
        folder.mkdir()
        from ..warm import forked  # not at the top, which the process itself runs too

        malloc = {"MALLOC_MMAP_THRESHOLD_": "65536"}
        code = Path(__file__).read_text()
        said = forked(code, str(folder), str(layers), malloc=malloc)
        shutil.rmtree(folder)  # gigabytes, which pytest would keep
        found.append(int(said))
    assert all(MADE_BYTES < grown < 3 * MADE_BYTES for grown in found)
    assert abs(found[1] - found[0]) < MADE_BYTES / 4
    assert 2 * 3 * MADE_BYTES < BLOCK_BYTES < TABLE_BYTES


if __name__ == "__main__":  # a process of its own: a used one has memory to spare
    print(growth_bytes(Path(sys.argv[1]), int(sys.argv[2])))
