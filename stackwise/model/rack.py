"""The rack: embedding, stacks in order, head.

A rack may hold only some of its stacks, and runs any path through those it holds, bidirectionally
or causally as asked at each call; without a path, its own for the heaviest noise. How parts start
is in `init.py`, what attention does in `attention/`, what a step trains in
`stackwise/training/step.py`.

Shapes: B samples, T tokens, D width, V entries of the head, N positions chosen from B x T.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from stackwise.choice import Params, parse
from stackwise.model.attention import ATTENTION
from stackwise.model.block import Block, activation, make_norm
from stackwise.model.direction import BlockCausal, Direction, start_of
from stackwise.model.init import shelled, start
from stackwise.model.shape import RackShape, stack_ids
from stackwise.stage import FULL_BAND

BandPath = tuple[float, float, tuple[str, ...]]


class Embedding(nn.Module):
    """Token ids to vectors. The last two rows, V and V + 1, are [MASK] and [START].

    They have no row in the head, tied or not, and stand outside the published parameter count.
    """

    def __init__(self, shape: RackShape, vocab: int) -> None:
        super().__init__()
        self.vocab = vocab
        self.table = nn.Parameter(torch.empty(vocab + 2, shape.d_model))
        rows = shape.max_positions if shape.positions == "learned" else None
        self.positions = nn.Parameter(torch.empty(rows, shape.d_model)) if rows else None
        types = shape.token_types
        self.types = nn.Parameter(torch.empty(types, shape.d_model)) if types else None
        self.norm = nn.LayerNorm(shape.d_model, shape.norm_eps) if shape.embed_norm else None

    def forward(self, ids_BT: Tensor, start: int | BlockCausal = 0) -> Tensor:
        """(B, T) ids up to V + 1 to (B, T, D); the first one stands at position `start`.

        Or `start` says where rows stand that are read block by block.

        Raises:
            ValueError: If there are more tokens than learned positions.
        """
        x_BTD = nn.functional.embedding(ids_BT, self.table)
        if x_BTD.dtype == torch.bfloat16:
            x_BTD = x_BTD.float()  # residuals add up in float32, whatever the weights are
        if self.positions is not None:
            rows: Tensor | slice
            if isinstance(start, BlockCausal):
                rows, end = start.places(ids_BT.device), start.last_place + 1
            else:
                rows, end = slice(start, start + ids_BT.shape[1]), start + ids_BT.shape[1]
            if end > len(self.positions):
                raise ValueError(
                    f"{end} tokens > max_positions={len(self.positions)}; shorten them"
                )
            x_BTD = x_BTD + self.positions[rows]
        if self.types is not None:
            x_BTD = x_BTD + self.types[0]
        return x_BTD if self.norm is None else cast(Tensor, self.norm(x_BTD))

    @property
    def tokens(self) -> Tensor:
        """The rows of the vocabulary, (V, D): a view."""
        return self.table[: self.vocab]

    @property
    def special(self) -> Tensor:
        """The rows of [MASK] and [START], (2, D): a view."""
        return self.table[self.vocab :]


class Stack(nn.Module):
    """Consecutive blocks that are grown, trained and frozen together."""

    def __init__(self, shape: RackShape, attention: Params, place: int) -> None:
        super().__init__()
        first = place * shape.blocks_per_stack
        self.blocks = nn.ModuleList(
            Block(shape, attention, first + i) for i in range(shape.blocks_per_stack)
        )

    def forward(self, x_BTD: Tensor, *, causal: Direction, time_B: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D); levels (B,) where the rack has its time as input."""
        for block in self.blocks:
            x_BTD = block(x_BTD, causal=causal, time_B=time_B)
        return x_BTD


