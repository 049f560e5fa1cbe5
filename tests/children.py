"""Children of a test: forks of its own process, which end with the code of a function.

What has to be a process that computed nothing before is in `warm.py`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

STARTED: list[int] = []


def child(what: Callable[[], int], errors: str | Path = os.devnull) -> int:
    """Start a process that ends with the code of `what`; give its number.

    Args:
        what: What it does.
        errors: The file that takes what it says in errors.
    """
    number = os.fork()
    if number == 0:
        code = 99
        try:
            handle = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1), os.dup2(handle, 2)
            code = what()
        finally:
            os._exit(code)
    STARTED.append(number)
    return number


def code_of(number: int) -> int:
    """Wait for the end of a child; its code, or the signal below zero."""
    STARTED.remove(number)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def end_all() -> None:
    """End the children that are left: none outlives its test."""
    while STARTED:
        os.kill(STARTED[-1], signal.SIGKILL)
        code_of(STARTED[-1])
