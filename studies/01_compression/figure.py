"""Study 1: an autoregressive rack beside zlib, bz2, xz and PPMd on the same held-out text."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas as pd
from common import Claim, below, between, compared, rows_of
from drawing import panels_of, style, titled

import stackwise as sw
from stackwise.study.statistics import Paired, paired
from stackwise_widgets import PaperFigure

AFTER = " after training text"
# Bits of the whole text less those of the first 95 %, worked out once: pyppmd 1.3.1, Ppmd7Encoder
# at order 16 with 256 MB. No package that StackWise needs has PPMd, so nothing works it out again.
PPMD_NAME, PPMD = "PPMd, order 16 (quoted)", 1.5697


def measure(studies: list[sw.Study]) -> pd.DataFrame:
    """The runs, and what compressors make of the same split."""
    data = studies[0].base.data
    text = sw.open_dataset(data.corpus, heldout_frac=data.heldout_frac)
    found = {row.name: row.bits_per_byte for row in sw.baselines(text) if row.name.endswith(AFTER)}
    found = {name.removesuffix(AFTER): bits for name, bits in found.items()} | {PPMD_NAME: PPMD}
    rows = [
        {"kind": "measured", "arm": name, "bits_per_byte": bits} for name, bits in found.items()
    ]
    return pd.concat([rows_of(studies), pd.DataFrame(rows)], ignore_index=True)


table = compared


def compressors(frame: pd.DataFrame) -> dict[str, float]:
    """Bits per byte of each."""
    rows = frame[frame["kind"] == "measured"]
    return dict(zip(rows["arm"], rows["bits_per_byte"], strict=True))


def rack(frame: pd.DataFrame) -> Paired:
    """The rack's own, over seeds."""
    return paired(list(frame[frame["kind"] == frame["kind"].iloc[0]]["bits_per_byte"]))


def more(frame: pd.DataFrame) -> pd.DataFrame:
    """The compressors."""
    found = compressors(frame).items()
    return pd.DataFrame([{"arm": name, "bits_per_byte": bits} for name, bits in found])


def claims(frame: pd.DataFrame) -> list[Claim]:
    """What was predicted."""
    found, bits = rack(frame), compressors(frame)
    return [
        Claim("the rack is below zlib", below(found, bits["zlib"])),
        Claim("the rack is below xz", below(found, bits["xz"])),
        Claim("the rack is below bz2", below(found, bits["bz2"])),
        Claim("the rack is below PPMd of order 16", below(found, PPMD)),
        Claim("the rack's mean lies between 1.48 and 1.66 bits per byte",
              between(found.mean, 1.48, 1.66)),
    ]  # fmt: skip


def draw(frame: pd.DataFrame) -> PaperFigure:
    """A bar for each compressor, a mark for each seed of the rack."""
    figure, ((axes,),) = panels_of(1, 3.2)
    bits = compressors(frame)
    names = ["rack", *bits]
    runs = frame[frame["kind"] == frame["kind"].iloc[0]]["bits_per_byte"]
    axes.plot(runs, [0] * len(runs), "o", color=style(0)[0], ms=7)
    for place, value in enumerate(bits.values(), start=1):
        axes.barh(place, value, 0.55, color=style(place)[0], alpha=0.6)
        axes.text(value, place, f" {value:.3f}", va="center", fontsize=9)
    axes.text(runs.max(), 0, f"   {runs.mean():.3f}, mean of {len(runs)} seeds", va="center",
              fontsize=9)  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(bits.values()))
    titled(axes, "The last 5 % of the King James text, after the first 95 %", "bits per byte")
    return figure


if __name__ == "__main__":
    from figures import main

    sys.exit(main([Path(__file__).parent.name[:2]]))
