"""What corruption takes and gives: the rule of a stage, and a batch as the rack reads it.

How each objective corrupts is in `objective.py`.

Shapes: B samples, T tokens, N counted positions, V entries of the head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from stackwise.bell import USUAL, Bell
from stackwise.choice import Params
from stackwise.masking import Sampling, check_band
from stackwise.model.direction import BlockCausal, Direction
from stackwise.stage import FULL_BAND


@dataclass(frozen=True)
class Corrupted:
    """A batch as the rack reads it.

    Attributes:
        input_BT: Ids that go in, int64; may hold [MASK] = V and [START] = V + 1.
        target_BT: Ids that should come out, int64.
        counted_BT: Positions that count in the loss.
        weight_B: Weight of each sample's counted positions, float32.
        mask_frac_B: Fraction of each sample that is hidden, float32; 0 for `clm`.
        trunk_BTD: What the trunk makes of the input, where that was read and not computed.
        time_B: The probability with which each sample's tokens are masked, float32; None where
            their number is what is drawn.
        weight_BT: Weight of each position, float32, where those of one sample differ; `weight_B` is
            then not read.
        blocks: How rows see each other where the text is read block by block: T rows are then more
            than the tokens of a sample, which stand first.
    """

    input_BT: Tensor
    target_BT: Tensor
    counted_BT: Tensor
    weight_B: Tensor
    mask_frac_B: Tensor
    trunk_BTD: Tensor | None = None
    time_B: Tensor | None = None
    weight_BT: Tensor | None = None
    blocks: BlockCausal | None = None

    @property
    def positions(self) -> int:
        """Tokens of all samples, counted or not: what a loss per token is divided by."""
        tokens = self.input_BT.shape[1] if self.blocks is None else self.blocks.noisy
        return len(self.input_BT) * tokens

    def direction(self, causal: Direction) -> Direction:
        """How it is read: block by block where it says so, else as the objective is."""
        return causal if self.blocks is None else self.blocks

    @property
    def target_N(self) -> Tensor:
        """Targets at the counted positions, row by row."""
        return self.target_BT[self.counted_BT]

    @property
    def weight_N(self) -> Tensor:
        """Weights at the counted positions, row by row."""
        if self.weight_BT is not None:
            return self.weight_BT[self.counted_BT]
        return self.weight_B.repeat_interleave(self.counted_BT.sum(1))

    @property
    def level_B(self) -> Tensor:
        """The noise level of each sample: its mask probability, or the masked part itself."""
        return self.mask_frac_B if self.time_B is None else self.time_B

    def split(self, samples: int) -> Iterator[Corrupted]:
        """The same in parts of at most `samples` samples, in order."""
        parts = {name: tensor.split(samples) for name, tensor in self.tensors().items()}
        for part in zip(*parts.values(), strict=True):
            yield self._of(dict(zip(parts, part, strict=True)))

    def rows(self, first: int, stop: int) -> Corrupted:
        """Some of the samples."""
        return self._of({name: tensor[first:stop] for name, tensor in self.tensors().items()})

    def to(self, device: torch.device | str) -> Corrupted:
        """The same on another device; what is pinned is copied while the caller goes on."""
        there = {k: x.to(device, non_blocking=x.is_pinned()) for k, x in self.tensors().items()}
        return self._of(there)

    def pinned(self) -> Corrupted:
        """The same in memory that a card can copy from by itself."""
        return self._of({name: tensor.pin_memory() for name, tensor in self.tensors().items()})

    def _of(self, tensors: dict[str, Tensor]) -> Corrupted:
        return Corrupted(**tensors, blocks=self.blocks)

    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}


@dataclass(frozen=True)
class Corruption:
    """How the batches of a stage are corrupted.

    Attributes:
        objective: Parameters of the objective.
        vocab: Entries of the head, V.
        batch_size: Samples per optimizer step, over which antithetic times are spread.
        seed: Of the run.
        schedule: Masking schedule; None for the objective's default.
        sampling: How diffusion times are drawn.
        band: Noise band (low, high], in mask probability.
        bell: The density of times with sampling=bell.
    """

    objective: Params
    vocab: int
    batch_size: int
    seed: int
    schedule: Params | None = None
    sampling: Sampling = "antithetic"
    band: tuple[float, float] = FULL_BAND
    bell: Bell = USUAL

    def __post_init__(self) -> None:
        problem = check_band(self.objective.choice, self.sampling, self.band)
        if problem:
            raise ValueError(problem)
