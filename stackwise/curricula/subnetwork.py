"""A random path through the rack at every step, longer from stage to stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field

from stackwise.choice import Params
from stackwise.curricula.options import Carried, Rates, Split, share, weights_problems
from stackwise.model.shape import RackShape, stack_ids
from stackwise.stage import Stage

if TYPE_CHECKING:
    from stackwise.config import Experiment


class Subnetwork(Params):
    """Random paths of growing length, the first and last stack always on them (RaPTr, 2402.05913).

    What is skipped is passed by on the residual stream.
    """

    name: Literal["subnetwork"] = "subnetwork"
    lengths: tuple[int, ...] | None = Field(
        None,
        description="stacks of each stage's paths, 3 or more for those inside to train; empty: "
        "half of them, then all",
    )
    split: Split = "tokens"
    lr: Rates = "continue"
    optimizer_state: Carried = "keep"


def subnetwork(exp: Experiment) -> Iterator[Stage]:
    """Train random paths, longer in every stage."""
    ids, options = stack_ids(exp.rack), cast(Subnetwork, exp.curriculum)
    for number, length in enumerate(lengths_of(options, len(ids))):
        yield Stage(
            name=f"{length} of {len(ids)}",
            path=ids,
            pick=length if length < len(ids) else None,
            lr=options.lr,
            optimizer_state=options.optimizer_state,
            **share(options.split, number),
        )


def lengths_of(options: Subnetwork, stacks: int) -> tuple[int, ...]:
    """How many stacks the paths of each stage have."""
    half = min(stacks, max(3, -(-stacks // 2)))
    return options.lengths or tuple(dict.fromkeys((half, stacks)))


def subnetwork_problems(shape: RackShape, options: Params) -> Iterator[str]:
    """What is wrong with the options on a rack of this shape."""
    if not isinstance(options, Subnetwork):
        return
    lengths = lengths_of(options, shape.stacks)
    if any(not 1 <= length <= shape.stacks for length in lengths):
        yield (
            f"curriculum.lengths: {lengths} must be from 1 to rack.stacks={shape.stacks}; "
            "they are stacks"
        )
    yield from weights_problems(options.split, len(lengths))
