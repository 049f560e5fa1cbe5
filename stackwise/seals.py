"""Mappings in JSON that tell whether they are what was written: a hash of all else, inside."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackwise.jsontext import dumps, read_mapping

SEAL = "sha256"


def sealed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with the hash of all else that it holds, under `sha256`."""
    rest = {key: value for key, value in facts.items() if key != SEAL}
    return {**rest, SEAL: hashlib.sha256(dumps(rest).encode()).hexdigest()}


def opened(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same without it; one that has none, as older runs wrote them, as it is.

    Raises:
        ValueError: If it is not what was written.
    """
    try:
        whole = SEAL not in found or sealed(found)[SEAL] == found[SEAL]
    except RecursionError:
        whole = False  # nested deeper than what is written here
    if not whole:
        raise ValueError("is not what was written (its hash differs)")
    return {key: value for key, value in found.items() if key != SEAL}


def read_sealed(path: Path) -> dict[str, Any]:
    """What a file with one says, without it; nothing if it is not there or damaged."""
    try:
        return opened(read_mapping(path))
    except ValueError:
        return {}
