"""The numbers of a study's figure, from its run folders: one row per number that was measured.

Pure functions from runs to frames; `paper.py` draws them and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from stackwise import Run
    from stackwise.study import StudyResult

FULL_BAND = [0.0, 1.0]
COLUMNS = {
    "arms": "arm seed run hash experiment bits_per_byte stderr flops entropy_bits_per_byte",
    "stages": "arm seed stage name low high whole begin_flops end_flops",
    "heldout": "arm seed stage step flops loss bits_per_byte",
    "training": "arm seed stage step flops loss bits_per_byte",
    "depth": "arm seed block kind loss bits_per_byte",
    "memory": "arm seed stage name category predicted measured",
}


def figure_data(result: StudyResult) -> dict[str, pd.DataFrame]:
    """The numbers of the figure, from the run folders.

    Returns:
        `arms`: what each run came to. `stages`: where each begins and ends, in FLOPs; `whole` if
        its loss is the whole bound. `heldout` and `training`: loss in nats per token, and in bits
        per byte where it is the whole bound, else NaN. Training loss is converted by the held-out
        text's tokens per byte. `depth`: loss if the rack ended after so many blocks
        (kind `exit`) or began after them (kind `entry`). `memory`: bytes by category in the stage
        that is predicted to take most, and the stage's peak.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for arm, seed, run in result.runs:
        for name, found in _of_run(run).items():
            rows[name] += [{"arm": arm.name, "seed": seed, **row} for row in found]
    return {name: pd.DataFrame(rows[name], columns=COLUMNS[name].split()) for name in COLUMNS}


def _of_run(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The rows of each frame that one run gives."""
    exp, result, metrics = run.experiment, run.result(), run.metrics()
    to_bits = _to_bits(result, exp.objective.choice)
    arm = {key: _number(result.get(key)) for key in COLUMNS["arms"].split()[5:]}
    stages = list(_stages(run, metrics))
    whole = {row["stage"]: row["whole"] for row in stages}
    training = metrics[["stage", "step", "flops", "loss"]].to_dict("records")
    for row in training:
        row["bits_per_byte"] = row["loss"] * to_bits if whole[row["stage"]] else math.nan
    heldout = [
        {key: _number(row[key]) if key in ("loss", "bits_per_byte") else row[key] for key in keys}
        for row in run.evals().to_dict("records")
        for keys in [COLUMNS["heldout"].split()[2:]]
    ]
    return {
        "arms": [{"run": run.id, "hash": exp.hash, "experiment": str(exp), **arm}],
        "stages": stages,
        "heldout": heldout,
        "training": training,
        "depth": list(_depth(result, exp.rack.blocks_per_stack, to_bits)),
        "memory": _memory(run.memory()),
    }


def _number(value: Any) -> float:
    """A number from an event, where None is nothing and words stand for what is not finite."""
    return math.nan if value is None else float(value)


def _to_bits(result: dict[str, Any], objective: str) -> float:
    """Bits per byte of one nat per token, on the held-out text; an mlm loss is no likelihood."""
    if not result or objective == "mlm":
        return math.nan
    return float(result["tokens"] / result["bytes"] / math.log(2))


def _stages(run: Run, metrics: pd.DataFrame) -> Iterator[dict[str, Any]]:
    ends = metrics.groupby("stage")["flops"].max()
    begin, has_bound = 0.0, run.experiment.objective.choice != "mlm"
    for number, stage in enumerate(run.stages()):
        low, high = stage["band"]
        end = float(ends.get(number, begin))
        whole = has_bound and [low, high] == FULL_BAND
        yield {"stage": number, "name": stage["name"], "low": low, "high": high, "whole": whole} | {
            "begin_flops": begin,
            "end_flops": end,
        }
        begin = end


def _depth(result: dict[str, Any], each: int, to_bits: float) -> Iterator[dict[str, Any]]:
    """By exit there is a loss after every block; by entry, before every stack."""
    enters = bool(result.get("grows_left"))
    for place, value in enumerate(result.get("depth_losses", ())):
        loss = _number(value)
        yield {
            "block": place * each if enters else place,
            "kind": "entry" if enters else "exit",
            "loss": loss,
            "bits_per_byte": loss * to_bits,
        }


def _memory(memory: pd.DataFrame) -> list[dict[str, Any]]:
    """The categories, and the peak, of the stage with the largest predicted total."""
    totals = memory[memory["category"] == "total"].set_index("stage")["predicted"]
    rows = memory[(memory["stage"] == totals.idxmax()) & (memory["category"] != "total")]
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


def over_seeds(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, lowest and highest bits per byte over the seeds, and mean FLOPs if there are any.

    A group in which one seed has no number has none.
    """
    spent = {"flops": ("flops", "mean")} if "flops" in frame else {}
    bits = frame.assign(bits_per_byte=frame["bits_per_byte"].astype(float))
    gone = bits.assign(gone=bits["bits_per_byte"].isna()).groupby([*by], sort=False)["gone"].any()
    out = bits.groupby([*by], sort=False).agg(
        mean=("bits_per_byte", "mean"),
        low=("bits_per_byte", "min"),
        high=("bits_per_byte", "max"),
        **spent,
    )
    out.loc[gone.to_numpy(), ["mean", "low", "high"]] = math.nan
    return out.reset_index()
