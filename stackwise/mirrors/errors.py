"""What is wrong with a mirror, in words that name no password."""

from __future__ import annotations

import re

from stackwise.training.manifest import CheckpointError

SECRETS = re.compile(r"(?<=//)[^/@\s]*@|\?\S*")


class MirrorError(CheckpointError):
    """A mirror that is damaged, or another run's, or another process's."""


def redacted(text: str) -> str:
    """Text without the names, passwords and queries of the addresses in it."""
    return SECRETS.sub("", text)
