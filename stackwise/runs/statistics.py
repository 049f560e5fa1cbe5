"""Statistics of blocks over a run, as a frame; what each number is stands in `docs/probes.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise.runs.events import counted_once

if TYPE_CHECKING:
    import pandas as pd

    from stackwise.runs.measured import Measured

SITES = ("residual", "attention", "ffn")
OF_SITE = ("rms", "mean", "max_abs", "kurtosis")
OF_STEP = ("grad_norm", "grad_to_weight", "update_to_weight")
NUMBERS = (*(f"{site}_{name}" for site in SITES for name in OF_SITE), "dead_frac", *OF_STEP)
DRIFT_COLUMNS = ["exit", "stage", "since", "drift", "kl"]


def statistics_of(run: Measured) -> pd.DataFrame:
    """Sizes of activations, gradients and updates, one row per look and block.

    Args:
        run: The run; one that is still going on, too.

    Returns:
        `step`, `stage`, `block` (`embedding`, `s0.0`, ..., `head`) and the columns of `NUMBERS`,
        NaN where there was none: a frozen block has no gradient, a trunk that is read from a cache
        no activations, the head no residual stream. Steps that were taken again count once.
    """
    import pandas as pd

    rows = [
        {"step": look["step"], "stage": look["stage"], "block": block}
        | {
            f"{site}_{name}": value
            for site in SITES
            for name, value in numbers.get(site, {}).items()
        }
        | {name: numbers.get(name) for name in ("dead_frac", *OF_STEP)}
        for look in counted_once(run.events("statistics"))
        for block, numbers in look["blocks"].items()
    ]
    frame = pd.DataFrame(rows, columns=["step", "stage", "block", *NUMBERS])
    return frame.astype(dict.fromkeys(NUMBERS, float))


def drift_of(run: Measured) -> pd.DataFrame:
    """How far predictions and outputs moved over each stage, as the run measured it.

    Args:
        run: The run; one that is still going on, too.

    Returns:
        One row per exit that the paths before and after a stage both have, and one for its
        `prediction`, as `stackwise.drift.representation_drift` gives between kept ends of stages:
        `exit`, `stage`, `since` (the stage before), `drift` (1 - CKA), `kl` in nats.
    """
    import pandas as pd

    rows = []
    for event in counted_once(run.events("drift")):
        since = event["since"]
        rows += [[name, event["stage"], since, each, None] for name, each in event["drift"].items()]
        rows.append(["prediction", event["stage"], since, None, event["kl"]])
    return pd.DataFrame(rows, columns=DRIFT_COLUMNS).astype({"drift": float, "kl": float})
