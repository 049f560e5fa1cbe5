"""The command line: `stackwise run | resume | runs | eval | sample | import | doctor | ...`.

Each command is a small function over the public names. What it says by its exit code stands in
`stackwise/exit_codes.py`; when Ctrl-C and SIGTERM take effect, in `stackwise/stopping.py`.
Commands and options are listed in `arguments.py`; those that train are in `training.py`, those that
look at what is there in `looking.py`, those that move models in `moving.py`, those that check the
machine in `checking.py`, the one that looks for learning rates in `lr_finding.py`, the one that
compares in `studying.py`; `settings.py` reads `key=value`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stackwise.cli.arguments import read
from stackwise.cli.streams import standard_streams
from stackwise.exit_codes import code_of, stop_code
from stackwise.printing import say
from stackwise.stopping import listening, was_interrupted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    What takes long to import is imported inside, so that Ctrl-C is answered from the start.
    """
    with listening(program=True), standard_streams():
        try:
            return printed(arguments)
        except KeyboardInterrupt as stop:
            print("stackwise: interrupted", file=sys.stderr)
            return stop_code(stop)
        except Exception:
            if not was_interrupted():
                raise
            print("stackwise: interrupted", file=sys.stderr)  # what it broke, as an import
            return stop_code()


def printed(arguments: Sequence[str] | None) -> int:
    """Run it, and print what is in hand."""
    code = answered(arguments)
    try:
        sys.stdout.flush()
    except OSError as error:
        say(f"stackwise: {error}", error=True)
        return code or code_of(error)
    return code


def answered(arguments: Sequence[str] | None) -> int:
    """The same; Ctrl-C outside of training is raised."""
    options = read(arguments)
    from stackwise.disk_errors import told
    from stackwise.memory.ran_out import ran_out
    from stackwise.runs import RunBusy
    from stackwise.training.manifest import CheckpointError
    from stackwise.training.run import Stopped
    from stackwise.training.start import TrainingError
    from stackwise.trunk.shards import CacheError

    said = (ValueError, RunBusy, CheckpointError, CacheError, TrainingError, OSError, Stopped)
    try:
        return int(options.command(options))
    except said as error:
        say(f"stackwise: {told(error)}", error=True)
        return code_of(error)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        say(f"stackwise: memory ran out: {error or 'no more is to be had'}", error=True)
        return code_of(error)
