"""Any torch module as embedding, stacks of blocks, and head.

Its ordered blocks are an `nn.ModuleList` or `nn.Sequential` that the forward pass goes through.
While a stage trains, the list holds the blocks of the stage's path and no others. What is embedding
and what is head is found in `ends.py`. The loop is in `loop.py`, the same for a rack in `rack.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stackwise.config import Experiment
from stackwise.model.init import begin_as
from stackwise.model.shape import RackShape
from stackwise.own.batches import OwnBatch, tokens_of
from stackwise.own.ends import Ends, find_ends, outside_of
from stackwise.stage import NewStack, Stage, parts_trained
from stackwise.training.picking import path_at

Loss = Callable[[Any, Any], Tensor]


class OwnModule:
    """A module of the user's.

    Args:
        model: The module.
        blocks: Dotted name of the list of its blocks.
        stacks: How many stacks they make; None for one block each.
        loss: (model, batch) to a scalar; None for `model(**batch).loss`.

    Raises:
        ValueError: If `blocks` names no list of blocks, `stacks` does not divide it, or blocks
            share parameters with each other or with what lies outside.
    """

    sections = frozenset({"optim"})

    def __init__(
        self, model: nn.Module, blocks: str | None, stacks: int | None, loss: Loss | None
    ) -> None:
        self.model, self.name = model, blocks
        self.blocks = find_blocks(model, blocks)
        self.every = list(self.blocks)
        self.loss_of = loss or mapping_loss
        count = len(self.every) if stacks is None else stacks
        if count < 1 or len(self.every) % count:
            fits = [n for n in range(1, len(self.every) + 1) if len(self.every) % n == 0]
            raise ValueError(
                f"stacks: {count} does not divide the {len(self.every)} blocks of "
                f"{blocks}; use {', '.join(map(str, fits))}"
            )
        each = len(self.every) // count
        self.stacks = {
            f"s{i}": nn.ModuleList(self.every[i * each : (i + 1) * each]) for i in range(count)
        }
        refuse_shared(self)
        self.ends: Ends | None = None
        self.stage: Stage | None = None
        self.seed = 0

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def experiment(self, values: Any) -> dict[str, Any]:
        """What decides its stages: a rack that costs as much, part for part."""
        samples, tokens = tokens_of(values) or (1, 2)
        return {
            "rack": stand_in(self),
            "objective": "clm",
            "data": {"seq_len": max(2, tokens)},
            "optim": {"batch": samples, "ema": None},
        }

    def parts(self) -> dict[str, nn.Module]:
        """Embedding, stacks, head."""
        assert self.ends is not None, "enter comes first"
        return {"embedding": self.ends.embedding, **self.stacks, "head": self.ends.head}

    def check(self, stages: tuple[Stage, ...]) -> None:
        """Raise ValueError if a stage asks for what a module that is no rack cannot do."""
        for number, stage in enumerate(stages):
            where = f"curriculum.stages[{number}]"
            if any(entry.init == "zero_output" for entry in stage.new or ()):
                raise ValueError(
                    f"{where}.new: zero_output knows the layers of a Rack only; use random or copy"
                )

    def add(self, entry: NewStack, seed: int) -> None:
        """Give a stack its start; at random means the weights that it has."""
        begin_as(self.stacks[entry.stack], entry, self.stacks, seed)

    def enter(self, stage: Stage, exp: Experiment, batch: Any) -> None:
        """Hold the blocks of the stage's path; what is frozen also keeps its buffers.

        Raises:
            ValueError: If the first block is not called.
        """
        if self.ends is None:
            self.ends = find_ends(
                lambda: self.loss_of(self.model, batch), self.model, self.every, str(self.name)
            )
        trains = parts_trained(stage)
        on_the_way = self._on_the_way()
        for module in outside_of(self.model, self.every):
            ends = {"embedding" if module in self.ends.before else "head"}
            ends = {"embedding", "head"} if module in on_the_way else ends
            module.training = bool(ends & trains)
        for name, stack in self.stacks.items():
            stack.train(name in trains)
        self.stage, self.seed = stage, exp.seed
        self.hold([block for name in stage.path for block in self.stacks[name]])

    def loss(self, batch: OwnBatch, step: int, progress: float) -> Tensor:
        """The user's loss on a batch."""
        assert self.stage is not None, "enter comes first"
        if self.stage.pick is not None:
            path = path_at(self.stage, self.seed, step)
            self.hold([block for name in path for block in self.stacks[name]])
        return self.loss_of(self.model, batch.values)

    def state(self, stacks: set[str]) -> dict[str, dict[str, Tensor]]:
        """Tensors of what lies outside the blocks, and of `stacks`."""
        held = list(self.blocks)
        self.hold([])
        outside = self.model.state_dict()
        self.hold(held)
        return {
            "outside": dict(outside),
            **{name: dict(s.state_dict()) for name, s in self.stacks.items() if name in stacks},
        }

    def finish(self, stages: tuple[Stage, ...]) -> None:
        """Nothing is left to do."""

    def hold(self, blocks: list[nn.Module]) -> None:
        """Make the list hold exactly these; it stays the same object."""
        del self.blocks[:]
        self.blocks.extend(blocks)

    def restore(self) -> None:
        """Make the list whole."""
        self.hold(self.every)

    def _on_the_way(self) -> set[nn.Module]:
        """The modules that hold the list of blocks."""
        names = str(self.name).split(".")
        return {self.model.get_submodule(".".join(names[:i])) for i in range(len(names) + 1)}


