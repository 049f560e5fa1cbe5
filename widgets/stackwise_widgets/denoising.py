"""A sample while it is written: the text after every step, hidden tokens as boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import numpy as np
import torch

import stackwise as sw
from stackwise.objective import is_causal
from stackwise.training.start import lent_from

HIDDEN = "\u25a1"  # a box


@dataclass(frozen=True)
class Frame:
    """A sample after a step.

    Attributes:
        step: 0 before the first.
        steps: In all.
        prompt: The text that it continues.
        tokens: What follows, a text for each token; None for one that is hidden.
        new: Whether each was written in this step.
    """

    step: int
    steps: int
    prompt: str
    tokens: tuple[str | None, ...]
    new: tuple[bool, ...]

    @property
    def text(self) -> str:
        """All of it, with boxes."""
        return self.prompt + "".join(HIDDEN if token is None else token for token in self.tokens)


def frames(run: sw.Run, prompt: str, *, length: int, steps: int, seed: int = 0) -> Iterator[Frame]:
    """A sample of a run's last checkpoint, before the first step and after each.

    Args:
        run: The run.
        prompt: The text that it continues.
        length: Tokens to add.
        steps: Denoising steps; from left to right there is one for each token.
        seed: Of every random choice.

    Raises:
        CheckpointError: If there is no checkpoint yet.
        ValueError: If a number is out of range.
    """
    if not 1 <= steps <= length:
        raise ValueError(f"steps: {steps} must be 1 or more, and at most the length, {length}")
    causal = is_causal(run.experiment.objective)
    method, tokenizer = ("autoregressive" if causal else "ancestral"), run.tokenizer()
    rack = run.rack(lent=lent_from(sw.Placement.load(run.path / "placement.yaml")))
    prompt_T = torch.tensor(np.asarray(tokenizer.encode(prompt), dtype=np.int64))
    ids_BT = torch.nn.functional.pad(prompt_T[None], (0, length), value=rack.mask_id)
    steps, before = length if causal else steps, ids_BT
    yield Frame(0, steps, prompt, (None,) * length, (False,) * length)
    for step, ids in enumerate(sw.trajectory(rack, ids_BT.clone(), method, steps, seed=seed), 1):
        written_T = ids[0, len(prompt_T) :].tolist()
        fresh = (ids != before)[0, len(prompt_T) :].tolist()
        texts = tuple(
            None if token == rack.mask_id else tokenizer.decode(np.array([token]))
            for token in written_T
        )
        before = ids.clone()
        yield Frame(step, steps, prompt, texts, tuple(fresh))


def frame_html(frame: Frame) -> str:
    """One frame: the prompt, then the tokens; those of this step are underlined."""
    parts = [
        f'<span class="sw-hidden">{HIDDEN}</span>'
        if token is None
        else f"<u>{escape(token)}</u>"
        if new
        else escape(token)
        for token, new in zip(frame.tokens, frame.new, strict=True)
    ]
    return (
        f'<div class="sw-sample"><span class="sw-quiet">step {frame.step} of {frame.steps}</span> '
        f"<pre><b>{escape(frame.prompt)}</b>{''.join(parts)}</pre></div>"
    )
