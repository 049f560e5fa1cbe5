"""What the studies share: their runs as rows, what may be said of them, and how claims are judged.

A study's folder holds `study.yaml` (one or more: `study*.yaml`), `prediction.md`, `figure.py` and,
once it has run, `result.csv`. Its `figure.py` says four things, most of them with functions from
here and from `drawing.py`:

    measure(results)   the rows of result.csv, from the run folders
    table(frame)       a row per arm for docs/results.md, from those rows alone
    more(frame)        another table of what was found, if there is one
    claims(frame)      the predictions, each with what came of it: True, False, or None: undecided
    draw(frame)        the figure, from those rows alone

`figures.py` carries them out. Rows of result.csv, by `kind`: what was equal among the runs that are
compared (`flops` or `tokens`; with `both` the other one, too), `tuning` for runs of the
learning-rate grid, and `measured` for what `measure` found out beside.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pandas as pd

import stackwise as sw
from stackwise.study import spent
from stackwise.study.statistics import FEWEST, Paired, paired

ROOT = Path(__file__).parent
PLAIN = ("parameters", "tokens", "flops", "epochs", "bits_per_byte", "stderr", "peak_bytes")
# By how much a number may be off when it is worked out again, absolutely; None: not compared.
# Bits per byte are those of another machine's runs, too, where last bits of sums grow in training.
TOLERANCE: dict[str, float | None] = {
    "bits_per_byte": 0.01,
    "stderr": 0.01,
    "peak_bytes": None,
    "seconds": None,
}
RELATIVE = 1e-6  # of every other number


class Claim(NamedTuple):
    """One thing that was predicted.

    Attributes:
        text: In words, as `prediction.md` has it.
        held: What the result says of it; None: it does not decide.
    """

    text: str
    held: bool | None


def folders() -> list[Path]:
    """The folders of all studies, by number."""
    return sorted(path.parent for path in ROOT.glob("[0-9][0-9]_*/study.yaml"))


def studies_of(folder: Path) -> list[sw.Study]:
    """The studies of a folder, whose runs lie in its `runs`, from wherever this is called."""
    found = []
    for file in sorted(folder.glob("study*.yaml")):
        place = sw.Study.load(file).placement
        found.append(sw.Study.load(file, placement=place.replace(runs_dir=folder / "runs")))
    return found


def finished(study: sw.Study) -> bool:
    """Whether all its runs are there, and those that are compared have a result.

    A rate of the grid that diverges has none, and has lost.
    """
    if not (study.folder / "runs.json").is_file():
        return False
    result = study.result()
    there = [*result.runs, *(entry for runs in result.others.values() for entry in runs)]
    asked = len(study.jobs({})), len(study.tuning_jobs())
    counts = len(there), len(result.tuning)
    return counts == asked and all(run.result() for _, _, run in there)


def figure_of(folder: Path) -> ModuleType:
    """A study's `figure.py`."""
    spec = importlib.util.spec_from_file_location(f"figure_{folder.name}", folder / "figure.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def title_of(folder: Path) -> str:
    """The first line of its prediction."""
    return (folder / "prediction.md").read_text("utf-8").splitlines()[0].removeprefix("# ")


def read(folder: Path) -> pd.DataFrame:
    """Its result.csv."""
    return pd.read_csv(folder / "result.csv")


def planned_flops(study: sw.Study) -> float:
    """What all its runs take, those of its grid included; less where first stages are shared."""
    jobs = [*study.tuning_jobs(), *study.jobs({})]
    return sum(spent(job.experiment)["flops"] for job in jobs)


def rows_of(studies: Sequence[sw.Study]) -> pd.DataFrame:
    """One row for each run of some studies, those of their grids included."""
    return pd.DataFrame([row for study in studies for row in _rows(study)])


def _rows(study: sw.Study) -> Iterator[dict[str, Any]]:
    result = study.result()
    kinds = {result.equal: result.runs, **result.others}
    grid = [(tried.arm, tried.seed, tried.run) for tried in result.tuning]
    for kind, runs in {**kinds, "tuning": grid}.items():
        for arm, seed, run in runs:
            if run is None:
                continue
            name, found = getattr(arm, "name", arm), run.result()
            yield {
                "study": study.folder.name,
                "kind": kind,
                "arm": name,
                "is_control": name == result.control,
                "seed": seed,
                "hash": run.experiment.hash,
                "lr": run.experiment.optim.lr,
                **{key: found.get({"tokens": "trained_tokens"}.get(key, key)) for key in PLAIN},
                "seconds": found.get("seconds"),
            }


def compared(frame: pd.DataFrame, kind: str | None = None) -> pd.DataFrame:
    """One row per arm: mean and spread over seeds, the paired difference from the control, costs.

    Args:
        frame: Rows of one study.
        kind: Which runs; None for those of the first row.
    """
    runs = frame[frame["kind"] == (kind or frame["kind"].iloc[0])]
    control = next(iter(runs[runs["is_control"]]["arm"]), None)
    rows = []
    for name in runs["arm"].unique():
        mine = runs[runs["arm"] == name]
        over, apart = paired(list(mine["bits_per_byte"])), difference(frame, name, control, kind)
        grid = frame[(frame["kind"] == "tuning") & (frame["arm"] == name)]
        rows.append(
            {
                "arm": name,
                "is_control": name == control,
                "n": over.n,
                "mean": over.mean,
                "sd": over.sd,
                "difference": apart.mean,
                "low": apart.low,
                "high": apart.high,
                "judged": "control" if name == control else judged(apart),
                "hash": mine["hash"].iloc[0],
                "lr": mine["lr"].iloc[0],
                "parameters": mine["parameters"].iloc[0],
                "tokens": mine["tokens"].mean(),
                "flops": mine["flops"].mean(),
                "grid_flops": grid["flops"].sum(),
                "epochs": mine["epochs"].mean(),
                "peak_bytes": mine["peak_bytes"].mean(),
            }
        )
    return pd.DataFrame(rows)


def difference(frame: pd.DataFrame, one: str, other: str | None, kind: str | None = None) -> Paired:
    """Bits per byte of one arm less those of another, paired by seed; none of an arm and itself."""
    if other is None or one == other:
        return paired([])
    runs = frame[frame["kind"] == (kind or frame["kind"].iloc[0])]
    bits = runs.pivot(index="seed", columns="arm", values="bits_per_byte")
    return paired(list(bits[one] - bits[other]))


def judged(found: Paired) -> str:
    """What may be said of a difference: its 95 % interval leaves out zero, or not."""
    if found.n < FEWEST:
        return "too few seeds"
    return "better" if found.high < 0 else "worse" if found.low > 0 else "undecided"


def below(found: Paired, bound: float = 0.0) -> bool | None:
    """Whether a mean lies below a bound, as far as its 95 % interval tells."""
    if found.n < FEWEST or found.low <= bound <= found.high:
        return None
    return found.high < bound


def between(value: float, low: float, high: float) -> bool | None:
    """Whether a number lies where it was expected; None of what is not known."""
    return None if math.isnan(value) else bool(low <= value <= high)


def every(*held: bool | None) -> bool | None:
    """Whether all of several hold: False if one does not, else None if one is not decided."""
    return False if False in held else None if None in held else True


def differing(
    old: pd.DataFrame, new: pd.DataFrame, tolerance: dict[str, float | None]
) -> Iterator[str]:
    """In what two results differ by more than the tolerance, one line for each column."""
    if list(old.columns) != list(new.columns) or len(old) != len(new):
        yield (
            f"{len(new)} rows of {', '.join(new.columns)}, not {len(old)} of "
            f"{', '.join(old.columns)}"
        )
        return
    for name in old.columns:
        allowed = tolerance.get(name, 0.0)
        if allowed is None:
            continue
        pairs = zip(old[name], new[name], strict=True)
        wrong = [(a, b) for a, b in pairs if not _near(a, b, allowed)]
        if wrong:
            yield f"{name}: {wrong[0][1]} and not {wrong[0][0]}, in {len(wrong)} of {len(old)} rows"


def _near(one: Any, other: Any, most: float) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    if pd.isna(one) or pd.isna(other):
        return bool(pd.isna(one) and pd.isna(other))
    return math.isclose(one, other, rel_tol=RELATIVE if most == 0 else 0, abs_tol=most)
