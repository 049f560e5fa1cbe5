"""Sampling as it happens: what changed at each step, what it took, and the sample at the end.

`stream` is what everything else is made of: `trajectory` gives its ids alone, `sample_ids` the last
of them, `sample` their text. All that can be wrong is said before the rack is read.

Shapes: B samples, P tokens of a prompt, T tokens in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import pad

from stackwise.choice import Params, find
from stackwise.evaluation import device_of
from stackwise.model.rack import Rack
from stackwise.sampling.asked import (
    block_in,
    check_choosing,
    check_prompt,
    check_start,
    check_steps,
    method_for,
)
from stackwise.sampling.registry import SAMPLERS
from stackwise.sampling.task import Task
from stackwise.sampling.view import View

if TYPE_CHECKING:
    from stackwise.data.tokenizer import Tokenizer

HIDDEN = "\u2592"


@dataclass(frozen=True, eq=False)
class Step:
    """A batch of samples after one step.

    Attributes:
        number: Steps done, 1 or more.
        ids_BT: Ids up to [MASK], (B, T), int64.
        new_BT: Which positions were filled in this step, (B, T), bool.
        back_BT: Which were masked again in it, (B, T), bool.
        left: Masks that are left to fill, in all samples.
        forwards: Reads of the rack so far; a step may take none, or one per path.
        samples: Samples in those reads: in all of them, each counted every time.
        flops: FLOPs of the reads so far, heads included; None where the cost is not known.
        paths: The stacks that ran in this step, one entry per read.
    """

    number: int
    ids_BT: Tensor
    new_BT: Tensor
    back_BT: Tensor
    left: int
    forwards: int
    samples: int
    flops: float | None
    paths: tuple[tuple[str, ...], ...]


def stream(
    rack: Rack,
    start: ArrayLike | Tensor,
    *,
    length: int = 0,
    method: str | Params | None = None,
    steps: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[Step]:
    """Fill masks, and say after every step what changed and what it took so far.

    Args:
        rack: The rack.
        start: Ids up to `rack.mask_id`, (T,) or (B, T): every [MASK] is filled, nothing else
            changes.
        length: [MASK]s to append, 0 or more.
        method: As for `sample`.
        steps: As for `sample`.
        temperature: 0 or more.
        top_k: As for `sample`.
        top_p: As for `sample`.
        seed: Of every random choice.

    Returns:
        One `Step` per step. Nothing is read before the first is asked for.

    Raises:
        ValueError: If something that is asked cannot be: at once, before the first step.
    """
    ids_BT = torch.atleast_2d(torch.as_tensor(start, dtype=torch.int64, device=device_of(rack)))
    check_start(rack, ids_BT, length)
    check_choosing(steps, temperature, top_k, top_p, seed)
    ids_BT = pad(ids_BT, (0, length), value=rack.mask_id)
    objective = rack.objective if isinstance(rack, Rack) else None
    block = block_in(objective, ids_BT.shape[1])
    params = method_for(rack, method, block)
    task = Task(
        View(rack, temperature=temperature, top_k=top_k, top_p=top_p, block=block),
        ids_BT,
        ids_BT == rack.mask_id,
        steps,
        temperature,
        torch.Generator().manual_seed(seed),
    )
    moves = find(SAMPLERS, params.choice, "method").build(task, params)
    check_steps("steps", steps, params, f"method={params.choice}")
    return _steps(task, moves)


def _steps(task: Task, moves: Iterator[Tensor]) -> Iterator[Step]:
    before_BT, mask, view = task.ids_BT, task.rack.mask_id, task.rack
    number = 0
    while True:
        with torch.no_grad():  # not over the yield: the caller would be under it
            ids_BT = next(moves, None)
        if ids_BT is None:
            return
        number += 1
        paths, view.paths = tuple(view.paths), []
        yield Step(
            number=number,
            ids_BT=ids_BT,
            new_BT=(before_BT == mask) & (ids_BT != mask),
            back_BT=(before_BT != mask) & (ids_BT == mask),
            left=int((ids_BT == mask).sum()),
            forwards=view.forwards,
            samples=view.samples,
            flops=view.flops,
            paths=paths,
        )
        before_BT = ids_BT


def trajectory(
    rack: Rack,
    ids_BT: Tensor,
    method: str | Params | None = None,
    steps: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Fill the [MASK]s of `ids_BT`, anywhere in it, and yield the ids after every step.

    Raises:
        ValueError: As `stream`.
    """
    found = stream(rack, ids_BT, method=method, steps=steps, temperature=temperature, seed=seed)
    return (step.ids_BT for step in found)


def sample_ids(
    rack: Rack,
    prompt: ArrayLike | Tensor,
    *,
    length: int,
    method: str | Params | None = None,
    steps: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Continue prompts of equal length.

    Args:
        rack: The rack.
        prompt: Ids below V, (P,) or (B, P); P may be 0.
        length: Tokens to add, 1 or more.
        method: As for `sample`.
        steps: As for `sample`.
        temperature: 0 or more.
        top_k: As for `sample`.
        top_p: As for `sample`.
        seed: Of every random choice.

    Returns:
        Ids below V, (P + length,) or (B, P + length), int64, that begin with the prompt.

    Raises:
        ValueError: If the method is unknown or not for this rack, or a number or an id is out of
            range.
    """
    prompt_BP = torch.as_tensor(prompt, dtype=torch.int64, device=device_of(rack))
    check_prompt(rack, prompt_BP, length)
    *_, last = stream(
        rack,
        prompt_BP,
        length=length,
        method=method,
        steps=steps,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    return last.ids_BT if prompt_BP.dim() == 2 else last.ids_BT[0]


def sample(
    rack: Rack,
    prompt: str = "",
    *,
    tokenizer: Tokenizer,
    length: int = 64,
    method: str | Params | None = None,
    steps: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
) -> str:
    """Continue a text.

    Args:
        rack: The rack.
        prompt: What it continues; may be empty.
        tokenizer: The one it was trained with.
        length: Tokens to add.
        method: A name of `SAMPLERS`, `name:value` for its first knob (`ancestral:cosine`), a
            mapping of its knobs, or its parameters; None for `autoregressive` if the rack was
            trained causally, else `ancestral`, within each block where it was trained by blocks.
        steps: Denoising steps; None for one per token, and for samplers that say by themselves how
            many there are.
        temperature: 0 takes the most probable token; 1 samples the rack's distribution.
        top_k: Choose among the k most probable tokens alone.
        top_p: Choose among the most probable tokens that have this probability together; 1 for all.
        seed: Of every random choice.

    Returns:
        Prompt and continuation.

    Raises:
        ValueError: As `sample_ids`.
    """
    ids_T = sample_ids(
        rack,
        np.asarray(tokenizer.encode(prompt), dtype=np.int64),
        length=length,
        method=method,
        steps=steps,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    return tokenizer.decode(ids_T.cpu().numpy())


def text_of(ids_T: Tensor, tokenizer: Tokenizer, mask_id: int, hidden: str = HIDDEN) -> str:
    """The text of a sample while it is written, with a sign for each token that is masked.

    Args:
        ids_T: Ids up to [MASK], (T,).
        tokenizer: The one that the rack was trained with.
        mask_id: That of the rack.
        hidden: The sign.
    """
    found = ""
    for masked, stretch in groupby(ids_T.tolist(), key=lambda i: i == mask_id):
        ids = list(stretch)
        found += hidden * len(ids) if masked else tokenizer.decode(np.array(ids))
    return found
