"""Another placement for a run that is there: what may change of it, and what follows from that.

What a placement means for a new run is in `start.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackwise.config import Placement
from stackwise.errors import ExperimentError
from stackwise.rules import check_placement
from stackwise.runs import Run
from stackwise.training.placing import check_trunk
from stackwise.training.start import device_of, seen_from, stages_of

CACHED_ONLY = ("cache_dir", "cache_gb")


def changed_placement(run: Run, change: Placement | Mapping[str, Any] | None) -> Placement:
    """The placement of a run, as its folder holds it, with another laid over it.

    Args:
        run: The run.
        change: None for none; a mapping changes the keys that it names, and empties those that are
            not read any more; a placement all keys but those of folders.

    Raises:
        ExperimentError: If a key is unknown or out of range, would move the run, or names a
            device that is not here, or the experiment cannot be carried out so.
    """
    present = Placement.load(run.path / "placement.yaml")
    if isinstance(change, Placement):
        change = change.model_dump(exclude={"runs_dir", "data_dir", "cache_dir"})
    keys = dict(change or {})
    if "runs_dir" in keys:
        raise ExperimentError(
            f"placement.runs_dir: {keys['runs_dir']!r}, but the run is there already; move its "
            "folder instead"
        )
    new = present.replace(**keys)
    for key in {"data_dir", "cache_dir"} & keys.keys():
        new = new.replace(**{key: getattr(seen_from(run.path, new), key)})
    left = (*CACHED_ONLY, "stream_from") if new.trunk == "recompute" else CACHED_ONLY
    if new.trunk != present.trunk and new.trunk != "cached":
        usual = Placement()
        new = new.replace(**{key: getattr(usual, key) for key in left if key not in keys})
    exp, made = run.experiment, stages_of(run)
    device_of(new)
    check_placement(exp, new)
    check_trunk(exp, new, made, goes_on=True)
    return new
