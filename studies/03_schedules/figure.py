"""Study 3: schedules under growth, beside baselines that decay and one that does not."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas as pd
from common import Claim, below, between, compared, difference, rows_of
from drawing import paired_panels

from stackwise_widgets import PaperFigure

measure, table = rows_of, compared


def claims(frame: pd.DataFrame) -> list[Claim]:
    """What was predicted."""

    def apart(one: str, other: str) -> float:
        return difference(frame, one, other).mean

    flat, decayed = "end_to_end, constant", "end_to_end, wsd"
    return [
        Claim("end_to_end ends within 0.02 bits per byte under cosine and wsd",
              between(apart("end_to_end, cosine", decayed), -0.02, 0.02)),
        Claim("end_to_end under wsd ends below end_to_end at a constant rate",
              below(difference(frame, decayed, flat))),
        Claim("one_hop under wsd ends below the decayed control",
              below(difference(frame, "one_hop, wsd", decayed))),
        Claim("one_hop under wsd ends below one_hop under cosine",
              below(difference(frame, "one_hop, wsd", "one_hop, cosine"))),
        Claim("one_hop's gain is at least 1.5 times as large beside the constant rate as beside "
              "the decayed control",
              between(apart("one_hop, wsd", flat), -10, 1.5 * apart("one_hop, wsd", decayed))),
    ]  # fmt: skip


def draw(frame: pd.DataFrame) -> PaperFigure:
    """Seeds and paired differences."""
    return paired_panels(frame)[0]


if __name__ == "__main__":
    from figures import main

    sys.exit(main([Path(__file__).parent.name[:2]]))
