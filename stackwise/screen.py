"""A run on a terminal: how it stands, its loss over time and by depth, its memory, in lines.

What `stackwise watch` shows; read from the run's folder alone, as often as one likes. The folder
may come from a stranger: nothing in it makes the screen fail, and no character of it is obeyed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stackwise.errors import ExperimentError
from stackwise.printing import printable
from stackwise.report import bytes_text, duration, number
from stackwise.runs.damage import DAMAGE, RunError, unfit
from stackwise.runs.following import Follower

if TYPE_CHECKING:
    from stackwise.runs import Run

HEIGHTS = "▁▂▃▄▅▆▇█"
BAR = 30
LAST_LINES = 8


def screen(run: Run, width: int = 80, seen: Follower | None = None) -> list[str]:
    """A run as it stands.

    Args:
        run: The run.
        width: Columns of the terminal.
        seen: What of its numbers and events has been read before, and is read on here, for who
            looks again and again; None to read all.
    """
    seen = seen or Follower(run.path)
    try:
        seen.read()
        lines = [*_standing(run), "", *_stages(run, seen), "", *_losses(seen, width)]
        trouble = list(_trouble(run))
    except (OSError, *DAMAGE) as error:
        return [printable(line) for line in (f"{run.id}: damaged", *why(error).splitlines())]
    shown = [printable(line)[:width] for line in lines]
    return shown + (["", *map(printable, trouble)] if trouble else [])


def one_line(run: Run) -> str:
    """The same as one line, for a file."""
    try:
        return printable(next(_standing(run)))
    except (OSError, *DAMAGE) as error:
        return printable(f"{run.id}: damaged: {why(error)}")


def why(error: Exception) -> str:
    """What is damaged, in words; of a file that holds something else than it should, which kind."""
    if isinstance(error, RunError | ExperimentError | OSError):
        return str(error)
    return f"a file of it {unfit(error)}"


def _standing(run: Run) -> Iterator[str]:
    status, name = run.status(), run.labels.name
    said = [f"{run.id}{f' ({name})' if name else ''}: {run.state}"]
    if status.get("waits_for"):
        said.append(f"waits for {', '.join(map(str, status['waits_for']))}")
    if status.get("step"):
        said.append(f"step {int(status['step'])}")
    if isinstance(status.get("loss"), float):
        said.append(f"loss {status['loss']:.3f}")
    left = status.get("seconds_left")
    if isinstance(left, float) and math.isfinite(left) and run.is_live:
        said.append(f"{duration(left)} left")
    result = run.result()
    if result:
        said.append(f"{number(result['bits_per_byte'])} bits per byte held-out")
    yield ", ".join(said)


def _stages(run: Run, seen: Follower) -> Iterator[str]:
    """A bar for each stage; of many only those around the one in hand."""
    stages = run.stages()
    present = int(run.status().get("stage") or 0)
    steps = steps_of(seen)
    peaks = {e["stage"]: e.get("peak") for e in seen.events if e.get("kind") == "memory"}
    first = max(0, min(present - 4, len(stages) - 9))
    batch, length = run.experiment.optim.batch, run.experiment.data.seq_len
    for place, stage in list(enumerate(stages))[first : first + 9]:
        total = (stage.get("tokens") or 0) // (batch * (stage.get("seq_len") or length))
        done = steps.get(place, 0) / total if total else 0.0
        peak = f"  peak {bytes_text(peaks[place])}" if peaks.get(place) else ""
        yield f"{place:>4} {stage['name']:<12.12} {bar(done)} {done:4.0%}{peak}"
    if len(stages) > 9:
        yield f"     ({len(stages)} stages in all)"


def steps_of(seen: Follower) -> dict[int, int]:
    """Steps done of each stage that has begun; every step is one row."""
    stages, counts = np.unique(seen.numbers("stage"), return_counts=True)
    return {int(n): int(count) for n, count in zip(stages, counts, strict=True) if n == n}


def _losses(seen: Follower, width: int) -> Iterator[str]:
    """Training loss over time, and the last held-out loss at every depth."""
    losses = seen.numbers("loss").tolist()
    if losses:
        yield f"loss  {sparkline(losses, width - 24)} {losses[-1]:.3f}"
    looks = seen.looks
    if looks:
        held = [_float(look["loss"]) for look in looks]
        yield f"held  {sparkline(held, width - 24)} {held[-1]:.3f}"
    if looks and looks[-1].get("exit_losses"):
        depths = [_float(loss) for loss in looks[-1]["exit_losses"]]
        yield f"depth {sparkline(depths, width - 24)} {depths[0]:.2f} to {depths[-1]:.2f}"


def _trouble(run: Run) -> Iterator[str]:
    """Of a run that ended badly: why, its last lines, the way out."""
    said, way = run.error(), run.what_now()
    if said is not None:
        yield from f"{run.state}: {said}".splitlines()
        yield from (f"  {line}" for line in run.log(LAST_LINES))
    if way is not None:
        yield from way.splitlines()


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
