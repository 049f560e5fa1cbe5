"""What is said of a run's file that does not hold what it should.

A folder may come from a stranger, be cut, or have been written by another version. What is made of
its files checks nothing by itself: whatever goes wrong then is the file's, and is told as that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackwise.runs.records import Records

RESTORE = "restore it from a copy of the run, or train again (rerun=True, --rerun)"
DAMAGE = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, NotImplementedError,
    RecursionError,
)  # fmt: skip
LONGEST = 200


class RunError(ValueError):
    """A run that is not there, a folder that is not a run, or a file in it that is damaged."""


class DamagedRun(RunError):
    """A file of a run's own is missing or damaged."""


@contextmanager
def blamed_on(run: Records, name: str) -> Iterator[None]:
    """Say of whatever goes wrong inside that a file of the run is damaged.

    Args:
        run: The run.
        name: The file's.

    Raises:
        DamagedRun: In place of what went wrong.
    """
    from stackwise.errors import ExperimentError

    try:
        yield
    except (RunError, ExperimentError):
        raise
    except DAMAGE as error:
        raise DamagedRun(f"run {run.id}: {name} {unfit(error)}") from error


def unfit(error: Exception) -> str:
    """What went wrong with a file that holds something else than it should, and the way out."""
    said = " ".join(str(error).split())
    cut = said if len(said) <= LONGEST else f"{said[:LONGEST]}..."
    return f"does not hold what it should ({type(error).__name__}: {cut}); {RESTORE}"
