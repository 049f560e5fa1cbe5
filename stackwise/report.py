"""Numbers as text for a terminal: aligned tables, readable units, baselines beside results."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackwise.runs import Run
    from stackwise.study import StudyResult


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under a header: the first column to the left, the others to the right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "  ".join("-" * width for width in widths), *text[1:]])


def bytes_text(count: float | None) -> str:
    """`1.5 GiB`; a dash for what is not known."""
    if count is None or math.isnan(count):
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def count_text(count: float | None) -> str:
    """`1.25 M`; a dash for what is not known."""
    if count is None or math.isnan(count):
        return "-"
    for unit in ("", " k", " M", " G"):
        if abs(float(f"{count:.3g}")) < 1000:
            return f"{count:.0f}" if not unit else f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} T"


def duration(seconds: float) -> str:
    """`2 min 5 s`, `3.4 h`, `12 days`."""
    if not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def number(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits; a dash for what is not known."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def figure(value: float | None) -> str:
    """`1.2e+10`; a dash for what is not known."""
    return "-" if value is None or math.isnan(value) else f"{value:.3g}"


def program() -> str:
    """How this program is called from here, so that a printed command can be pasted."""
    beside_python = os.path.join(os.path.dirname(sys.executable), "stackwise")
    if shutil.which("stackwise"):
        return "stackwise"
    if os.path.exists(beside_python):  # as in a clone whose .venv is not activated
        return os.path.relpath(beside_python)
    return f"{os.path.basename(sys.executable)} -m stackwise"


def called(run: Run) -> str:
    """A run's name on a command line: its id in the usual folder, its path elsewhere."""
    usual = run.path.parent == Path("runs")
    return quote(run.id if usual else str(run.path))


def beside(run: Run) -> str:
    """What a constant, a unigram and a bigram model get on a run's held-out text, as one line.

    Where the text is not at hand any more, that line says so.
    """
    from stackwise.config import Placement
    from stackwise.data.baselines import baseline_lines
    from stackwise.data.errors import DataError
    from stackwise.training.changed import data_of
    from stackwise.training.start import TrainingError

    placement = Placement.load(run.path / "placement.yaml")
    try:
        return baseline_lines(data_of(run, placement))
    except (DataError, TrainingError) as error:
        return f"no baselines beside it, since its text cannot be read: {error}"


def results_table(result: StudyResult) -> str:
    """The runs of a study, one line each; the seed only where there are several."""
    frame = result.to_frame()
    several = frame["seed"].nunique() > 1
    rows = [
        [
            row["arm"],
            *([str(row["seed"])] if several else []),
            f"{number(row['bits_per_byte'])} ± {number(row['stderr'])}",
            count_text(row["parameters"]),
            count_text(row["tokens"]),
            figure(row["flops"]),
            bytes_text(row["peak_bytes"]),
            number(row["seconds"], 0),
        ]
        for row in frame.to_dict("records")
    ]
    costs = ["parameters", "tokens", "FLOPs", "peak memory", "seconds"]
    return table(["arm", *(["seed"] if several else []), "bits per byte", *costs], rows)


def study_text(result: StudyResult) -> str:
    """A study as it is printed: its runs, its arms, the baselines of its texts, what may be said.

    The arms have lines of their own only where several seeds make more of them than their runs.
    """
    from stackwise.study.words import remarks

    lines = dict.fromkeys(beside(run) for _, _, run in result.runs)
    several = len({seed for _, seed, _ in result.runs}) > 1 and result.control is not None
    arms = [result.table(), ""] if several else []
    said = [*lines, *remarks(result), result.verdict()]
    return "\n".join([results_table(result), "", *arms, *said])
