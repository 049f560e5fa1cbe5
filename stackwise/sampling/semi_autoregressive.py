"""Semi-autoregressive sampling: windows of tokens left to right, each filled by an inner sampler.

LLaDA (arXiv 2502.09992, appendix B.4). Not block diffusion: all tokens are read at
every step, those of later windows as [MASK].

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

WHOLE = ("autoregressive", "semi_autoregressive", "through_depth")
Inner = str | dict[str, Any]


class SemiAutoregressive(Params):
    """Windows of `block` tokens from left to right, each filled by an inner sampler.

    LLaDA (arXiv 2502.09992). Follows the rack's distribution if the inner sampler does.
    """

    kind: Literal["semi_autoregressive"] = "semi_autoregressive"
    block: int = Field(32, ge=1, description="tokens per window")
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
        raise ValueError(
            f"inner: {name} fills the whole text by itself; use one of {', '.join(known)}"
        )
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
    parts = windows(task.fill_BT, params.block)
    if task.steps is not None and entry.takes_steps(inner) and task.steps < len(parts):
        raise ValueError(
            f"steps: {task.steps} < {len(parts)} windows of method.block={params.block} tokens; "
            f"give {len(parts)} or more, or longer windows"
        )
    return _each(task, parts, entry, inner)


def _each(task: Task, parts: list[Tensor], entry: Sampler, inner: Params) -> Iterator[Tensor]:
    ids_BT, count = task.ids_BT, len(parts)
    for number, fill_BT in enumerate(parts):
        steps = task.steps
        if steps is not None:
            steps = steps * (number + 1) // count - steps * number // count
        part = replace(task, ids_BT=ids_BT, fill_BT=fill_BT, steps=steps)
        for after_BT in entry.build(part, inner):
            ids_BT = after_BT
            yield ids_BT


def windows(fill_BT: Tensor, block: int) -> list[Tensor]:
    """The positions to fill of each window that has any, left to right, each (B, T), bool."""
    columns = fill_BT.any(0).nonzero()[:, 0]
    if not len(columns):
        return []
    place_T = (torch.arange(fill_BT.shape[1], device=fill_BT.device) - columns[0]) // block
    return [fill_BT & (place_T == number) for number in place_T[columns].unique().tolist()]
