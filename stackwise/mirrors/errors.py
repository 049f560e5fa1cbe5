"""What is wrong with a mirror, in words that name no password."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from stackwise.runs.damage import RunError
from stackwise.training.manifest import CheckpointError

SECRETS = re.compile(r"(?<=//)[^/\s]*@|\?\S*")


class MirrorError(CheckpointError):
    """A mirror that is damaged, or another run's, or another process's."""


class OtherMirror(MirrorError):
    """A mirror of another run, or of one that is further."""


class BusyMirror(MirrorError):
    """A mirror that another process writes."""


@contextmanager
def of_address(shown: str) -> Iterator[None]:
    """Turn whatever an address raises into words: each kind has errors of its own.

    Raises:
        OSError: In place of what is none of ours.
    """
    try:
        yield
    except (OSError, RunError, CheckpointError, MemoryError):
        raise
    except Exception as error:
        why = redacted(f"{type(error).__name__}: {error}")
        raise OSError(f"{shown}: cannot be used as a mirror: {why}") from error


def redacted(text: str) -> str:
    """Text without the names, passwords and queries of the addresses in it."""
    return SECRETS.sub("", text)