class Head(nn.Module):
    """Final norm (pre-norm racks), BERT's transform if asked for, and logits over V entries."""

    def __init__(self, shape: RackShape, vocab: int) -> None:
        super().__init__()
        self.shape, self.vocab = shape, vocab
        self.norm = make_norm(shape) if shape.norm_place == "pre" else None
        self.dense = nn.Linear(shape.d_model, shape.d_model) if shape.head_transform else None
        self.dense_norm = make_norm(shape) if shape.head_transform else None
        self.weight = None if shape.tied else nn.Parameter(torch.empty(vocab, shape.d_model))
        self.bias = nn.Parameter(torch.empty(vocab)) if shape.head_bias else None

    def forward(self, x_ND: Tensor, table: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., V); of the embedding's table if it is tied."""
        return nn.functional.linear(self.features(x_ND), self.weight_of(table), self.bias)

    def features(self, x_ND: Tensor) -> Tensor:
        """What the logits are a linear function of, (..., D)."""
        if self.norm is not None:
            x_ND = self.norm(x_ND)
        if self.dense is not None and self.dense_norm is not None:
            x_ND = self.dense_norm(activation(self.shape, self.dense(x_ND)))
        return x_ND

    def weight_of(self, table: Tensor) -> Tensor:
        """The rows of that function, (V, D): its own, or the embedding's if it is tied."""
        return table[: self.vocab] if self.weight is None else self.weight


