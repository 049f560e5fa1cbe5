"""Runs are compared only if they saw the same data.

That is: the same text (by hash), split and ids, tokenizer and sequence length everywhere; and of
runs that are paired, the same seed, which orders the samples. All of it stands in the run folders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stackwise.errors import ExperimentError
from stackwise.runs import Run
from stackwise.runs.damage import blamed_on
from stackwise.study.arms import Arm

Runs = Sequence[tuple[Arm, int, Run]]


def data_seen(run: Run) -> dict[str, Any]:
    """What a run read, by what it is called."""
    data, facts = run.experiment.data, run.provenance()
    with blamed_on(run, "provenance.json"):
        return {
            "the text (text_sha256)": facts["data"]["text_sha256"],
            "the split (train_bytes)": facts["data"]["train_bytes"],
            "the tokenizer": data.tokenizer.model_dump(mode="json"),
            "data.seq_len": data.seq_len,
            "the ids (fingerprint)": facts["data"]["fingerprint"],
            "data.restart": data.restart,
            "data.distinct_epochs": data.distinct_epochs,
        }


def check_same_data(runs: Runs) -> None:
    """Raise if runs saw different data, or one is not of the seed that it is paired by.

    Raises:
        ExperimentError: With both runs and what differs, once for each run.
    """
    problems = [*_other_data(runs), *_other_order(runs)]
    if problems:
        raise ExperimentError("\n".join(problems))


def _other_data(runs: Runs) -> Iterator[str]:
    first = runs[0][2] if runs else None
    seen = {} if first is None else data_seen(first)
    for _, _, run in runs[1:]:
        assert first is not None
        for name, value in data_seen(run).items():
            if value != seen[name]:
                yield (
                    f"run {run.id}: saw other data than run {first.id}: {name} is {_short(value)}, "
                    f"not {_short(seen[name])}; compare runs on the same data alone"
                )
                break


def _other_order(runs: Runs) -> Iterator[str]:
    for arm, seed, run in runs:
        if run.experiment.seed != seed:
            yield (
                f"run {run.id}: of arm {arm.name!r} is paired by seed {seed}, and its samples come "
                f"in the order of seed {run.experiment.seed}; pair runs of the same seed"
            )


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
