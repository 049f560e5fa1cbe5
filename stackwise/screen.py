"""A run on a terminal: how it stands, its loss over time and by depth, its memory, in lines.

What `stackwise watch` shows; read from the run's folder alone, as often as one likes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stackwise.errors import ExperimentError
from stackwise.report import bytes_text, duration, number
from stackwise.runs.events import counted_once
from stackwise.runs.folder import RunError

if TYPE_CHECKING:
    from stackwise.runs import Run

HEIGHTS = "▁▂▃▄▅▆▇█"
BAR = 30
LAST_LINES = 8


def screen(run: Run, width: int = 80) -> list[str]:
    """A run as it stands.

    Args:
        run: The run.
        width: Columns of the terminal.
    """
    try:
        lines = [*_standing(run), "", *_stages(run, width), "", *_losses(run, width)]
    except (RunError, ExperimentError) as error:
        return [f"{run.id}: damaged", str(error)]
    trouble = list(_trouble(run))
    return [line[:width] for line in lines] + (["", *trouble] if trouble else [])


def one_line(run: Run) -> str:
    """The same as one line, for a file."""
    try:
        return next(_standing(run))
    except RunError as error:
        return f"{run.id}: damaged: {error}"


def _standing(run: Run) -> Iterator[str]:
    status, name = run.status(), run.labels.name
    said = [f"{run.id}{f' ({name})' if name else ''}: {run.state}"]
    if status.get("waits_for"):
        said.append(f"waits for {', '.join(map(str, status['waits_for']))}")
    if status.get("step"):
        said.append(f"step {status['step']}")
    if isinstance(status.get("loss"), float):
        said.append(f"loss {status['loss']:.3f}")
    left = status.get("seconds_left")
    if isinstance(left, float) and math.isfinite(left) and run.is_live:
        said.append(f"{duration(left)} left")
    result = run.result()
    if result:
        said.append(f"{number(result['bits_per_byte'])} bits per byte held-out")
    yield ", ".join(said)


def _stages(run: Run, width: int) -> Iterator[str]:
    """A bar for each stage; of many only those around the one in hand."""
    stages = run.stages()
    present = int(run.status().get("stage") or 0)
    steps = last_steps(run)
    peaks = {event["stage"]: event.get("peak") for event in run.events("memory")}
    first = max(0, min(present - 4, len(stages) - 9))
    batch = run.experiment.optim.batch * run.experiment.data.seq_len
    for place, stage in list(enumerate(stages))[first : first + 9]:
        total = (stage.get("tokens") or 0) // batch
        done = steps.get(place, 0) / total if total else 0.0
        peak = f"  peak {bytes_text(peaks[place])}" if peaks.get(place) else ""
        yield f"{place:>4} {stage['name']:<12.12} {bar(done)} {done:4.0%}{peak}"
    if len(stages) > 9:
        yield f"     ({len(stages)} stages in all)"


def last_steps(run: Run) -> dict[int, int]:
    """Steps done of each stage that has begun."""
    last = run.metrics().groupby("stage", as_index=False)["stage_step"].max()
    return dict(zip(last["stage"].tolist(), last["stage_step"].tolist(), strict=True))


def _losses(run: Run, width: int) -> Iterator[str]:
    """Training loss over time, and the last held-out loss at every depth."""
    losses = run.metrics()["loss"].tolist()
    if losses:
        yield f"loss  {sparkline(losses, width - 24)} {losses[-1]:.3f}"
    looks = counted_once(run.events("eval"))
    if looks:
        held = [_float(look["loss"]) for look in looks]
        yield f"held  {sparkline(held, width - 24)} {held[-1]:.3f}"
    if looks and looks[-1].get("exit_losses"):
        depths = [_float(loss) for loss in looks[-1]["exit_losses"]]
        yield f"depth {sparkline(depths, width - 24)} {depths[0]:.2f} to {depths[-1]:.2f}"


def _trouble(run: Run) -> Iterator[str]:
    """Of a run that ended badly: why, its last lines, the way out."""
    why, way = run.error(), run.what_now()
    if why is not None:
        yield f"{run.state}: {why}"
        yield from (f"  {line}" for line in run.log(LAST_LINES))
    if way is not None:
        yield way


def bar(part: float, width: int = BAR) -> str:
    """A bar of which a part is full."""
    full = round(min(1.0, max(0.0, part)) * width)
    return "█" * full + "·" * (width - full)


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve of at most `width` letters; what is no number is a cross."""
    count = max(1, min(width, len(values)))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    means = [_mean(values[a:b]) for a, b in pairwise(edges)]
    finite = [value for value in means if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    scale = (len(HEIGHTS) - 1) / (high - low) if high > low else 0.0
    return "".join(
        HEIGHTS[round((value - low) * scale)] if math.isfinite(value) else "x" for value in means
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)
