"""Numbers by layer over a run: the loss at every depth, and the gradient norm of every block.

The loss of an exit is that of the stage's own path and in its own noise band, so exits are compared
within a stage. What is drawn of these is in `widgets/stackwise_widgets/charts/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stackwise.runs.damage import blamed_on
from stackwise.runs.event_lines import Event
from stackwise.runs.events import counted_once

if TYPE_CHECKING:
    import pandas as pd

    from stackwise.runs.measured import Measured

ENTRY = "embedding"
EXIT_COLUMNS = ["step", "stage", "depth", "block", "exit_loss"]
NORM_COLUMNS = ["step", "stage", "block", "grad_norm"]


def layers_of(run: Measured) -> pd.DataFrame:
    """The held-out loss at every depth, at every look; steps that were taken again count once.

    Args:
        run: The run; one that is still going on, too.

    Returns:
        One row per look and exit. `depth`: blocks that ran before the exit, 0 for the one after
        the embedding. `block`: the last of these, `s0.0`, ..., or `embedding`. `exit_loss`: nats
        per token, in the stage's noise band. A look at the path's end alone (`eval.depths=last`)
        has no rows.

    Raises:
        RunError: If stages.json is missing or damaged.
    """
    import pandas as pd

    stages = run.stages()
    rows = [row for look in counted_once(run.events("eval")) for row in _exits(look, stages)]
    return pd.DataFrame(rows, columns=EXIT_COLUMNS)


def _exits(look: Event, stages: Sequence[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    losses = look.get("exit_losses") or []
    names = exit_names(stages[look["stage"]]["path"], len(losses))
    for depth, (block, loss) in enumerate(zip(names, losses, strict=True)):
        yield look["step"], look["stage"], depth, block, loss


def exit_names(path: Sequence[str], exits: int) -> list[str]:
    """What runs last before each exit of a path: `embedding`, then its blocks in their order.

    Every stack of a rack has as many blocks, so that their number follows from the exits.

    Raises:
        ValueError: If so many exits do not belong to such a path.
    """
    if not exits:
        return []
    if exits == 1 and not path:  # embedding and head alone
        return [ENTRY]
    each, odd = divmod(exits - 1, max(1, len(path)))
    if odd or not each:
        raise ValueError(
            f"exit_losses: {exits} numbers are not one more than the blocks of {len(path)} stacks; "
            "the event belongs to another run"
        )
    return [ENTRY, *(f"{stack}.{i}" for stack in path for i in range(each))]


def norms_of(run: Measured) -> pd.DataFrame:
    """The norm of the gradient of every block that trained, at every step.

    Args:
        run: The run; one that is still going on, too.

    Returns:
        One row per step and block that is active in the step's stage, NaN where its norm was none.
        A million steps of 80 blocks are 80 million rows: `run.metrics()["block_grad_norms"]` holds
        the same numbers closer together.

    Raises:
        RunError: If stages.json is missing or damaged.
        ExperimentError: If experiment.yaml cannot be read.
    """
    rack, metrics = run.experiment.rack, run.metrics()
    with blamed_on(run, "metrics/ or stages.json"):
        return _norms(run.stages(), block_names(rack.stacks, rack.blocks_per_stack), metrics)


def _norms(
    stages: Sequence[dict[str, Any]], names: Sequence[str], metrics: pd.DataFrame
) -> pd.DataFrame:
    """The same, of all blocks by their names."""
    import numpy as np
    import pandas as pd

    kept = metrics[metrics["block_grad_norms"].notna()]
    frames = []
    for number, stage in enumerate(stages):
        mine = kept[kept["stage"] == number]
        trains = [at for at, name in enumerate(names) if name.split(".")[0] in stage["active"]]
        if len(mine) and trains:
            norms_NA = np.stack(mine["block_grad_norms"].to_list())[:, trains]
            columns = {
                "step": np.repeat(mine["step"].to_numpy(), len(trains)),
                "stage": number,
                "block": [names[at] for at in trains] * len(mine),
                "grad_norm": norms_NA.ravel(),
            }
            frames.append(pd.DataFrame(columns, columns=NORM_COLUMNS))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=NORM_COLUMNS)


def block_names(stacks: int, blocks_per_stack: int) -> list[str]:
    """The blocks of a whole rack, left to right, in the order of `block_grad_norms`."""
    from stackwise.model.shape import RackShape, stack_ids

    ids = stack_ids(RackShape(stacks=stacks))
    return [f"{stack}.{i}" for stack in ids for i in range(blocks_per_stack)]