def mapping_loss(model: Any, batch: Any) -> Tensor:
    """`model(**batch).loss`, as Hugging Face's models give it, on the model's device.

    Raises:
        TypeError: If the batch is not a mapping.
        ValueError: If the model gives no loss.
    """
    if not isinstance(batch, Mapping):
        raise TypeError(
            f"batch: {type(batch).__name__} is not a mapping; give loss, a function of model and "
            "batch"
        )
    device = next(model.parameters()).device
    sent = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    loss: Tensor | None = model(**sent).loss
    if loss is None:
        raise ValueError("loss: the model gave none; put labels into the batch, or give loss")
    return loss


def find_blocks(model: nn.Module, name: str | None) -> nn.ModuleList | nn.Sequential:
    """The list of blocks called `name`.

    Raises:
        ValueError: If there is none, or it is empty; the message lists what there is.
    """
    lists = {
        k: m
        for k, m in model.named_modules()
        if isinstance(m, nn.ModuleList | nn.Sequential) and k and len(m)
    }
    found = lists.get(name) if name is not None else None
    if found is None:
        there = ", ".join(f"{k} ({len(m)})" for k, m in lists.items()) or "none"
        asked = "needed for" if name is None else f"{name!r} is no list of blocks of"
        raise ValueError(f"blocks: {asked} {type(model).__name__}; lists of modules in it: {there}")
    return found


def refuse_shared(own: OwnModule) -> None:
    """Raise if one tensor belongs to two stacks, or to a stack and to what lies outside."""
    owner: dict[nn.Parameter, str] = {}
    outside = set(outside_of(own.model, own.every))
    for prefix, module in own.model.named_modules():
        if module in outside:
            for name, parameter in module.named_parameters(prefix, recurse=False):
                owner[parameter] = name
    for stack, blocks in own.stacks.items():
        for name, parameter in blocks.named_parameters():
            if parameter in owner:
                raise ValueError(
                    f"blocks: {stack}.{name} is the same tensor as {owner[parameter]}; what is "
                    "shared cannot be frozen in one place and trained in another"
                )
        owner |= {p: f"{stack}.{name}" for name, p in blocks.named_parameters()}


def stand_in(own: OwnModule) -> RackShape:
    """A rack whose head costs as many blocks as this module's does, by weights in products.

    Only ratios decide how a budget is split; attention scores are as good as left out.
    """
    matrices = sum(p.numel() for block in own.every for p in block.parameters() if p.ndim >= 2)
    head = sum(
        m.weight.numel() for m in outside_of(own.model, own.every) if isinstance(m, nn.Linear)
    )
    wide = 50_000
    block = 16 + 6 * wide  # weights of a block with d_model 2
    vocab = round(head / max(1, matrices / len(own.every)) * block / 2)
    return RackShape(
        stacks=len(own.stacks),
        blocks_per_stack=len(own.every) // len(own.stacks),
        d_model=2,
        heads=1,
        d_ff=wide,
        vocab=min(max(2, vocab), 1 << 22),
    )