class Rack(nn.Module):
    """The whole model.

    Args:
        shape: Its sizes.
        attention: The attention kind: its name, parameters, or a mapping of them.
        vocab: Entries of the head.
        stacks: Ids of the stacks to hold now, of `stack_ids(shape)`; None for all.
        seed: Of every part's start: each part draws from its own generator, so that a stack starts
            the same whichever others exist.
        paths: Which stacks serve which masked fraction, as (low, high, stacks); None for all that
            are held, from left to right. Training sets them.
        dtype: Of matrices; vectors (norms, biases) are float32. bfloat16 ones are multiplied under
            autocast, as in training, whether the caller has entered it or not.

    Attributes:
        objective: What it was trained for, where that is known: a run's rack says it.

    Raises:
        ExperimentError: If the attention is unknown, or its parameters are wrong.
    """

    def __init__(
        self,
        shape: RackShape,
        attention: Params | str | Mapping[str, Any],
        vocab: int,
        *,
        stacks: Sequence[str] | None = None,
        seed: int = 0,
        paths: Sequence[BandPath] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.attention = parse(ATTENTION, attention, "attention", "kind")
        self.shape, self.vocab, self.seed, self.dtype = shape, vocab, seed, dtype
        self.embedding: Embedding = shelled(lambda: Embedding(shape, vocab), dtype)
        self.stacks = nn.ModuleDict()
        self.head: Head = shelled(lambda: Head(shape, vocab), dtype)
        start(self.embedding, shape, seed, "embedding")
        start(self.head, shape, seed, "head")
        for stack in stack_ids(shape) if stacks is None else stacks:
            self.add(stack)
        self._paths = list(paths) if paths is not None else None
        self.objective: Params | None = None

    @property
    def mask_id(self) -> int:
        """The id that reads as [MASK]."""
        return self.vocab

    @property
    def start_id(self) -> int:
        """The id that reads as [START]."""
        return self.vocab + 1

    @property
    def paths(self) -> list[BandPath]:
        """Which stacks serve which masked fraction, as (low, high, stacks)."""
        return [(*FULL_BAND, self.held())] if self._paths is None else self._paths

    @paths.setter
    def paths(self, paths: Sequence[BandPath]) -> None:
        self._paths = list(paths)

    def held(self) -> tuple[str, ...]:
        """The stacks that are here, left to right."""
        return tuple(stack for stack in stack_ids(self.shape) if stack in self.stacks)

    def add(self, stack: str, *, empty: bool = False) -> Stack:
        """Put a stack at its place, at its random start, on the embedding's device.

        Args:
            stack: Its id.
            empty: Leave its weights unset, and without memory: they are about to be loaded.

        Raises:
            ValueError: If the rack's shape has no such stack, or it is here already.
        """
        known = stack_ids(self.shape)
        if stack not in known:
            raise ValueError(f"{stack!r} is not a stack of this rack; known: {', '.join(known)}")
        if stack in self.stacks:
            raise ValueError(f"{stack!r} is in the rack already")
        place = known.index(stack)
        made: Stack = shelled(lambda: Stack(self.shape, self.attention, place), self.dtype)
        if not empty:
            start(made, self.shape, self.seed, stack)
        device = self.embedding.table.device
        self.stacks[stack] = made if device == next(made.parameters()).device else made.to(device)
        return made

    def parts(self) -> dict[str, nn.Module]:
        """Embedding, stacks from left to right, head, by name: what checkpoints hold as files."""
        stacks = {stack: self.stacks[stack] for stack in self.held()}
        return {"embedding": self.embedding, **stacks, "head": self.head}

    def blocks(self, path: Sequence[str]) -> Iterator[Block]:
        """The blocks of some stacks, in the order they run."""
        for stack in path:
            yield from cast(Iterator[Block], cast(Stack, self.stacks[stack]).blocks)

    def path_for(self, masked_frac: float) -> tuple[str, ...]:
        """The stacks that serve a masked fraction in (0, 1]."""
        for low, high, path in self.paths:
            if low < masked_frac <= high:
                return path
        return self.paths[0][2]

    def time_of(self, ids_BT: Tensor, time_B: Tensor | None = None) -> Tensor | None:
        """The noise levels that blocks are given, (B,); None where they read none.

        While training, a sample's level is the probability 1 - alpha(t) with which its tokens are
        masked, or k/T where k of T are masked by number. Elsewhere only the ids are there, and it
        is the part of them that is masked: evaluation's k/T, and what a sampler has still to fill.
        The two agree: of T tokens that are masked with probability p, the part that is lies within
        sqrt(p (1 - p) / T) of p; and of all levels, after k of T, the mean is (k + 1)/(T + 2).

        Args:
            ids_BT: Ids up to V + 1.
            time_B: Levels in [0, 1], where they are known.
        """
        if self.shape.time == "none":
            return None
        return (ids_BT == self.mask_id).float().mean(1) if time_B is None else time_B

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        causal: Direction = False,
        path: Sequence[str] | None = None,
        time_B: Tensor | None = None,
    ) -> Tensor:
        """What the last block of the path puts out, (B, T, D), before the final norm.

        Args:
            ids_BT: Ids up to V + 1.
            causal: Attention direction; block by block for attention kinds that can.
            path: Stacks, in the order they run; None for the rack's own at full noise, which is
                the only one it has without noise bands.
            time_B: Noise levels, (B,), for a rack with its time as input; None for the masked part
                of each sample (`time_of`).
        """
        time_B = self.time_of(ids_BT, time_B)
        with self.autocast(ids_BT.device):
            x_BTD = self.embedding(ids_BT, start_of(causal))
            for stack in self.path_for(1.0) if path is None else path:
                x_BTD = self.stacks[stack](x_BTD, causal=causal, time_B=time_B)
        return cast(Tensor, x_BTD)

    def logits(self, x_ND: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., V)."""
        with self.autocast(x_ND.device):
            return cast(Tensor, self.head(x_ND, self.embedding.table))

    def forward(
        self,
        ids_BT: Tensor,
        *,
        causal: Direction = False,
        path: Sequence[str] | None = None,
        time_B: Tensor | None = None,
    ) -> Tensor:
        """(B, T) ids to (B, T, V) logits."""
        return self.logits(self.hidden(ids_BT, causal=causal, path=path, time_B=time_B))

    def exits(
        self,
        ids_BT: Tensor,
        *,
        causal: Direction = False,
        path: Sequence[str] | None = None,
        time_B: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """(B, T, D) after the embedding, then after every block of the path."""
        time_B = self.time_of(ids_BT, time_B)
        with self.autocast(ids_BT.device):
            x_BTD = self.embedding(ids_BT, start_of(causal))
        yield x_BTD
        for block in self.blocks(self.path_for(1.0) if path is None else path):
            with self.autocast(ids_BT.device):  # not over the yield: the caller would be under it
                x_BTD = block(x_BTD, causal=causal, time_B=time_B)
            yield x_BTD

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """What bfloat16 matrices need, since norms give float32; nothing where it is on already."""
        if self.embedding.table.dtype != torch.bfloat16 or torch.is_autocast_enabled(device.type):
            return nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def untie(self) -> bool:
        """Give a tied head a copy of the token table, so that the two part. True if it was tied."""
        if self.head.weight is not None:
            return False
        self.head.weight = nn.Parameter(self.embedding.tokens.detach().clone())
        return True
