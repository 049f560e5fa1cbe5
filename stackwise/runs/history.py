"""What a run brings along of the one that it began in: numbers and events up to a stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise.atomic import append
from stackwise.runs.event_lines import written_line
from stackwise.runs.events import counted_once
from stackwise.runs.metrics import read_table
from stackwise.runs.pieces import END_OF_STREAM, packed

if TYPE_CHECKING:
    from stackwise.runs.folder import Run

TOLD = ("stage_started", "eval", "frozen", "untied", "memory", "stage_finished")


def copy_history(run: Run, folder: Path, *, stage: int, steps: int) -> None:
    """Write what happened in a run up to the end of a stage into a new folder, as its attempt 1.

    Args:
        run: The run that it happened in.
        folder: The new run's.
        stage: The stage.
        steps: Steps of the run until then.
    """
    events = enumerate(events_until(run, stage))
    lines = [written_line({**event, "seq": seq, "attempt": 1}) for seq, event in events]
    (folder / "events.jsonl").write_text("".join(lines), "utf-8")
    table = read_table(run.path, gaps=True)  # what is lost there is missed here, too
    table = table.slice(0, sum(step <= steps for step in table["step"].to_pylist()))
    # Steps rise, so that this is its beginning.
    (folder / "metrics").mkdir()
    with (folder / "metrics" / "0001.arrows").open("xb", buffering=0) as file:
        append(file, table.schema.serialize())
        for batch in table.to_batches():
            append(file, packed(batch))
        append(file, END_OF_STREAM)


def events_until(run: Run, stage: int) -> list[dict[str, Any]]:
    """What is told of a run until a stage ended, in order; steps taken again count once."""
    events = run.events()
    ended = {"kind": "stage_finished", "stage": stage}
    ends = [i for i, event in enumerate(events) if event.items() >= ended.items()]
    events = [event for event in events[: ends[-1] + 1] if event["kind"] in TOLD] if ends else []
    looks = {e["seq"] for e in counted_once([e for e in events if e["kind"] == "eval"])}
    last = {
        (e["kind"], str(e.get("stage")), str(e.get("stacks"))): e["seq"]
        for e in events
        if e["kind"] != "eval"
    }
    kept = looks.union(last.values())
    return [e for e in events if e["seq"] in kept]
