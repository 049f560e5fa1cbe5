"""What a list of runs needs of each, read without its numbers: a hundred in a fraction of a second.

Nothing here raises for what a folder holds: what is wrong stands under `problem`, and what could be
read beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stackwise as sw
from stackwise.runs.asked import asked_of, flat, same_but_for_seed
from stackwise.runs.damage import RESTORE, RunError
from stackwise.runs.labels import read_labels
from stackwise.runs.tail import last_event
from stackwise_widgets.charts.readable import refusal
from stackwise_widgets.charts.stretches import number_or_nan

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = ("stages.json", "experiment.yaml", "events.jsonl", "status.json")


@dataclass(frozen=True)
class Brief:
    """A run in a list.

    Attributes:
        path, id, name: Its folder, the folder's name, and what people call it.
        run: None if the folder is not a run, or not yet.
        state: As `Run.state`; `damaged` if something is wrong with a finished run.
        problem: What is wrong; None for nothing.
        asked: Dotted keys of its experiment; empty if it cannot be read.
        like: The same text for all runs of one experiment that differ in the seed alone. Forks are
            such runs of those alone that begin at the same end of the same stage.
        result: What it came to; empty if it is not finished.
        forked: Of a fork, where it begins: `run`, `after_stage`, `weights`.
    """

    path: Path
    id: str
    name: str
    run: sw.Run | None
    state: str
    problem: str | None
    asked: Mapping[str, Any] = field(default_factory=dict)
    like: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    forked: Mapping[str, Any] = field(default_factory=dict)

    def number(self, key: str) -> float:
        """A number that it came to; NaN if there is none."""
        return number_or_nan(self.result.get(key))

    @property
    def seed(self) -> int | None:
        """Of its random draws."""
        seed = self.asked.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def origin(self) -> str:
        """Where a fork begins, in words; empty of a run that is none."""
        at = self.forked
        return f"after stage {at.get('after_stage')} of {at.get('run')}" if at else ""


def brief_of(run: sw.Run | str | Path) -> Brief:
    """A run, or the folder of what should be one. Never raises for what is in it."""
    path = run.path if isinstance(run, sw.Run) else Path(run)
    name = path.resolve().name
    try:
        found = run if isinstance(run, sw.Run) else sw.Run(path)
    except RunError:
        why = "it has no stages.json, which is written last: making it was cut short"
        return Brief(path, name, name, None, "damaged", f"{why}; delete it, or {RESTORE}")
    problems: list[str] = []

    def read(what: Callable[[], Any], empty: Any) -> Any:
        try:
            return what()
        except (RunError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            text = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
            problems.append(text)
            return empty

    asked = read(lambda: asked_of(found), {})
    if asked and (why := refusal(name, asked)):
        problems.append(why)
    state = read(lambda: found.state, "damaged")
    read(found.status, {})
    read(found.stages, [])
    finished = state == "finished"
    result = read(lambda: last_event(path / "events.jsonl", "result", whole=finished), None)
    damaged = bool(problems) or state == "damaged"
    forked = _forked(found)
    if finished and result is None:
        damaged = True
        problems.append(f"run {name}: events.jsonl holds no result; {RESTORE}")
    elif state in ("failed", "died"):
        problems.append(read(found.error, None) or state)
    return Brief(
        path=path,
        id=name,
        name=read_labels(path).name or name,
        run=found,
        state="damaged" if damaged else state,
        problem="; ".join(dict.fromkeys(problems)) or None,
        asked=flat(asked),
        like=same_but_for_seed(asked | _beginning(forked)) if asked else name,
        result=result or {},
        forked=forked,
    )


def _forked(run: sw.Run) -> dict[str, Any]:
    """What provenance says of where a fork begins; nothing of any other run, or if it is lost."""
    try:
        found = run.provenance().get("forked")
    except (RunError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _beginning(forked: Mapping[str, Any]) -> dict[str, Any]:
    """What forks from one place have in common; the hash of the weights also tells the run."""
    keys = ("run", "after_stage", "weights")
    return {"forked": {key: forked.get(key) for key in keys}} if forked else {}


def briefs_in(runs_dir: str | Path) -> list[Brief]:
    """Every run in a folder, newest first, and every folder that was to be one."""
    folder = Path(runs_dir)
    try:
        found = [path for path in folder.iterdir() if path.is_dir() and not _hidden(path)]
    except OSError:
        return []
    dated = [(when, path) for path in found if not math.isnan(when := _made(path))]
    return [brief_of(path) for _, path in sorted(dated, key=lambda pair: (-pair[0], pair[1].name))]


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _made(path: Path) -> float:
    """When a run was made; NaN if the folder holds nothing of one."""
    for part in PARTS:
        try:
            return (path / part).stat().st_mtime
        except OSError:
            continue
    return math.nan


def briefs_of(runs: Iterable[sw.Run | Brief | str | Path]) -> list[Brief]:
    """Of each run, if it is not one already."""
    return [run if isinstance(run, Brief) else brief_of(run) for run in runs]


IDENTITY = ("title", "seed")  # the id begins with the one; the other makes no other experiment
CHOICE = ("name", "kind")


def differing(briefs: Sequence[Brief], *, but: Iterable[str] = ("title",)) -> list[str]:
    """The keys whose values are not the same in all runs that are not damaged, in their own order.

    An option that only one of several choices has is no difference beside that of the choice.
    """
    known = [brief.asked for brief in briefs if brief.asked and brief.state != "damaged"]
    keys = dict.fromkeys(key for asked in known for key in asked)
    apart = {key for key in keys if len({repr(asked[key]) for asked in known if key in asked}) > 1}
    for key in keys:
        section = key.rpartition(".")[0]
        if not all(key in asked for asked in known) and not any(
            f"{section}.{choice}" in apart for choice in CHOICE
        ):
            apart.add(key)
    skipped = set(but)
    return [key for key in keys if key in apart and key not in skipped]


def called(briefs: Sequence[Brief]) -> dict[str, str]:
    """What each experiment is called among others: as little of it as tells them apart.

    Keys are `Brief.like`, so that runs that differ in the seed alone share a name. What people call
    a run goes before; where nothing differs it is called by its id.
    """
    one_of = {brief.like: brief for brief in reversed(briefs)}
    words = _words([brief for brief in one_of.values() if brief.asked])
    out: dict[str, str] = {}
    for brief in briefs:
        if brief.like not in out:
            own = brief.name if brief.name != brief.id else ""
            text = own or ", ".join(filter(None, (words.get(brief.like), brief.origin))) or brief.id
            same = sum(other == text or other.startswith(f"{text} (") for other in out.values())
            out[brief.like] = f"{text} ({same + 1})" if same else text
    return out


def _words(briefs: Sequence[Brief]) -> dict[str, str]:
    """Values that tell experiments apart, choices first; a key that tells no more is left out."""
    keys = differing(briefs, but=IDENTITY)
    keys.sort(key=lambda key: key.rpartition(".")[2] not in CHOICE)
    parts: dict[str, tuple[str, ...]] = {brief.like: () for brief in briefs}
    for key in keys:
        longer = {
            b.like: (*parts[b.like], *([_word(key, b.asked[key])] if key in b.asked else []))
            for b in briefs
        }
        if len(set(longer.values())) > len(set(parts.values())):
            parts = longer
    return {like: ", ".join(found) for like, found in parts.items()}


def _word(key: str, value: Any) -> str:
    """A value with its key; a choice's name stands for itself."""
    if key.endswith((".name", ".kind")) and isinstance(value, str):
        return value
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{key.rpartition('.')[2]} {shown}"
