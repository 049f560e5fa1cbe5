"""Study 4: a frozen suffix, a frozen trunk, one stack at a time, and all at once."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas as pd
from common import Claim, below, compared, difference, every, rows_of
from drawing import paired_panels

from stackwise_widgets import PaperFigure

CONTROL, NEGATIVE = "end_to_end", "independent"
measure, table = rows_of, compared


def claims(frame: pd.DataFrame) -> list[Claim]:
    """What was predicted."""

    def lower(one: str, other: str) -> bool | None:
        return below(difference(frame, one, other))

    others = [name for name in table(frame)["arm"] if name not in (NEGATIVE, "same bytes")]
    return [
        Claim("end_to_end ends below left_to_right", lower(CONTROL, "left_to_right")),
        Claim("left_to_right ends below right_to_left", lower("left_to_right", "right_to_left")),
        Claim("end_to_end ends below block_coordinate", lower(CONTROL, "block_coordinate")),
        Claim("independent stacks, joined, end above every other curriculum",
              every(*(lower(name, NEGATIVE) for name in others))),
        Claim("left_to_right ends below the end-to-end rack of the same training bytes",
              lower("left_to_right", "same bytes")),
    ]  # fmt: skip


def draw(frame: pd.DataFrame) -> PaperFigure:
    """Seeds and paired differences."""
    return paired_panels(frame)[0]


if __name__ == "__main__":
    from figures import main

    sys.exit(main([Path(__file__).parent.name[:2]]))
