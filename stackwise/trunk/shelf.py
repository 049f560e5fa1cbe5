"""Frozen stacks whose matrices stay where they lie: lent to a rack, block by block.

A stack on the shelf is a module like any other. Its norms and biases are in memory; each matrix is
read, ahead of time, when a step comes to its block. Files and slots are in `blocks.py` and
`stream.py`, the layer that borrows in `model/frozen.py`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from stackwise.model.formats import format_called
from stackwise.model.freezing import replace_linears
from stackwise.model.frozen import FrozenLinear
from stackwise.model.rack import Rack
from stackwise.training.manifest import read_manifest, verify_part
from stackwise.training.part_names import home_of
from stackwise.training.parts import put_rest
from stackwise.trunk.blocks import StoredBlock
from stackwise.trunk.stream import BlockReader

AS_TRAINED = {torch.float32: "fp32", torch.bfloat16: "bf16"}


class Shelf:
    """Lends the stacks of a checkpoint to a rack.

    Args:
        rack: Has the stacks.
        folder: The checkpoint's.
        device: Where the rack computes.
        source: `disk`, or `host` for a copy of all that is lent in memory.
    """

    def __init__(
        self,
        rack: Rack,
        folder: Path,
        device: torch.device,
        source: Literal["disk", "host"] = "disk",
    ) -> None:
        self._rack = weakref.ref(rack)  # whose layers hold the shelf
        self.folder, self.device, self.source = folder, device, source
        self.blocks: dict[str, StoredBlock] = {}
        self.open: list[BlockReader] = []  # one, or none
        weakref.finalize(self, _close, self.open)  # a rack that is dropped ends its thread

    @property
    def rack(self) -> Rack:
        """The rack that it lends to."""
        rack = self._rack()
        assert rack is not None, "its layers are what asks"
        return rack

    def lend(self, stack: str, *, loaded: bool) -> None:
        """Let the matrices of a stack be read from its file from now on.

        Args:
            stack: Its id.
            loaded: Whether its norms and biases are in the rack already. If they are not, its file
                is one that somebody else may have written, and is compared with its hash.

        Raises:
            CheckpointError: If the file is missing, cut, altered, or of another rack.
        """
        manifest = read_manifest(self.folder)
        entry = manifest["parts"][stack]
        if not loaded:
            verify_part(self.folder, manifest, stack)
            put_rest(self.rack, stack, self.folder, manifest)
        path, form = home_of(self.folder, stack) / entry["file"], entry.get("format")
        chosen = format_called(form or AS_TRAINED[self.rack.dtype])
        kept = {} if form else {chosen.name: "weight"}  # as a layer that trains calls it
        names: dict[str, list[str]] = {}

        def lent(name: str, linear: nn.Linear) -> FrozenLinear:
            _, number, inside = name.split(".", 2)
            key = f"{stack}.{number}"
            shape = (linear.out_features, linear.in_features)
            called = {code: f"{inside}.{kept.get(code, code)}" for code in chosen.layout(shape)}
            names.setdefault(key, []).extend(called.values())
            frozen = FrozenLinear(chosen, shape, chosen.blank(shape, "meta"), linear.bias)
            frozen.lend(self.tensors_of(key, called))
            return frozen.requires_grad_(False)

        replace_linears(self.rack.stacks[stack], lent)
        for key, needed in names.items():
            prefix = f"blocks.{key.partition('.')[2]}."
            self.blocks[key] = StoredBlock(key, path, prefix, tuple(needed))

    def take(self, stack: str) -> None:
        """Forget a stack: it is about to train."""
        self.blocks = {k: b for k, b in self.blocks.items() if k.partition(".")[0] != stack}

    def order(self, path: Sequence[str]) -> None:
        """Read the lent blocks of a path, in its order, from now on; the others are not held."""
        self.close()
        chosen = [b for stack in path for k, b in self.blocks.items() if k.split(".")[0] == stack]
        if chosen:
            self.open.append(BlockReader(chosen, source=self.source, device=self.device))

    @property
    def bytes(self) -> int:
        """Of matrices in memory where the rack computes: slots, and on the CPU a host copy."""
        cpu = self.device.type == "cpu"
        return sum(each.slot_bytes + cpu * each.host_bytes for each in self.open)

    def tensors_of(self, key: str, called: Mapping[str, str]) -> Callable[[], dict[str, Tensor]]:
        """What a layer of a block borrows, by the names that its format has for them."""

        def borrowed() -> dict[str, Tensor]:
            tensors = self.reader_of(key).tensors(key)
            return {code: tensors[name] for code, name in called.items()}

        return borrowed

    def reader_of(self, key: str) -> BlockReader:
        """The reader in use; where it does not have the block, one of all that is lent."""
        if not self.open or not self.open[0].has(key):
            self.order(self.rack.held())
        return self.open[0]

    def close(self) -> None:
        """End the reader; the next block that is asked for opens another."""
        _close(self.open)


def _close(readers: list[BlockReader]) -> None:
    while readers:
        readers.pop().close()
