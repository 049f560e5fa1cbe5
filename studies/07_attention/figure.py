"""Study 7: kinds of attention, loss at equal FLOPs against the bytes that decoding keeps."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd
import torch
from common import Claim, below, between, compared, difference, every, rows_of
from drawing import by_factors, paired_panels, style, titled

import stackwise as sw
from stackwise_widgets import PaperFigure

CONTROL = "mha"
SHARING, RECURRENT = ("gqa", "mqa", "mla"), ("kernel", "linear")


def measure(studies: list[sw.Study]) -> pd.DataFrame:
    """The runs, and the bytes that each kind keeps of one text as long as a sample."""
    (study,) = studies
    runs = {arm.name: run for arm, _, run in reversed(study.result().runs)}
    kept = [{"kind": "measured", "arm": name, "kv_bytes": kept_by(runs[name])} for name in runs]
    return pd.concat([rows_of(studies), pd.DataFrame(kept)], ignore_index=True)


@torch.no_grad()
def kept_by(run: sw.Run) -> int:
    """Bytes of the cache after one sample has been read, all blocks together."""
    _, cache = sw.decode(run.rack(), torch.zeros(1, run.experiment.data.seq_len, dtype=torch.int64))
    return cache.bytes


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Each kind's loss and costs beside what it keeps."""
    kept = frame[frame["kind"] == "measured"][["arm", "kv_bytes"]]
    return compared(frame).merge(kept, on="arm")


def claims(frame: pd.DataFrame) -> list[Claim]:
    """What was predicted."""
    rows = table(frame).set_index("arm")

    def near(name: str, most: float) -> bool | None:
        return between(difference(frame, name, CONTROL).mean, -most, most)

    bytes_kept = rows["kv_bytes"]
    return [
        Claim("gqa ends within 0.02 bits per byte of mha", near("gqa", 0.02)),
        Claim("mqa ends within 0.03 bits per byte of mha", near("mqa", 0.03)),
        Claim("mla ends within 0.02 bits per byte of mha, and keeps fewer bytes",
              every(near("mla", 0.02), bool(bytes_kept["mla"] < bytes_kept["mha"]))),
        Claim("linear and kernel attention end above mha",
              every(*(below(difference(frame, CONTROL, name)) for name in RECURRENT))),
        Claim("linear and kernel attention end above mqa",
              every(*(below(difference(frame, "mqa", name)) for name in RECURRENT))),
    ]  # fmt: skip


def draw(frame: pd.DataFrame) -> PaperFigure:
    """Seeds, paired differences, and loss against bytes."""
    figure, (axes,) = paired_panels(frame, more=1)
    for place, row in enumerate(table(frame).to_dict("records")):
        colour, marker = style(place)
        spread = 0.0 if np.isnan(row["sd"]) else row["sd"]
        axes.errorbar(row["kv_bytes"], row["mean"], spread, fmt=marker, color=colour, ms=7)
        axes.annotate(f"  {row['arm']}", (row["kv_bytes"], row["mean"]), fontsize=9, va="bottom")
    by_factors(axes, 2)
    titled(axes, "c   what decoding keeps of one sample; bar: deviation over seeds", "bytes",
           "bits per byte")  # fmt: skip
    return figure


if __name__ == "__main__":
    from figures import main

    sys.exit(main([Path(__file__).parent.name[:2]]))
