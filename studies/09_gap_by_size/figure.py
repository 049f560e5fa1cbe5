"""Study 9: the gap between frozen growth and the tuned end-to-end control, by size.

The gap is paired by seed at each size; its trend is the slope of a line through the gaps of all
seeds over log10 of the parameters, with Student's interval.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd
from common import Claim, below, compared, difference, every, rows_of
from drawing import by_factors, panels_of, titled
from matplotlib.ticker import NullLocator

from stackwise.report import count_text
from stackwise.study.statistics import LEVEL, Paired, edge_of
from stackwise_widgets import PaperFigure
from stackwise_widgets.paper import COLOURS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ARM, CONTROL = "left_to_right", "end_to_end"
measure = rows_of


def sizes(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each size, the smallest first."""
    parts = [frame[frame["study"] == name] for name in frame["study"].unique()]
    return sorted(parts, key=lambda part: float(part["parameters"].iloc[0]))


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Both arms at each size."""
    return pd.concat([compared(part) for part in sizes(frame)], ignore_index=True)


def gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each size and seed: log10 of the parameters, and the gap."""
    rows = []
    for part in sizes(frame):
        runs = part[part["kind"] == part["kind"].iloc[0]]
        bits = runs.pivot(index="seed", columns="arm", values="bits_per_byte")
        size = math.log10(runs["parameters"].iloc[0])
        rows += [{"size": size, "gap": gap} for gap in bits[ARM] - bits[CONTROL]]
    return pd.DataFrame(rows)


def trend(frame: pd.DataFrame) -> tuple[Paired, float]:
    """The slope of the gap over log10 of the parameters with its 95 % interval; the line at 0.

    Least squares: the slope's standard error is s / sqrt(sum of (x - mean x)^2), with s^2 the sum
    of squared residuals over n - 2 degrees of freedom.
    """
    found = gaps(frame)
    x_N, y_N = found["size"].to_numpy(), found["gap"].to_numpy()
    away_N, count = x_N - x_N.mean(), len(x_N)
    slope = float(away_N @ y_N / (away_N @ away_N))
    base = float(y_N.mean() - slope * x_N.mean())
    left_N = y_N - base - slope * x_N
    error = math.sqrt(float(left_N @ left_N) / (count - 2) / float(away_N @ away_N))
    half = edge_of(LEVEL, count - 2) * error
    return Paired(slope, error * math.sqrt(count), slope - half, slope + half, count), base


def claims(frame: pd.DataFrame) -> list[Claim]:
    """What was predicted."""
    apart = [difference(part, CONTROL, ARM) for part in sizes(frame)]
    slope, _ = trend(frame)
    down = below(slope)
    return [
        Claim("left_to_right ends above the control at the largest size", below(apart[-1])),
        Claim("left_to_right ends above the control at every size",
              every(*(below(found) for found in apart))),
        Claim("the gap grows with size: the slope's interval lies above zero",
              None if down is None else not down),
    ]  # fmt: skip


def draw(frame: pd.DataFrame) -> PaperFigure:
    """Loss by size, and the gap by size with its trend."""
    figure, ((left, right),) = panels_of(2, 3.8)
    rows = table(frame)
    for place, name in enumerate((CONTROL, ARM)):
        mine = rows[rows["arm"] == name]
        left.errorbar(mine["parameters"], mine["mean"], mine["sd"].fillna(0), fmt="o-",
                      color=COLOURS[place], label=name, ms=5)  # fmt: skip
    by_size(left, rows)
    left.legend(frameon=False, fontsize=9)
    titled(left, "a   loss at equal FLOPs, by size", "parameters", "bits per byte")
    found, (slope, base) = gaps(frame), trend(frame)
    right.plot(10 ** found["size"], found["gap"], "o", color=COLOURS[1], alpha=0.6, ms=5)
    ends = np.array([found["size"].min(), found["size"].max()])
    right.plot(10**ends, base + slope.mean * ends, "-", color=INK, lw=1.2)
    for part in sizes(frame):
        gap = difference(part, ARM, CONTROL)
        right.plot([part["parameters"].iloc[0]] * 2, [gap.low, gap.high], color=INK, lw=1)
    right.axhline(0, color=INK, lw=0.8, ls=":")
    by_size(right, rows)
    said = f"slope {slope.mean:+.3f} [{slope.low:+.3f}, {slope.high:+.3f}] per tenfold"
    right.text(0.98, 0.03, said, transform=right.transAxes, fontsize=9, ha="right")
    titled(right, "b   gap, paired by seed, 95 %; line: trend", "parameters",
           f"bits per byte less {CONTROL}")  # fmt: skip
    return figure


def by_size(axes: Axes, rows: pd.DataFrame) -> None:
    """A logarithmic axis whose ticks are the sizes."""
    by_factors(axes)
    sizes = sorted(rows["parameters"].unique())
    axes.set_xticks(sizes, [count_text(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())


if __name__ == "__main__":
    from figures import main

    sys.exit(main([Path(__file__).parent.name[:2]]))
