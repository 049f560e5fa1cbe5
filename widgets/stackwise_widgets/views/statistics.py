"""What looks tell of blocks, as a table of looks x blocks whose cells are the fuller the larger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stackwise_widgets.views.drift import drift_table_html
from stackwise_widgets.views.markup import escaped

if TYPE_CHECKING:
    import pandas as pd

MOST_LOOKS = 12  # columns: the last ones


def statistics_html(frame: pd.DataFrame, column: str, said: str) -> str:
    """A statistic of every block at the last looks.

    Args:
        frame: Of `Run.statistics`.
        column: Which of its columns.
        said: What that is, in words.

    Returns:
        A table, or a sentence where no look has told any.
    """
    kept = frame[frame[column].notna()]
    if kept.empty:
        return f'<p class="sw-note">No look has told of blocks: {escaped(said)}.</p>'
    steps = sorted(kept["step"].unique())[-MOST_LOOKS:]
    kept = kept[kept["step"].isin(steps)]
    value = {
        (block, str(step)): float(number)
        for block, step, number in zip(kept["block"], kept["step"], kept[column], strict=True)
    }
    words = {
        (block, step): f"{block} after step {step}: {number:.6g}"
        for (block, step), number in value.items()
    }
    rows = in_order(kept["block"].unique())
    return drift_table_html(rows, [str(step) for step in steps], value, words, said, "block")


def drift_told_html(frame: pd.DataFrame, path: Sequence[str]) -> str:
    """What the run has told of drift over its stages; nothing where it has told none."""
    if frame.empty:
        return ""
    value, words = {}, {}
    for row in frame.itertuples():
        number = row.kl if row.exit == "prediction" else row.drift
        place = (str(row.exit), f"stage {row.stage}")
        unit = "KL, nats" if row.exit == "prediction" else "1 - CKA"
        value[place] = float(number)
        words[place] = f"{row.exit} over stage {row.stage}: {unit} {number:.6g}"
    names = in_order(frame["exit"].unique(), path)
    return drift_table_html(
        names,
        [f"stage {number}" for number in sorted(frame["stage"].unique())],
        value,
        words,
        "What moved over each stage: 1 - CKA of outputs, KL of predictions in nats",
        "exit",
        apart=["prediction"],
    )


def in_order(names: Sequence[str], path: Sequence[str] = ()) -> list[str]:
    """`embedding`, blocks from left to right, then what comes after them."""

    def place(name: str) -> tuple[int, int, int]:
        stack, _, block = name.partition(".")
        if block:
            number = path.index(stack) if stack in path else int(stack[1:])
            return 1, number, int(block)
        return (0, 0, 0) if name == "embedding" else (2, 0, 0)

    return sorted(names, key=place)
