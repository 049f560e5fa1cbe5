"""Study 2: what new stacks start from, at one hop from a quarter of the depth to all of it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas as pd
from common import Claim, below, between, compared, difference, every, rows_of
from drawing import paired_panels

from stackwise_widgets import PaperFigure

OPERATORS = ("copy", "zero_output", "interpolate", "random")
SCRATCH = "end_to_end"
measure, table = rows_of, compared


def claims(frame: pd.DataFrame) -> list[Claim]:
    """What was predicted."""
    means = table(frame).set_index("arm")["mean"][list(OPERATORS)]
    apart = difference(frame, "copy", "random").mean
    return [
        Claim("copy ends below end_to_end", below(difference(frame, "copy", SCRATCH))),
        Claim("every operator ends below end_to_end",
              every(*(below(difference(frame, name, SCRATCH)) for name in OPERATORS))),
        Claim("copy and random end within 0.02 bits per byte of each other",
              between(apart, -0.02, 0.02)),
        Claim("the four operators end within 0.03 bits per byte of each other",
              between(means.max() - means.min(), 0, 0.03)),
    ]  # fmt: skip


def draw(frame: pd.DataFrame) -> PaperFigure:
    """Seeds and paired differences."""
    return paired_panels(frame)[0]


if __name__ == "__main__":
    from figures import main

    sys.exit(main([Path(__file__).parent.name[:2]]))
