"""What was asked of a run, as it stands in its folder: plain values, of any version, unchecked.

For lists and pictures of many runs, some of which may be of another version or damaged in their
experiment. The checked value is `Run.experiment`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import yaml

from stackwise.bounded import read_text
from stackwise.runs.damage import RESTORE, DamagedRun, RunError
from stackwise.versions import EXPERIMENT, VersionError, upgraded

if TYPE_CHECKING:
    from stackwise.runs.folder import Run

# Written by ourselves and never executed, so libyaml's loader will do, seven times as fast.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MOST_BYTES = 1 << 20
DEEPEST = 50
MOST_VALUES = 10_000  # aliases of aliases grow without end


def asked_of(run: Run) -> dict[str, Any]:
    """The keys of experiment.yaml, nested as they are written.

    Raises:
        RunError: If the file is missing, or is no mapping.
    """
    try:
        text = read_text(run.path / "experiment.yaml", MOST_BYTES)
    except FileNotFoundError:
        raise DamagedRun(f"run {run.id}: experiment.yaml is missing; {RESTORE}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"run {run.id}: experiment.yaml cannot be read: {error}") from error
    try:
        found = yaml.load(text, Loader=LOADER) if _is_shallow(text) else None
    except (yaml.YAMLError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not _is_small(found):
        raise DamagedRun(f"run {run.id}: experiment.yaml is damaged; {RESTORE}")
    with suppress(VersionError):  # of a newer one it is shown as it stands
        return upgraded(EXPERIMENT, found)
    return found


def _is_shallow(text: str) -> bool:
    """Whether it is nested as an experiment is: libyaml's loader dies of more, with the process."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            return False
    return True


def _is_small(value: Any) -> bool:
    """Whether it holds no more values than an experiment can."""
    left, waiting = MOST_VALUES, [value]
    while waiting and left:
        left, item = left - 1, waiting.pop()
        waiting += (
            item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        )
    return not waiting


def flat(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys to plain values: `{"optim": {"lr": 1}}` is `{"optim.lr": 1}`."""
    out: dict[str, Any] = {}
    for key, value in asked.items():
        if isinstance(value, dict) and value:
            out |= {f"{key}.{inner}": item for inner, item in flat(value).items()}
        else:
            out[str(key)] = value
    return out


def same_but_for_seed(asked: Mapping[str, Any]) -> str:
    """One text for all runs of an experiment that differ in `seed` alone."""
    return json.dumps({k: v for k, v in asked.items() if k != "seed"}, sort_keys=True, default=str)
