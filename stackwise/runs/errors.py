"""What is wrong with a run's folder, in words."""

from __future__ import annotations

RESTORE = "restore it from a copy of the run, or train again (rerun=True, --rerun)"


class RunError(ValueError):
    """A run that is not there, a folder that is not a run, or a file in it that is damaged."""


class DamagedRun(RunError):
    """A file of a run that is missing, or not what was written."""
