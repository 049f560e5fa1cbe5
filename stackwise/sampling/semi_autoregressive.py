"""Semi-autoregressive sampling: windows of tokens left to right, each filled by an inner sampler.

LLaDA (arXiv 2502.09992): all tokens are read at every step, those of later windows as [MASK]. A
rack that was trained by `block_diffusion` is sampled as it learned instead (BD3-LM, arXiv
2503.09573, section 3.2, algorithm 2): windows are its blocks, counted from the first token, of
which those that are done are read clean, and later ones not at all (`by_block.py`).

Shapes: B samples, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from stackwise.choice import Params, find, parse
from stackwise.sampling.ranked import check_per_step
from stackwise.sampling.task import Sampler, Task

USUAL_BLOCK = 32
WHOLE = ("autoregressive", "semi_autoregressive", "through_depth")
Inner = str | dict[str, Any]


class SemiAutoregressive(Params):
    """Windows of `block` tokens from left to right, each filled by an inner sampler.

    LLaDA (arXiv 2502.09992); or the blocks of block_diffusion (arXiv 2503.09573). Follows the
    rack's distribution if the inner sampler does.
    """

    kind: Literal["semi_autoregressive"] = "semi_autoregressive"
    block: int | None = Field(
        None,
        ge=1,
        description="tokens per window; empty: 32, or those of a block with block_diffusion",
    )
    inner: str | dict[str, Any] = Field(
        "confidence",
        description="the sampler that fills a window: its name, as in confidence or entropy:2, or "
        "a mapping of its knobs",
    )

    @field_validator("inner")
    @classmethod
    def _known(cls, value: Inner) -> Inner:
        inner_of(value)
        return value


def inner_of(inner: Inner) -> tuple[Sampler, Params]:
    """The sampler of a window, and its parameters.

    Raises:
        ValueError: If it is unknown, or cannot fill a part of the masks.
    """
    from stackwise.sampling.registry import SAMPLERS

    known = {name: entry for name, entry in SAMPLERS.items() if name not in WHOLE}
    name = str(inner.get("kind")) if isinstance(inner, dict) else inner.partition(":")[0]
    if name in WHOLE:
        raise ValueError(f"{name} fills the whole text by itself; use one of {', '.join(known)}")
    params = parse(known, inner, "inner sampler", "kind")
    entry = find(known, params.choice, "inner sampler")
    return (entry if isinstance(entry, Sampler) else Sampler(entry.build, entry.params)), params


def semi_autoregressive(task: Task, params: SemiAutoregressive) -> Iterator[Tensor]:
    """Fill window after window, counted from the first masked column.

    Raises:
        ValueError: If there are fewer steps than windows with masks.
    """
    entry, inner = inner_of(params.inner)
    check_per_step(inner, task.steps)
    block = task.rack.block or params.block or USUAL_BLOCK
    parts = windows(task.fill_BT, block, from_first=task.rack.block is not None)
    if task.steps is not None and entry.takes_steps(inner) and task.steps < len(parts):
        raise ValueError(
            f"steps: {task.steps} < {len(parts)} windows of method.block={block} tokens; "
            f"give {len(parts)} or more, or longer windows"
        )
    return _each(task, parts, entry, inner)


def _each(task: Task, parts: list[Tensor], entry: Sampler, inner: Params) -> Iterator[Tensor]:
    ids_BT, count = task.ids_BT, len(parts)
    for number, fill_BT in enumerate(parts):
        steps = task.steps
        if steps is not None:
            steps = steps * (number + 1) // count - steps * number // count
        end = ids_BT.shape[1]
        if task.rack.block is not None:  # later blocks are not read
            last = int(fill_BT.any(0).nonzero()[-1])
            end = min(end, (last // task.rack.block + 1) * task.rack.block)
        part = replace(task, ids_BT=ids_BT[:, :end], fill_BT=fill_BT[:, :end], steps=steps)
        for after_BT in entry.build(part, inner):
            ids_BT = torch.cat([after_BT, ids_BT[:, end:]], dim=1)
            yield ids_BT


def windows(fill_BT: Tensor, block: int, *, from_first: bool = False) -> list[Tensor]:
    """The positions to fill of each window that has any, left to right, each (B, T), bool.

    Counted from the first column that has any, or from the first of all.
    """
    columns = fill_BT.any(0).nonzero()[:, 0]
    if not len(columns):
        return []
    first = 0 if from_first else int(columns[0])
    place_T = (torch.arange(fill_BT.shape[1], device=fill_BT.device) - first) // block
    return [fill_BT & (place_T == number) for number in place_T[columns].unique().tolist()]
