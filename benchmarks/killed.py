"""Runs of every kind that are killed, gone on with, and compared with one that nobody killed.

Where a kill strikes is drawn twice: first the moment (a checkpoint, a stage's end, the run's
folder, ...), then the operation in it, so that what takes long does not take all kills. How one is
done is in `striking.py`.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from striking import Ended, Strike, struck

import stackwise as sw
from stackwise.jsontext import dumps
from stackwise.rules import check_placement
from stackwise.runs.records import MANIFEST
from stackwise.training.manifest import read_manifest, weights_hash
from stackwise.training.opening import load_packages
from stackwise.training.placing import check_trunk
from stackwise.training.updates import OPTIMIZERS

STEPS, BATCH, TOKENS = 12, 2, 8
CLOCKS = {"seq", "time", "attempt", "seconds", "probe_seconds", "probe_frac", "peak_bytes"}
OPENING = 15  # operations in which a run that goes on is opened
MOMENTS = {
    "rack": "a checkpoint",
    "state": "a checkpoint",
    "best": "the best weights",
    "stages": "a stage's end is kept",
    "cache": "outputs are cached",
    "drift.safetensors": "a stage's border",
    "metrics": "metrics and events",
    "events.jsonl": "metrics and events",
    "status.json": "status and lock",
    "lock": "status and lock",
    "exit.json": "the run's end",
    "metrics.parquet": "the run's end",
    "start": "the folder is made",
    **dict.fromkeys(
        ("experiment.yaml", "placement.yaml", "plan.json", "provenance.json", "stages.json"),
        "the folder is made",
    ),
    "tokenizer.json": "the folder is made",
}
BY_TIME, OUTSIDE = "at a time", "outside the folder"
DATA = ".data"  # beside the runs: what a run prepares of its text
VALUES: dict[str, list[Any]] = {
    "optimizer": list(OPTIMIZERS),
    "trunk": ["recompute", "disk", "host", "cached"],
    "workers": [0, 1, 2, 3],
    "saved": [1e-9, 0.02, 1e9],  # after each step, now and then, at borders alone
    "frozen": [None, None, "bf16", "nf4", "int8"],
    "ema": [0.9, None],
    "grads": ["whole", "in_backward"],
    "kept": [True, False],
    "restart": [False, True],
    "depths": ["all", "last"],
    "adapters": ["none", "none", "trunk", "suffix"],
}
CURRICULA: dict[str, dict[str, Any]] = {
    "left_to_right": {"init": "copy", "optimizer_state": "copy"},
    "grow": {"by": "one", "optimizer_state": "copy"},
    "block_coordinate": {"optimizer_state": "keep"},
    "freeze_thaw": {"init": "copy"},
    "subnetwork": {"lengths": (1, 2, 3)},
    "fusion": {"head_first": 0.3},
}


@dataclass(frozen=True)
class Kind:
    """What is trained, and how it is carried out.

    Attributes:
        facts: What was drawn: curriculum, and a value of each of `VALUES`.
    """

    facts: dict[str, Any]
    experiment: sw.Experiment
    placement: sw.Placement

    def __str__(self) -> str:
        return " ".join(str(self.facts[key]) for key in ("curriculum", "optimizer", "trunk")) + (
            f" workers={self.facts['workers']}"
        )


@dataclass
class Trial:
    """One run that was killed and went on.

    Attributes:
        struck: Where each kill came: its moment, and what was being done.
        wrong: What of it is not as in the run that nobody killed.
    """

    kind: Kind
    seed: str
    struck: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def begun(folder: Path) -> sw.Run:
    """A finished run to fuse; this process loads what its children then have."""
    packed = experiment("left_to_right", precision={"frozen": "nf4"}, adapters="trunk")
    load_packages(packed.replace(optim="adamw8bit"), sw.Placement(), sw.stages(packed))
    return sw.train(experiment("left_to_right"), placed(folder, {}))


def experiment(curriculum: str, start: str | None = None, **keys: Any) -> sw.Experiment:
    """Three narrow blocks on a little text."""
    bands = {"masking": {"bands": "equal_mass"}} if curriculum == "diffusion_blocks" else {}
    plain: dict[str, Any] = {
        "title": "killed",
        "start": start,
        "rack": {"stacks": 3, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        "data": {"corpus": {"kind": "markov", "size_bytes": 3000}, "seq_len": TOKENS},
        "optim": {"batch": BATCH, "lr": 0.01},
        "budget": {"tokens": STEPS * BATCH * TOKENS},
        "eval": {"points": 3, "windows": 2, "draws": 1, "final": 2},
        "curriculum": {"name": curriculum, **CURRICULA.get(curriculum, {})},
    }
    return sw.Experiment(**plain, **bands).replace(**keys)


def placed(folder: Path, facts: dict[str, Any]) -> sw.Placement:
    """A placement with runs in a folder."""
    trunk = facts.get("trunk", "recompute")
    return sw.Placement(
        device="cpu",
        threads=1,
        runs_dir=str(folder),
        trunk="streamed" if trunk in ("disk", "host") else trunk,
        stream_from="host" if trunk == "host" else "disk",
        data_workers=facts.get("workers", 1),
        checkpoint_seconds=facts.get("saved", 1e9),
        keep_stages=facts.get("kept", True),
    )


def kinds(start: sw.Run, seed: int) -> Iterator[Kind]:
    """Kinds without end: curricula in turn, the rest drawn until it may be carried out.

    Every optimizer, trunk source and number of workers has its turn too; a trunk that cannot be
    cached is streamed.
    """
    chance, number = random.Random(seed), 0
    while True:
        for curriculum in sw.CURRICULA:
            drawn = {key: chance.choice(values) for key, values in VALUES.items()}
            for key in ("optimizer", "trunk", "workers"):
                values = VALUES[key]
                drawn[key] = values[(number + number // len(values)) % len(values)]
            number += 1
            yield made({"curriculum": curriculum, **drawn}, start)


def made(facts: dict[str, Any], start: sw.Run) -> Kind:
    """The kind with these values, or with those nearest to them that go together."""
    for changes in ({}, {"adapters": "none"}, {"trunk": "disk"}, {"trunk": "disk", "frozen": None}):
        now = {**facts, **changes}
        place = placed(Path("runs"), now)
        try:
            exp = experiment(now["curriculum"], **keys_of(now, start))
            check_placement(exp, place)
            check_trunk(exp, place, sw.stages(exp))
        except sw.ExperimentError:
            continue
        return Kind(now, exp, place)
    raise ValueError(f"no run is made of {facts}")


def keys_of(facts: dict[str, Any], start: sw.Run) -> dict[str, Any]:
    """What of an experiment the values decide; in backward nothing is clipped or accumulated."""
    whole = facts["grads"] == "whole"
    optim = {"name": facts["optimizer"], "ema": facts["ema"], "grads": facts["grads"]}
    precision = {} if facts["frozen"] is None else {"frozen": facts["frozen"], "master": "fp32"}
    return {
        "optim": optim if whole else {**optim, "clip": None},
        "precision": precision,
        "data": {"restart": facts["restart"]},
        "eval": {"depths": facts["depths"]},
        "adapters": facts["adapters"],
        "start": str(start.path) if facts["curriculum"] == "fusion" else None,
    }


def trial(kind: Kind, whole: Ended, folder: Path, seed: str, kills: int) -> Trial:
    """Kill a run up to so many times, let it go on each time, and compare it with the whole one.

    Args:
        kind: What it is.
        whole: How the run in `folder/whole` came to its end.
        folder: Of this kind; holds the runs.
        seed: Of where the kills strike.
        kills: How many, 1 or more; one that goes on and comes to its end is not killed again.
    """
    chance, done = random.Random(seed), Trial(kind, seed)
    here = folder / "killed"
    shutil.rmtree(here, ignore_errors=True)
    going = partial(go_on, kind.experiment, kind.placement.replace(runs_dir=str(here)))
    while len(done.struck) < kills:
        strike, moment = drawn_strike(chance, whole, again=bool(done.struck))
        ended = struck(partial(going, by=chance.choice(["train", "resume"])), strike)
        if ended.killed:
            what = ended.operations[0] if ended.operations else f"after {strike.seconds:.3f} s"
            done.struck.append((moment if strike.seconds else moment_of(what), what))
        elif done.struck:
            break
        else:  # it was over before its time: from the beginning
            shutil.rmtree(here)
    struck(partial(going, by="resume"), Strike())
    (run,), (straight,) = sw.runs_in(here), sw.runs_in(folder / "whole")
    done.wrong += differences(straight, run)
    return done


def drawn_strike(chance: random.Random, whole: Ended, *, again: bool) -> tuple[Strike, str]:
    """Where the next kill comes: of a run that has been killed before, often as it is opened."""
    torn, kind = chance.choice([0.0, chance.random(), 1.0]), chance.random()
    if kind < 1 / 8:
        return Strike(seconds=chance.uniform(0, whole.seconds)), BY_TIME
    if again and kind < 3 / 4:
        return Strike(chance.randrange(OPENING), torn), ""
    moments = [moment_of(what) for what in whole.operations]
    chosen = chance.choice(sorted(set(moments)))
    places = [place for place, moment in enumerate(moments) if moment == chosen]
    return Strike(chance.choice(places), torn), chosen


def moment_of(operation: str) -> str:
    """What a run is doing as it does this to a file."""
    names = Path(operation.partition(" ")[2]).parts
    if "killed" not in names and "whole" not in names:
        return OUTSIDE
    place = max(i for i, name in enumerate(names) if name in ("killed", "whole")) + 1
    if names[place : place + 1] == (DATA,):
        return "text is prepared"
    inside = names[place + 1 :]
    if not inside:
        return "the folder is made"
    first = inside[0]
    if first.endswith(".part"):
        first = first.removeprefix(".").rsplit(".", 2)[0]
    return MOMENTS.get(first, OUTSIDE)


def go_on(exp: sw.Experiment, place: sw.Placement, by: str) -> None:
    """Train the run in this folder, or go on with it if it is there."""
    os.environ["STACKWISE_CACHE"] = str(Path(place.runs_dir, DATA))
    there = sw.runs_in(place.runs_dir)
    if there and by == "resume":
        sw.resume(there[0])
    else:
        sw.train(exp, place)


def straight(kind: Kind, folder: Path) -> Ended:
    """The run that nobody kills, in `folder/whole`."""
    place = kind.placement.replace(runs_dir=str(folder / "whole"))
    return struck(partial(go_on, kind.experiment, place, by="train"), Strike())


def differences(whole: sw.Run, run: sw.Run) -> list[str]:
    """What of a run is not as in another one, to the last bit; clocks and peaks apart."""
    found = [] if run.state == "finished" else [f"it is {run.state}: {run.error()}"]
    ours, theirs = dict(facts_of(run)), dict(facts_of(whole))
    return found + [
        f"{name}: {ours.get(name)} and not {theirs.get(name)}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]


def facts_of(run: sw.Run) -> Iterator[tuple[str, str]]:
    """All that a run says and no clock decides, by name, as JSON, which has every digit."""
    yield "weights", run.weights_hash()
    for name in ("metrics", "evals", "layers", "statistics", "drift"):
        yield from rows_of(name, getattr(run, name)())
    yield from ((f"result {k}", dumps(v)) for k, v in run.result().items() if k not in CLOCKS)
    if (run.path / "best" / MANIFEST).exists():
        best = read_manifest(run.path / "best")
        yield "best", f"{best['loss']} {weights_hash(run.path / 'best')}"
    for file in run.path.rglob("*"):
        if file.is_file() and file.suffix != ".arrows":  # of metrics, one for each attempt
            yield f"file {file.relative_to(run.path)}", "there"


def rows_of(name: str, frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """The rows of a frame but for clocks and peaks; a row is named by its number."""
    rows = frame.drop(columns=[column for column in frame if column in CLOCKS])
    for number, row in enumerate(rows.to_dict("records")):
        plain = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()}
        yield f"{name} {number}", dumps(plain)
