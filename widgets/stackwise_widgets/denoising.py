"""A sample while it is written: its tokens before the first step, and after each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch

import stackwise as sw
from stackwise.objective import is_causal
from stackwise.sampling.asked import block_in
from stackwise.training.start import lent_from
from stackwise_widgets.views.through import denoising_html
from stackwise_widgets.views.tokens import part_said

if TYPE_CHECKING:
    from stackwise.data.tokenizer import Tokenizer

BOX = "\u25a1"


@dataclass(frozen=True)
class Frame:
    """A sample after a step.

    Attributes:
        step: 0 before the first.
        steps: In all.
        tokens: What stands for each token, those of the prompt included.
        hidden: Whether each reads [MASK] still.
        new: Whether each was chosen in this step.
        given: Whether each is of the prompt.
        text: What they say; where a token is hidden there is a box.
    """

    step: int
    steps: int
    tokens: tuple[str, ...]
    hidden: tuple[bool, ...]
    new: tuple[bool, ...]
    given: tuple[bool, ...]
    text: str

    def html(self) -> str:
        """As a picture."""
        return denoising_html(
            self.tokens, self.hidden, self.new, self.given, step=self.step, steps=self.steps
        )


def frames(run: sw.Run, prompt: str, *, length: int, steps: int, seed: int = 0) -> Iterator[Frame]:
    """A sample of a run's last checkpoint, before the first step and after each.

    Args:
        run: The run.
        prompt: The text that it continues.
        length: Tokens to add.
        steps: Denoising steps; from left to right, or by blocks, there is one for each token.
        seed: Of every random choice.

    Raises:
        CheckpointError: If there is no checkpoint yet.
        ValueError: If a number is out of range.
    """
    if not 1 <= steps <= length:
        raise ValueError(f"steps: {steps} must be 1 or more, and at most the length, {length}")
    causal, tokenizer = is_causal(run.experiment.objective), run.tokenizer()
    rack = run.rack(lent=lent_from(sw.Placement.load(run.path / "placement.yaml")))
    prompt_T = np.asarray(tokenizer.encode(prompt), dtype=np.int64)
    masks_T = np.full(length, rack.mask_id)
    first_BT = torch.tensor(np.concatenate([prompt_T, masks_T]))[None]
    by_block = block_in(rack.objective, first_BT.shape[1]) is not None
    steps = length if causal or by_block else steps
    before_T = first_BT[0].numpy()
    moves = sw.trajectory(rack, first_BT.clone(), None, steps, seed=seed)
    for step, ids_T in enumerate(_each(before_T, moves)):
        hidden_T = ids_T == rack.mask_id
        shown = [part_said(i, tokenizer) if i != rack.mask_id else "" for i in ids_T.tolist()]
        pieces = np.where(hidden_T, -1, ids_T)
        yield Frame(
            step=step,
            steps=steps,
            tokens=tuple(shown),
            hidden=tuple(hidden_T.tolist()),
            new=tuple((ids_T != before_T).tolist()),
            given=tuple((np.arange(len(ids_T)) < len(prompt_T)).tolist()),
            text="".join(_texts(pieces.tolist(), tokenizer)),
        )
        before_T = ids_T


def _each(first_T: np.ndarray, moves: Iterator[torch.Tensor]) -> Iterator[np.ndarray]:
    """What it begins with, and what it is after each step."""
    yield first_T
    for ids_BT in moves:
        yield ids_BT[0].numpy().copy()


def _texts(ids: list[int], tokenizer: Tokenizer) -> Iterator[str]:
    """The text of each stretch of tokens that are known, and a box for each that is not."""
    for hidden, stretch in groupby(ids, key=lambda i: i < 0):
        found = list(stretch)
        yield BOX * len(found) if hidden else tokenizer.decode(np.array(found))
