"""Study 5: stacks for a band of noise each, one stack for all noise, and the whole rack."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas as pd
from common import Claim, below, compared, difference, every, rows_of
from drawing import draw_arms, draw_differences, panels_of

from stackwise_widgets import PaperFigure

CONTROL, ALONE, SUFFIX = "end_to_end", "specialised, alone", "specialised, on a suffix"
SHARED = "one shared stack"
KINDS = ("flops", "tokens")
measure, table = rows_of, compared


def more(frame: pd.DataFrame) -> pd.DataFrame:
    """The same at equal tokens."""
    return compared(frame, "tokens")


def claims(frame: pd.DataFrame) -> list[Claim]:
    """What was predicted."""

    def lower(one: str, other: str, kind: str) -> bool | None:
        return below(difference(frame, one, other, kind))

    return [
        Claim("end_to_end ends below every other arm at equal tokens",
              every(*(lower(CONTROL, name, "tokens") for name in (ALONE, SUFFIX, SHARED)))),
        Claim("end_to_end ends below specialised stacks alone at equal FLOPs",
              lower(CONTROL, ALONE, "flops")),
        Claim("one shared stack ends below specialised stacks alone at equal FLOPs",
              lower(SHARED, ALONE, "flops")),
        Claim("specialised stacks on a suffix end below specialised stacks alone at equal tokens",
              lower(SUFFIX, ALONE, "tokens")),
    ]  # fmt: skip


def draw(frame: pd.DataFrame) -> PaperFigure:
    """Seeds and paired differences, at equal FLOPs above and at equal tokens below."""
    figure, panels = panels_of(2, 5.4, rows=2)
    for (left, right), kind, letters in zip(panels, KINDS, ("ab", "cd"), strict=True):
        draw_arms(left, frame, kind, letters[0])
        draw_differences(right, frame, kind, letters[1])
    return figure


if __name__ == "__main__":
    from figures import main

    sys.exit(main([Path(__file__).parent.name[:2]]))
