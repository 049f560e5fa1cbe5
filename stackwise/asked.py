"""What callers hand to the public functions, checked before anything is made of it.

The sections of an experiment check themselves (`config.py`); here is what stands around them: the
lists of a study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stackwise.errors import ExperimentError


def check_varied(vary: Mapping[str, Sequence[Any]] | None) -> dict[str, list[Any]]:
    """The keys that a study varies, each with its values.

    Raises:
        ExperimentError: If a key is what all arms have alike.
    """
    keys = {key: list(values) for key, values in (vary or {}).items()}
    for key in keys:
        if key.partition(".")[0] == "budget":
            raise ExperimentError(
                f"vary: {key!r} cannot vary, since every arm gets the base's budget; make one "
                "study for each budget"
            )
        if key == "seed":
            raise ExperimentError(
                f"vary: {key!r} cannot vary, since every arm runs once per seed; give seeds=(0, 1)"
            )
    return keys
