"""pace.json: of a run whose budget is a time, what was forecast and what the clock decided.

It is replaced as a whole, flushed to the disk, before a decision has an effect, and holds a hash of
itself. `stages.json` stays as the run was launched with it: what is executed are those stages as
the decisions change them, which `Run.stages()` gives. What decisions mean is said in `pacing.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise.atomic import write_text
from stackwise.bounded import read_text
from stackwise.errors import ExperimentError
from stackwise.jsontext import dumps, loads
from stackwise.runs.damage import RESTORE, DamagedRun, RunError
from stackwise.runs.records import NO_FILE
from stackwise.seals import SEAL, opened, sealed

if TYPE_CHECKING:
    from stackwise.pacing import Pace
    from stackwise.runs.records import Records
    from stackwise.stage import Stage

PACE = "pace.json"
PACED = "paced"  # in provenance.json: that there is a pace.json
MOST_BYTES = 64 << 20


def pace_text(pace: Pace) -> str:
    """A run's pace as its file holds it."""
    return dumps(sealed(pace.model_dump(mode="json")), indent=1)


def write_pace(folder: Path, pace: Pace) -> None:
    """Replace a run's pace.json; it is on the disk when this returns.

    Raises:
        OSError: If it cannot be written; the old one is as it was.
    """
    write_text(folder / PACE, pace_text(pace))


def read_pace(run: Records) -> Pace | None:
    """The pace of a run; None if its budget is no time.

    Raises:
        DamagedRun: If it is missing, damaged, or of another run's stages.
    """
    from stackwise.pacing import Pace, whole_pace

    path = run.path / PACE
    damaged = f"run {run.id}: {PACE} is damaged; {RESTORE}"
    try:
        found = loads(read_text(path, MOST_BYTES))
        is_sealed, pace = SEAL in found, Pace.model_validate(opened(found))
    except FileNotFoundError:
        if run.provenance().get(PACED):
            raise DamagedRun(f"run {run.id}: {PACE} is missing; {RESTORE}") from None
        return None
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        raise DamagedRun(damaged) from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise DamagedRun(damaged) from None
    if not is_sealed or not whole_pace(pace, len(run.launched_stages())):
        raise DamagedRun(damaged)
    return pace


def stages_as_paced(run: Records, launched: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The stages of a run as the clock has decided of them so far, as JSON holds them.

    Raises:
        RunError: As `read_pace`, or if its stages or its experiment are damaged.
    """
    pace = read_pace(run)
    if pace is None or not pace.decisions:
        return [dict(stage) for stage in launched]
    return [stage.model_dump(mode="json") for stage in paced_stages(run, pace)]


def paced_stages(run: Records, pace: Pace, decisions: int | None = None) -> tuple[Stage, ...]:
    """The stages of a run after so many decisions; None for all.

    Raises:
        RunError: If its stages or its experiment are damaged.
    """
    from stackwise.course import paced
    from stackwise.stage import Stage

    try:
        launched = [Stage.model_validate(stage) for stage in run.launched_stages()]
        return paced(run.experiment, launched, pace.decisions[:decisions])
    except (ExperimentError, ArithmeticError) as error:
        raise RunError(f"run {run.id}: {PACE} does not go with it ({error}); {RESTORE}") from None


def plan_as_paced(
    rows: Sequence[Mapping[str, Any]], stages: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What was predicted of each stage, for the tokens that it reads by now."""
    found = []
    for row, stage in zip(rows, stages, strict=False):
        was, now = row.get("tokens"), stage.get("tokens")
        same = not was or not now or was == now
        found.append(
            {**row, **({} if same else {"tokens": now, "flops": row["flops"] / was * now})}
        )
    return found
