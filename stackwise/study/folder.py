"""The folder of a study: what was asked, what was frozen, and which runs came of it.

    runs/study-toy-1a2b3c4d/
      study.yaml     the keys of `Study`, with all defaults; equal seconds as they were worked out
      runs.json      every run by its role, arm and seed; the runs lie in folders of their own
      results.csv    one row per run
      summary.csv    one row per arm

No path in it is absolute, so that it can be moved together with the runs. The same keys in a file
of the user's own are what `stackwise study FILE` reads.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from stackwise import bounded
from stackwise.atomic import write_text
from stackwise.config import Experiment, Placement
from stackwise.errors import (
    MOST_ALIKE,
    ExperimentError,
    Problem,
    closest,
    older_read,
    said_in,
    short,
)
from stackwise.jsontext import dumps, loads
from stackwise.own_code import import_files, loaded
from stackwise.runs import Run, RunError
from stackwise.runs.carried import FOLDER as CODE
from stackwise.runs.carried import KEY as CARRIES
from stackwise.runs.carried import listed, not_trusted, read_carried
from stackwise.study.arms import Arm, check_count
from stackwise.study.budgets import Calibrated
from stackwise.study.grid import Tried
from stackwise.study.jobs import ARM, TUNING, Done
from stackwise.study.sharing import flops_saved
from stackwise.versions import STUDY
from stackwise.yaml_text import read_mapping, read_text

if TYPE_CHECKING:
    from stackwise.study.result import StudyResult

RECORD, RUNS = "study.yaml", "runs.json"
KEYS = (
    "base", "vary", "seeds", "equal", "more", "name", "placement", "lr_grid", "tuning_seed",
    "same_bytes", "both", "effect", "hardware",
)  # fmt: skip
OURS = ("schema_version", "folders", "calibration", CARRIES)  # what only a study writes
SEEDLESS = ("base", "vary", "equal", "more", "name", "lr_grid", "same_bytes", "both")
FOLDERS = ("runs_dir", "data_dir", "cache_dir")
Result = TypeVar("Result", bound="StudyResult")


def study_id(asked: Mapping[str, Any]) -> str:
    """What a study is called: by all that decides its arms, its seeds aside.

    Keys that experiments have got since, and that are at their defaults, change no name.
    """
    named = {key: _named(key, asked[key]) for key in SEEDLESS}
    named |= {CARRIES: asked[CARRIES]} if CARRIES in asked else {}
    text = json.dumps(named, sort_keys=True)
    return f"study-{asked['base']['title']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _named(key: str, value: Any) -> Any:
    """What of a key of a study decides its name."""
    if key == "base":
        return Experiment(**value).identity()
    return {k: Experiment(**v).identity() for k, v in value.items()} if key == "more" else value


def plain(value: Any) -> Any:
    """A value as YAML writes it."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def write_record(
    folder: Path, asked: Mapping[str, Any], placement: Placement, known: Calibrated | None
) -> None:
    """Write study.yaml.

    Raises:
        OSError: If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folders = {key: getattr(placement, key) for key in FOLDERS}
    record = {
        STUDY.key: STUDY.now,
        **asked,
        "placement": placement.model_dump(mode="json", exclude=set(FOLDERS)),
        "folders": {k: v and os.path.relpath(v, folder) for k, v in folders.items()},
        "calibration": None if known is None else asdict(known),
    }
    write_text(folder / RECORD, yaml.safe_dump(record, sort_keys=False))


def code_of(path: Path, trust: bool) -> dict[str, Any]:
    """The argument `code` of a study whose folder carries some; nothing of any other.

    Args:
        path: The study's file.
        trust: Whether its user trusts that code.

    Raises:
        TrustError: If not, and it is not known here already.
        ExperimentError: If it is damaged.
    """
    values = read_record(path)
    try:
        wanted = listed(values)
        files = read_carried(path.parent, wanted)
    except ValueError as error:
        raise ExperimentError(f"{path}: {error}") from None
    if not trust and not {each.sha256 for each in files} <= loaded():
        raise not_trusted(str(path.parent), wanted)
    import_files(files)
    return {"code": [path.parent / CODE / each.name for each in files]} if files else {}


def read_record(path: Path) -> dict[str, Any]:
    """The keys of a study's file, its own record or one of the user's.

    Raises:
        ExperimentError: If it cannot be read, or holds an unknown key.
    """
    values = read_mapping(read_text(path), str(path), "a study")
    with said_in(str(path)):
        values = older_read(STUDY, values)
    unknown = [key for key in values if key not in (*KEYS, *OURS)]
    if unknown:
        found = [Problem(key, f"unknown key{closest(key, KEYS)}") for key in unknown[:MOST_ALIKE]]
        if len(unknown) > MOST_ALIKE:
            found.append(Problem("", f"{len(unknown) - MOST_ALIKE} more unknown keys"))
        raise ExperimentError(found, source=str(path))
    if "base" not in values:
        raise ExperimentError([Problem("base", "is missing; name a preset")], source=str(path))
    return values


def arguments_of(path: Path) -> dict[str, Any]:
    """The arguments of `Study` that a file says.

    `base` is a preset's name, an experiment's YAML file beside it, the keys of an experiment, or
    these over a preset (`preset: toy`). An arm of `more` is what it changes of the base.

    Raises:
        ExperimentError: If anything of it is wrong, each problem with the file's name.
    """
    values = read_record(path)
    with said_in(str(path)):
        base = _base(values["base"], path.parent)
        more = _mapping(values.get("more"), "more")
        check_count({}, more)
        found = {key: values[key] for key in KEYS if key in values}
        found["base"] = base
        found["more"] = {
            name: base.replace(**_mapping(changes, f"more.{name}"))
            for name, changes in more.items()
        }
        placement = Placement(**_mapping(values.get("placement"), "placement"))
        folders = _mapping(values.get("folders"), "folders")
        there = {k: v and os.path.join(path.parent, v) for k, v in folders.items()}
        found["placement"] = placement.replace(**there)
        if "folders" in values:
            found["folder"] = path.parent
    return found


def _base(value: Any, folder: Path) -> Experiment:
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        return Experiment.load(folder / value)
    if isinstance(value, str):
        from stackwise.asked import an_experiment

        return an_experiment(value, "base")
    keys = dict(_mapping(value, "base"))
    preset = keys.pop("preset", None)
    try:
        if preset is None:
            return Experiment(**keys)
        from stackwise.asked import an_experiment

        return an_experiment(preset, "preset").replace(**keys)
    except ExperimentError as error:
        raise error.under("base") from None


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ExperimentError([Problem(key, f"{short(value)} is not a mapping of keys")])
    return value


def frozen_in(folder: Path, asked: Mapping[str, Any]) -> Calibrated | None:
    """Equal seconds as a study's folder has them; None where it has none.

    Raises:
        ExperimentError: If the folder is another study's.
    """
    if not os.path.isfile(folder / RECORD):  # False where the system will not say
        return None
    values = read_record(folder / RECORD)
    for key in SEEDLESS:
        if key in values and _named(key, values[key]) != _named(key, asked[key]):
            raise ExperimentError(
                f"{folder / RECORD}: {key} is {short(values[key])}, not {short(asked[key])}; it is "
                "another study's folder, so name another with folder="
            )
    known = values.get("calibration")
    return None if known is None else Calibrated(**known)


def write_runs(folder: Path, done: Sequence[Done], facts: Mapping[str, Any]) -> None:
    """Write runs.json: what has come of every run so far.

    Raises:
        OSError: If it cannot be written.
    """
    rows = [
        {
            "role": each.job.role,
            "arm": each.job.arm.name,
            "seed": each.job.seed,
            "rate": each.job.rate,
            "run": os.path.relpath(each.run.path, folder),
            "error": each.error,
        }
        for each in done
    ]
    write_text(folder / RUNS, dumps({**facts, "runs": rows}, indent=1))


def write_results(folder: Path, result: StudyResult) -> None:
    """Write results.csv and summary.csv."""
    for name, frame in (("results", result.to_frame()), ("summary", result.summary())):
        write_text(folder / f"{name}.csv", frame.to_csv(index=False))


def check_rows(facts: Mapping[str, Any], rows: Any) -> None:
    """Raise ValueError unless runs.json holds what `write_runs` writes."""
    told = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    if not told or not all(isinstance(facts[key], str) for key in ("equal", "control")):
        raise ValueError("no list of runs")
    notes, effect = facts["notes"], facts["effect"]
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError("notes that are no text")
    if effect is not None and type(effect) not in (int, float):
        raise ValueError("an effect that is no number")
    for row in rows:
        if not all(isinstance(row[key], str) for key in ("role", "arm", "run")):
            raise ValueError("a run without role, arm or folder")
        rate, error = row["rate"], row["error"]
        if type(row["seed"]) is not int or type(rate) not in (int, float, type(None)):
            raise ValueError("a seed or a rate that is no number")
        if error is not None and not isinstance(error, str):
            raise ValueError("an error that is no text")


def read_result(kind: type[Result], folder: Path) -> Result:
    """A result of the runs that stand in a folder.

    Raises:
        ExperimentError: If it holds none, or they saw different data.
    """
    path = folder / RUNS
    try:
        facts = loads(bounded.read_text(path))
        rows = facts["runs"]
        check_rows(facts, rows)
    except FileNotFoundError:
        raise ExperimentError(
            f"{path}: no such file; a study writes it as it runs, so name a study's folder"
        ) from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ExperimentError(f"{path}: is no list of runs ({type(error).__name__})") from None
    runs: dict[str, list[tuple[Arm, int, Run]]] = {ARM: []}
    tuning, failures = [], []
    for row in rows:
        try:
            run = Run(folder / row["run"])
        except RunError:
            failures.append(f"{row['arm']}, seed {row['seed']}: its run {row['run']} is gone")
            continue
        if row["error"]:
            failures.append(f"{row['arm']}, seed {row['seed']} ({run.id}): {row['error']}")
        if row["role"] == TUNING:
            tuning.append(Tried(row["arm"], row["rate"], row["seed"], run))
        else:
            entry = (Arm(row["arm"], run.experiment), row["seed"], run)
            runs.setdefault(row["role"], []).append(entry)
    mine = tuple(runs.pop(ARM))
    if not mine:
        raise ExperimentError(f"{path}: none of its runs has begun, or all are gone")
    everything = [*mine, *(entry for found in runs.values() for entry in found)]
    result = kind(
        facts["equal"],
        mine,
        facts["control"],
        tuple(tuning),
        {unit: tuple(found) for unit, found in runs.items()},
        flops_saved([*(run for _, _, run in everything), *(t.run for t in tuning if t.run)]),
        tuple(failures),
        tuple(facts["notes"]),
        facts["effect"],
    )
    result.check()
    return result
