"""How a run stands, from what its folder says and which processes are alive.

made        it has been made, and nothing has trained it
starting    its process is about to train it
queued      it waits for its turn on a device
running     it trains
paused      it holds where it is, with all that it holds in memory
stale       its process is there, and has not been heard of for a while
stopped     it was stopped, and goes on from its last checkpoint
finished    all its stages are done
failed      it ended with an error
died        its process is gone, without a word
damaged     status.json cannot be read
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise.report import called
from stackwise.runs.heartbeat import silent_seconds
from stackwise.runs.lock import LOCK, NEXT, SUPERVISOR, boot, is_held

if TYPE_CHECKING:
    from stackwise.runs.folder import Run

TRAINED = ("running", "paused")
AWAITED = ("starting", "queued")
LIVE = (*TRAINED, *AWAITED, "stale")
STATES = ("made", *LIVE, "stopped", "finished", "failed", "died", "damaged")
SILENT_SECONDS = 30.0


def state_of(folder: Path, status: Mapping[str, Any]) -> str:
    """How a run stands.

    Args:
        folder: The run's.
        status: What its status.json says.
    """
    state = str(status.get("state", "made"))
    if state not in (*AWAITED, *TRAINED) and is_held(folder, NEXT):
        return "starting"  # another attempt follows the one that has ended
    if state in AWAITED:
        return state if is_held(folder, SUPERVISOR) else "died"
    if state not in TRAINED:
        return state
    if not is_held(folder, LOCK):
        return "died"
    return "stale" if silent_seconds(status, folder, boot()) > SILENT_SECONDS else state


def way_out(state: str, run: Run) -> str | None:
    """What to do about a run in a state that is none to stay in; None for any other.

    What it says to type is right from the folder in which this process works.
    """
    word = called(run)
    named = f"sw.attach({run.id if word == run.id else str(run.path)!r})"
    again = f"go on with it: {named}.resume(), or stackwise resume {word}"
    return {
        "stopped": again,
        "died": f"nothing is lost but the steps since its last checkpoint; {again}",
        "failed": f"see what it says, mend that, and {again}",
        "stale": "its process hangs, or the machine is too busy to let it speak; wait, or stop it "
        "with stop(now=True)",
        "paused": f"let it go on: {named}.resume()",
    }.get(state)
