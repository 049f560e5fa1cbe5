"""Whether what stands in a run's experiment.yaml is an experiment, as far as a list has to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import stackwise as sw
from stackwise.runs.damage import RESTORE

OWN = ("unknown kind ", "unknown name ")  # a choice that lived in a notebook is no damage
LAST = "seed"  # written last, and always


def refusal(run_id: str, asked: Mapping[str, Any]) -> str | None:
    """Why an experiment cannot be read by this version; None if it can.

    A choice that this process does not know (one's own attention, made in a notebook) is let
    through: the run's numbers can be looked at without its code.

    Args:
        run_id: For the message.
        asked: Of `asked_of`.
    """
    where, known = f"run {run_id}: experiment.yaml", sw.Experiment.model_fields
    version = asked.get("schema_version")
    if version is not None and version != known["schema_version"].default:
        return f"{where}: schema_version: {version} is of another version of StackWise"
    if LAST not in asked:
        missing = [key for key in known if key not in asked]
        return f"{where} is cut short: it lacks {', '.join(missing)}; {RESTORE}"
    try:
        sw.Experiment(**{str(key): value for key, value in asked.items()})
    except sw.ExperimentError as error:
        problems = [one for one in error.problems if not one.text.startswith(OWN)]
        return f"{where}: {problems[0]}; {RESTORE}" if problems else None
    return None
