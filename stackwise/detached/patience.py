"""How long a run may take to obey a stop before it is made to."""

from __future__ import annotations

import math
from pathlib import Path

from stackwise.runs import status
from stackwise.runs.control import Order

LEAST_SECONDS = 60.0
STEPS = 5.0  # it obeys after one, and saves


def patience_for(folder: Path, order: Order) -> float:
    """Seconds that a run has for a stop: as asked, or a minute and five of its steps at least.

    What writes a checkpoint by then is not interrupted before it is whole, since each is written
    beside the last.
    """
    if order.patience is not None:
        return order.patience
    step = status.read(folder).get("step_seconds")
    if not isinstance(step, float) or not math.isfinite(step):
        return LEAST_SECONDS
    return max(LEAST_SECONDS, STEPS * step)
