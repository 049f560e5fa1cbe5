"""What a run does of what it is asked through its folder, between two steps.

How it is asked is in `stackwise/runs/control.py`; what follows when a stop is not obeyed, in
`stackwise/detached/pressing.py`.
"""

from __future__ import annotations

import time

from stackwise.runs.control import orders
from stackwise.training.work import Work

LOOK_SECONDS = 0.05  # between looks while a run is paused


def take_orders(work: Work) -> None:
    """Note what was asked since the last look; `obeyed` in status.json says how far that is.

    Raises:
        KeyboardInterrupt: If it is to stop now.
        Moved, RunBusy: If it may not go on, as the last look at its folder found.
    """
    work.writer.stay.check()
    for order in orders(work.run.path, work.obeyed):
        work.obeyed = order.number
        work.writer.event("asked", command=order.command, number=order.number)
        work.writer.tell(obeyed=order.number)
        if order.command == "stop-now":
            raise KeyboardInterrupt("asked to stop now")
        if order.command == "stop":
            work.stop_requested = True
        else:
            work.paused = order.command == "pause"


def wait_while_paused(work: Work) -> None:
    """Hold the run where it is, saved and with all that it holds, until it may go on or stop."""
    if not holds(work):
        return
    began = time.monotonic()
    work.writer.event("paused", step=work.at.total_steps)
    if work.pacer is not None:
        work.pacer.clock.hold()
    work.writer.become("paused")
    while holds(work):
        time.sleep(LOOK_SECONDS)
        take_orders(work)
    if work.pacer is not None:
        work.pacer.clock.go_on()
    work.writer.become("running")
    seconds = time.monotonic() - began
    work.writer.event("went_on", step=work.at.total_steps, seconds=seconds)


def holds(work: Work) -> bool:
    """Whether it is to wait where it is; a stop ends that, from here or by a signal."""
    return work.paused and not work.stop_requested
