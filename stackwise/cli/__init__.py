"""The command line: `stackwise run | resume | runs | eval | sample | import | doctor | ...`.

Each command is a small function over the public names. Exit codes: 0 done, 1 failed, 2 the command
or the experiment is wrong, 3 what was planned does not fit, 130 stopped with Ctrl-C (the run is
saved and can be resumed), 8 the run carries code that is not trusted.
Commands and options are listed in `arguments.py`; those that train are in `training.py`, those that
look at what is there in `looking.py`, those that move models in `moving.py`, those that check the
machine in `checking.py`, the one that looks for learning rates in `lr_finding.py`, the one that
compares in `studying.py`; `settings.py` reads `key=value`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stackwise.cli.arguments import read
from stackwise.cli.training import STOPPED
from stackwise.printing import say

UNTRUSTED = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    What takes long to import is imported inside, so that Ctrl-C is answered from the start.
    """
    try:
        return answered(arguments)
    except KeyboardInterrupt:
        print("stackwise: interrupted", file=sys.stderr)
        return STOPPED


def answered(arguments: Sequence[str] | None) -> int:
    """The same; Ctrl-C outside of training is raised."""
    options = read(arguments)
    from stackwise.data.errors import DataError
    from stackwise.errors import TrustError
    from stackwise.runs import RunBusy, RunError
    from stackwise.training.checkpoint import CheckpointError
    from stackwise.training.run import Stopped
    from stackwise.training.start import TrainingError

    try:
        return int(options.command(options))
    except TrustError as error:
        say(f"stackwise: {error}", error=True)
        return UNTRUSTED
    except (ValueError, RunError, DataError) as error:
        say(f"stackwise: {error}", error=True)
        return 2
    except (RunBusy, CheckpointError, TrainingError, OSError) as error:
        say(f"stackwise: {error}", error=True)
        return 1
    except Stopped as stopped:
        say(f"stackwise: {stopped}", error=True)
        return STOPPED
