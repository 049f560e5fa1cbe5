"""The process that trains a detached run: imports what takes long, reads a job, carries it out.

Its output is the run's log.txt, with the reason as the last line if it fails. Exit codes are those
of `stackwise run` (`stackwise/exit_codes.py`).
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from stackwise.detached.job import Job
from stackwise.exit_codes import DONE, code_of, stop_code
from stackwise.runs.log import appended
from stackwise.stopping import listening, was_interrupted


def main() -> int:
    """Carry out the job that comes on standard input; without one, do nothing."""
    with listening(program=True):
        try:
            return carry_out()
        except KeyboardInterrupt as stop:
            print(f"stopped at once; it goes on from its last checkpoint ({stop})", file=sys.stderr)
            return stop_code(stop)
        except Exception:
            if not was_interrupted():
                raise
            return stop_code()  # what it broke, as an import


def carry_out() -> int:
    """The same; what stops it on the spot is raised."""
    import torch

    from stackwise.config import Placement
    from stackwise.memory.meter import warm_up
    from stackwise.runs import Run
    from stackwise.runs.carried import import_carried
    from stackwise.training.run import execute

    warm_up(torch.device("cpu"))  # a card's memory is not taken before it is the run's turn
    line = sys.stdin.readline()
    if not line.strip():
        return DONE
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
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return code_of(error)
    return DONE if run.state == "finished" else stop_code()


def into_log(folder: Path) -> None:
    """Send what this process says from here on to the run's log."""
    with appended(folder) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


if __name__ == "__main__":
    raise SystemExit(main())
