"""How long a run may take to obey a stop before it is made to."""

from __future__ import annotations

import math
from pathlib import Path

from stackwise.runs import status
from stackwise.runs.control import Order

LEAST_SECONDS = 60.0
STEPS = 5.0  # it obeys after one, and saves


def patience_for(folder: Path, order: Order) -> float:
    """Seconds in which a run has to take up a stop: as asked, or a minute and five steps at least.

    Once it has, it may save for as long as that takes.
    """
    if order.patience is not None:
        return order.patience
    step = status.read(folder).get("step_seconds")
    if not isinstance(step, float) or not math.isfinite(step):
        return LEAST_SECONDS
    return max(LEAST_SECONDS, STEPS * step)
