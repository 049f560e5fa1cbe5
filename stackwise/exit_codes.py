"""What an ended process says by its exit code: commands, launched runs, studies.

The table for users is in `docs/running.md`; that of `stackwise --help` is `TEXT`.
"""

from __future__ import annotations

import signal

from stackwise.stopping import TOLD, Terminated

DONE, FAILED, WRONG, DOES_NOT_FIT, BUSY, DISK, DAMAGED, NOT_FINITE, UNTRUSTED = range(9)
INTERRUPTED, TERMINATED = 130, 143

TEXT = """Exit codes: 0 done; 1 failed otherwise; 2 the command, the experiment or the run is named
wrong; 3 it does not fit into memory; 4 another process trains the run; 5 the disk is full, or a
folder cannot be read or written; 6 something on the disk is damaged or has changed; 7 a loss or a
gradient is no number; 8 the run carries code and is not trusted; 130 stopped by Ctrl-C or as it was
asked; 143 stopped by SIGTERM or the end of its terminal."""


def code_of(error: BaseException) -> int:
    """The exit code of a process that ends with an error, 1 for one that has none of its own."""
    from stackwise.errors import DoesNotFit, FolderError, TrustError
    from stackwise.interop.errors import DamagedModel
    from stackwise.memory.ran_out import ran_out
    from stackwise.mirrors.errors import BusyMirror, OtherMirror
    from stackwise.runs import RunBusy
    from stackwise.runs.damage import DamagedRun
    from stackwise.training.manifest import CheckpointError, NoCheckpoint
    from stackwise.training.start import Changed, NoMemory, NotFinite
    from stackwise.training.work import Stopped
    from stackwise.trunk.shards import CacheError

    if isinstance(error, KeyboardInterrupt | Stopped):
        return stop_code(error)
    kinds: list[tuple[type[BaseException] | tuple[type[BaseException], ...], int]] = [
        (TrustError, UNTRUSTED),
        ((DoesNotFit, NoMemory), DOES_NOT_FIT),
        ((RunBusy, BusyMirror), BUSY),
        (OtherMirror, WRONG),
        (NotFinite, NOT_FINITE),
        ((NoCheckpoint, BrokenPipeError), FAILED),
        ((CheckpointError, CacheError, DamagedRun, DamagedModel, Changed), DAMAGED),
        ((OSError, FolderError), DISK),
        (ValueError, DISK if is_of_disk(error.__cause__) else WRONG),
    ]
    found = next((code for kind, code in kinds if isinstance(error, kind)), FAILED)
    return DOES_NOT_FIT if ran_out(error) else found


def is_of_disk(cause: BaseException | None) -> bool:
    """Whether what was asked failed because of a disk, and not of the name that was given."""
    named_wrong = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
    return isinstance(cause, OSError) and not isinstance(cause, named_wrong)


def stop_code(error: BaseException | None = None) -> int:
    """That of a process which was stopped: by Ctrl-C or an order, or by SIGTERM."""
    by_signal = TOLD.last is not None and TOLD.last != signal.SIGINT
    return TERMINATED if by_signal or isinstance(error, Terminated) else INTERRUPTED


def of_process(code: int) -> int:
    """The same of a child's return code, where that was ended by a signal to stop itself."""
    return {-signal.SIGINT: INTERRUPTED, -signal.SIGTERM: TERMINATED}.get(code, code)


def is_stop(code: int) -> bool:
    """Whether a process that ended with this code was stopped."""
    return of_process(code) in (INTERRUPTED, TERMINATED)
