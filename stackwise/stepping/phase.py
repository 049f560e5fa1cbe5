"""What one phase of a training step tells: plain numbers, frozen.

Shapes: B samples, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Name = Literal[
    "batch", "mask", "embedding", "trunk", "active", "suffix", "loss", "gradients", "update"
]


@dataclass(frozen=True)
class TokenBatch:
    """The batch of a step, as it was read and as the rack reads it.

    Attributes:
        ids_BT: What should come out, int64.
        input_BT: What goes in; [MASK] is `vocab`, [START] is `vocab + 1`.
        counted_BT: Positions that count in the loss.
        mask_frac_B: Part of each sample that is hidden.
        weight_B: Weight of each sample's counted positions in the loss; their mean, where each has
            one of its own.
        vocab: Entries of the head.
        texts: The text of every id that occurs; empty where it is a part of a character.
        nats_BT: The loss at each counted position, before its weight; NaN elsewhere. None before
            the loss is known.
        guess_BT: The likeliest id there; -1 elsewhere. None before.
        weight_BT: The weight of each position, where those of a sample differ; None elsewhere.
    """

    ids_BT: NDArray[np.int64]
    input_BT: NDArray[np.int64]
    counted_BT: NDArray[np.bool_]
    mask_frac_B: NDArray[np.float32]
    weight_B: NDArray[np.float32]
    vocab: int
    texts: Mapping[int, str]
    nats_BT: NDArray[np.float64] | None = None
    guess_BT: NDArray[np.int64] | None = None
    weight_BT: NDArray[np.float32] | None = None

    @property
    def masked_BT(self) -> NDArray[np.bool_]:
        """Positions that read [MASK]."""
        masked: NDArray[np.bool_] = self.input_BT == self.vocab
        return masked


@dataclass(frozen=True)
class KeptTensor:
    """Tensors of one shape that autograd keeps for backward.

    Attributes:
        shape: Of each.
        dtype: Of each, as `float32`.
        count: How many.
        bytes: Of all of them together; memory that two share counts once.
    """

    shape: tuple[int, ...]
    dtype: str
    count: int
    bytes: int


@dataclass(frozen=True)
class Phase:
    """A training step after one of its phases.

    Numbers of a phase that has not come yet are empty mappings, or None.

    Attributes:
        stage: Number of the stage.
        step: Number of the step in its stage, from 0.
        steps: Steps of the stage.
        number: Of the phase in its step, from 0.
        names: All phases of this step, in order.
        name: What the phase is.
        parts: What of the rack it runs through: `embedding`, stacks, `head`.
        words: What happened, in a sentence or two.
        rate: Learning rate of the step.
        tokens: The batch.
        activations: Root mean square of what each block puts out, by `s0.0`; and of the embedding.
        kept: What autograd keeps of this phase for backward; None where it cannot be seen.
        loss: Nats per token of the batch.
        counted: Positions that count.
        grad_norm: Of all that trains, before clipping.
        clip: Bound on it.
        grad_norms: Of each block, embedding and head on the path; None where nothing trains.
        flow: Norm of the gradient that arrives at what each block, or the embedding, puts out; None
            where none arrives.
        changes: Norm of what each block's weights moved by; exactly 0 where nothing moved.
        relative: The same, over the norm of the weights before.
        memory: Bytes in use after the phase, by category; None where it cannot be seen.
        preserved: Terms beside the loss that hold the stage to the rack before it, without their
            weights.
    """

    stage: int
    step: int
    steps: int
    number: int
    names: tuple[Name, ...]
    name: Name
    parts: tuple[str, ...]
    words: str
    rate: float
    tokens: TokenBatch
    activations: Mapping[str, float]
    kept: tuple[KeptTensor, ...] | None
    loss: float | None
    counted: int
    grad_norm: float | None
    clip: float | None
    grad_norms: Mapping[str, float | None]
    flow: Mapping[str, float | None]
    changes: Mapping[str, float]
    relative: Mapping[str, float]
    memory: Mapping[str, int | None]
    preserved: Mapping[str, float]

    @property
    def kept_bytes(self) -> int | None:
        """Bytes that autograd keeps of this phase for backward."""
        return None if self.kept is None else sum(each.bytes for each in self.kept)

    @property
    def is_last(self) -> bool:
        """Whether the step ends with it."""
        return self.number == len(self.names) - 1
