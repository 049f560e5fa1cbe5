"""Options that several curricula share: what new stacks start from, shares, rates, a last stage.

The types carry their own texts, so that the form and the command line say the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from stackwise.stage import FROM_OTHERS, Init, Moments, NewStack, Stage

NOISE = 0.01  # of a copy, over each matrix's root mean square

Split = Annotated[
    Literal["tokens", "flops"] | tuple[float, ...],
    Field(description="budget over the stages: equal tokens, equal FLOPs, or token weights"),
]
Rates = Annotated[
    Literal["continue", "rewarm", "per_stage"],
    Field(description="one schedule over all stages, with a new warm-up, or one each"),
]
Carried = Annotated[
    Moments,
    Field(description="moments of what trains on: new, kept, or kept and copied with a stack"),
]
Fuse = Annotated[
    float,
    Field(ge=0, le=0.95, description="part of the split for a last stage that trains all; 0: none"),
]
Noise = Annotated[
    float,
    Field(gt=0, le=10, description="of init=copy+noise, over each matrix's root mean square"),
]


def started(
    stack: str, init: Init, source: str, *, other: str | None = None, noise: float = NOISE
) -> NewStack:
    """A new stack with the start that is asked for.

    Args:
        stack: Its id.
        init: What it starts from. `interpolate` without a second stack is a copy.
        source: The stack to copy, where it is one.
        other: The stack on its other side, for `interpolate`.
        noise: For `copy+noise`.
    """
    if init == "interpolate" and other is None:
        init = "copy"
    return NewStack(
        stack=stack,
        init=init,
        source=source if init in FROM_OTHERS else None,
        other=other if init == "interpolate" else None,
        noise=noise if init == "copy+noise" else None,
    )


def share(split: str | tuple[float, ...], number: int) -> dict[str, Any]:
    """What a stage says of its part of the budget."""
    return {"share_of": split} if isinstance(split, str) else {"share": split[number]}


def fused(made: Iterable[Stage], path: Sequence[str], fuse: float) -> Iterator[Stage]:
    """The stages, and one more that trains the whole rack together with `fuse` of the split."""
    spent, last = 0.0, None
    for last in made:
        spent += last.share
        yield last
    if fuse and last is not None:
        keys = last.model_dump(include={"share_of", "lr", "optimizer_state"})
        yield Stage(name="fusion", path=tuple(path), share=spent * fuse / (1 - fuse), **keys)


def weights_problems(split: str | tuple[float, ...], count: int) -> Iterator[str]:
    """What is wrong with the weights of `count` stages."""
    if isinstance(split, str):
        return
    if len(split) != count:
        yield f"curriculum.split: {len(split)} weights for {count} stages; give one for each stage"
    if any(weight <= 0 for weight in split):
        yield f"curriculum.split: {split} must be over 0; they are weights"
