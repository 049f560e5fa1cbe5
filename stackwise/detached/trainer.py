"""The process that trains a detached run: imports what takes long, reads a job, carries it out.

Its output is the run's log.txt. Exit codes are those of `stackwise run`: 0 finished, 130 stopped,
1 failed, with the reason as the last line.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from stackwise.detached.job import Job
from stackwise.runs.log import LOG

STOPPED, FAILED = 130, 1


def main() -> int:
    """Carry out the job that comes on standard input; without one, do nothing."""
    import torch

    from stackwise.config import Placement
    from stackwise.memory.meter import warm_up
    from stackwise.runs import Run
    from stackwise.runs.carried import import_carried
    from stackwise.training.run import execute

    warm_up(torch.device("cpu"))  # a card's memory is not taken before it is the run's turn
    line = sys.stdin.readline()
    if not line.strip():
        return 0
    job = Job.of_line(line)
    into_log(Path(job.run))
    try:
        placement = None if job.placement is None else Placement(**job.placement)
        run = Run(job.run)
        if job.trusted:
            import_carried(run, only=job.trusted)
        run = execute(
            run,
            placement,
            mirror=job.mirror,
            through=job.through,
            obeyed=job.obeyed,
            holds_device=True,
        )
    except KeyboardInterrupt as stop:
        print(f"stopped at once; it goes on from its last checkpoint ({stop})", file=sys.stderr)
        return STOPPED
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return FAILED
    return 0 if run.state == "finished" else STOPPED


def into_log(folder: Path) -> None:
    """Send what this process says from here on to the run's log."""
    handle = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


if __name__ == "__main__":
    raise SystemExit(main())
