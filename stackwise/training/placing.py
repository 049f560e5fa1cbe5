"""Whether an experiment can be carried out as a placement says, asked before anything is made.

What an experiment can be by itself is in `rules.py` and `completion.py`; whether the memory is
there in `memory/room.py`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from torch import nn

from stackwise.completion import packing
from stackwise.curriculum import stages
from stackwise.errors import ExperimentError, FolderError
from stackwise.memory.bytes import on_card
from stackwise.memory.disk import cache_bytes, checkpoint_bytes
from stackwise.model.adapters import MISSING
from stackwise.model.linears import sized
from stackwise.model.shape import cycle, total_blocks
from stackwise.objective import schedule_of
from stackwise.probing import DRIFT_FILE
from stackwise.report import bytes_text
from stackwise.runs.records import MANIFEST
from stackwise.schedules import schedule_kind
from stackwise.stage import Stage, left_out, not_run, trunk_of
from stackwise.training.manifest import read_manifest
from stackwise.training.ownership import check_counters
from stackwise.training.part_names import home_of
from stackwise.trunk.room import bytes_held

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement

KEPT = ("stages", "earlier", "bests")
SHOWN = 4  # stages that a message names


def check_trunk(
    exp: Experiment, placement: Placement, made: Sequence[Stage], *, goes_on: bool = False
) -> None:
    """Raise if the trunks of these stages cannot be frozen or cached as it is asked.

    Args:
        exp: The experiment.
        placement: Says what is asked of trunks.
        made: Its stages.
        goes_on: Whether it is a run's already, so that only the placement may change.

    Raises:
        ExperimentError: With every problem at once.
    """
    problems = [*cache_problems(exp, placement, made, goes_on), *packing_problems(exp)]
    if any(stage.adapters for stage in made) and find_spec("peft") is None:
        problems.append(MISSING)
    if problems:
        raise ExperimentError("\n".join(problems))


def cache_problems(
    exp: Experiment, placement: Placement, made: Sequence[Stage], goes_on: bool
) -> Iterator[str]:
    """Why what a trunk puts out could not be read again: it would be something else by then."""
    if placement.trunk != "cached":
        return
    if moving := under_moving(made):
        plural, rest = len(moving) > 1, len(moving) - SHOWN
        named = ", ".join(f"{number} ({made[number].name})" for number in moving[:SHOWN])
        still = None if goes_on else still_embedding(exp)
        yield (
            f"placement.trunk: cached, but {'stages' if plural else 'stage'} {named}"
            f"{f' and {rest} more' if rest > 0 else ''} {'train' if plural else 'trains'} the "
            "embedding under frozen stacks, whose outputs change with it; "
            f"{f'give {still}, or ' if still else ''}use trunk=recompute or streamed"
        )
    repeats = exp.data.distinct_epochs is not None and any(map(trunk_of, made))
    if repeats and (schedule := masks_move(exp)):
        yield (
            f"placement.trunk: cached, but masking.schedule={schedule} masks more or less "
            "as training goes on, so that rows never repeat; "
            f"{'' if goes_on else 'leave data.distinct_epochs empty, or '}use trunk=recompute or "
            "streamed"
        )


def under_moving(made: Sequence[Stage]) -> list[int]:
    """The stages that train the embedding under stacks that are frozen."""
    found = []
    for number, stage in enumerate(made):
        active = [stage.path.index(stack) for stack in stage.active or ()]
        if stage.embedding and stage.path[: min(active, default=len(stage.path))]:
            found.append(number)
    return found


def still_embedding(exp: Experiment) -> str | None:
    """What of the curriculum trains the embedding under no frozen stack, as it is typed."""
    field = type(exp.curriculum).model_fields.get("embedding")
    values = () if field is None else get_args(field.annotation)
    for value in (value for value in values if isinstance(value, str)):
        if not under_moving(stages(exp.replace(curriculum={"embedding": value}))):
            return f"curriculum.embedding={value}"
    return None


def packing_problems(exp: Experiment) -> Iterator[str]:
    """Which matrix of a block would stay as it trained, though stacks are to be frozen to less."""
    form, shape = packing(exp.precision), exp.rack
    if form is None:
        return
    count = min(cycle(shape), total_blocks(shape))
    blocks = [sized(shape, exp.attention, number) for number in range(count)]
    for block in blocks:
        linears = [name for name, inner in block.named_modules() if isinstance(inner, nn.Linear)]
        for name, parameter in block.named_parameters():
            if parameter.ndim >= 2 and name.rpartition(".")[0] not in linears:
                yield (
                    f"precision.frozen: {form} is made of the matrices of nn.Linear layers, and "
                    f"{name} of attention={exp.attention.choice} is in none; keep it in an "
                    "nn.Linear, or leave precision.frozen empty"
                )
                return


def without_effect(exp: Experiment, placement: Placement, made: Sequence[Stage]) -> Iterator[str]:
    """What is asked for and comes to nothing.

    As what is for frozen stacks where no stage has one, in a study's control; and stacks that the
    finished rack does not run.
    """
    frozen = any(set(stage.path) - set(stage.active or ()) for stage in made)
    if placement.trunk != "recompute" and not frozen:
        yield f"placement.trunk={placement.trunk} has no effect: no stage has a frozen stack"
    elif placement.trunk == "cached" and not any(map(trunk_of, made)):
        yield (
            "placement.trunk=cached caches nothing: no stage has frozen stacks before those that "
            "train; those after them are streamed"
        )
    if exp.optim.name == "paged_adamw8bit" and not on_card(placement):
        yield (
            "optim.name=paged_adamw8bit pages nothing without a card: the state lies in memory, as "
            "with adamw8bit"
        )
    if exp.adapters.on != "none" and not any(stage.adapters for stage in made):
        side = "" if exp.adapters.on == "both" else f" on that side ({exp.adapters.on})"
        yield f"adapters.on={exp.adapters.on} has no effect: no stage has a frozen stack{side}"
    if left := left_out(exp.rack, made):
        yield f"rack.stacks={exp.rack.stacks}: {not_run(left)}"
    for key in () if frozen else ("frozen", "border"):
        if (asked := getattr(exp.precision, key)) is not None:
            yield f"precision.{key}={asked} has no effect: no stage has a frozen stack"


def masks_move(exp: Experiment) -> str | None:
    """The schedule that masks more or less as training goes on; None if none does."""
    schedule = schedule_of(exp.objective, exp.masking.schedule)
    if schedule is None or schedule_kind(schedule.choice) != "progress":
        return None
    return None if schedule.choice == "constant" else schedule.choice


def check_disk(
    exp: Experiment,
    placement: Placement,
    made: Sequence[Stage],
    epoch_samples: int,
    run: Path | None = None,
    home: Path | None = None,
    leaves: Path | None = None,
    *,
    mirrored: bool = False,
) -> None:
    """Raise if the folders of a run have no room for what it will still write, by arithmetic.

    Args:
        exp: The experiment.
        placement: Names the folders.
        made: Its stages.
        epoch_samples: Samples of an epoch.
        run: The folder of a run that goes on: its checkpoints and caches count as there. None for
            one that is new.
        home: The folder of its caches.
        leaves: A folder of caches that goes before anything is written.
        mirrored: Whether a checkpoint is held while it is copied elsewhere.

    Raises:
        ExperimentError: If so, or if the caches take more than `placement.cache_gb`.
        CheckpointError: If the run's checkpoint is damaged.
    """
    runs, cache_dir = Path(placement.runs_dir), Path(placement.cache_dir or placement.runs_dir)
    stage, saved = (0, 0) if run is None else standing(run)
    cached = caches_in(home if placement.trunk == "cached" else None)
    older = sum(count for name, count in cached.items() if name.partition(".")[0] != str(stage))
    ends = None if run is None else ends_kept(run, placement, stage)
    kept = checkpoint_bytes(
        exp,
        made,
        since=stage,
        kept=placement.keep_stages,
        ends=ends,
        last=placement.keep_last + mirrored,
        bests=placement.keep_best,
    )
    caches = cache_bytes(exp, placement, made, epoch_samples, since=stage, lingering=older)
    if placement.cache_gb is not None and caches > round(placement.cache_gb * 1e9):
        ways = ""
        if run is None:
            ways, once = "lower budget, ", exp.replace(data={"distinct_epochs": 1})
            fewer = cache_bytes(once, placement, made, epoch_samples) < caches
            ways += "give data.distinct_epochs=1, " if fewer and not masks_move(exp) else ""
        raise ExperimentError(
            f"placement.cache_gb: {placement.cache_gb} < {gb_text(caches)}, which the outputs of "
            f"the trunk take by arithmetic; raise it, {ways}or use trunk=streamed"
        )
    for folder, key in ((runs, "runs_dir"), (cache_dir, "cache_dir")):
        check_folder(folder, key)
    wanted = [
        (runs, kept, saved, "runs_dir"),
        (cache_dir, caches, sum(cached.values()), "cache_dir"),
    ]
    if same_disk(cache_dir, runs):
        wanted = [(runs, kept + caches, saved + sum(cached.values()), "runs_dir")]
    for folder, need, held, key in wanted:
        free = shutil.disk_usage(there(folder)).free
        goes = sum(caches_in(leaves if leaves and same_disk(folder, leaves) else None).values())
        if need > free + held + goes:
            has = f"; {bytes_text(held)} of it is there" if held else ""
            raise FolderError(
                f"placement.{key}: {folder} has {bytes_text(free)} free, and the run takes "
                f"{bytes_text(need)} there by arithmetic (checkpoints {bytes_text(kept)}, cached "
                f"outputs {bytes_text(caches)}{has}); make room, or name another folder"
            )


def gb_text(count: int) -> str:
    """Bytes in GB with three digits, rounded up, so that so much is enough."""
    step = 10 ** max(len(str(count)) - 3, 0)
    return f"{-(-count // step) * step / 1e9:.3g}"


def standing(run: Path) -> tuple[int, int]:
    """The stage that a run goes on in, and the bytes of its checkpoints' files.

    Raises:
        CheckpointError: If its checkpoint is damaged.
    """
    stage = held = 0
    for folder in (run / "rack", run / "best"):
        if (folder / MANIFEST).exists():
            manifest = read_manifest(folder)
            files = [home_of(folder, n) / e["file"] for n, e in manifest["parts"].items()]
            held += sum(file.stat().st_size for file in files if file.is_file())
            if (counters := manifest.get("counters")) is not None:
                check_counters(counters, f"{folder.name}/{MANIFEST}")
                stage = counters["stage"]
    drift = run / DRIFT_FILE
    held += drift.stat().st_size if drift.is_file() else 0
    return stage, held + bytes_of_kept(run)


def ends_kept(run: Path, placement: Placement, stage: int) -> set[int]:
    """The stages whose end a run has kept, or keeps before it goes on with `stage`."""
    from stackwise.training.kept_stages import kept_stages  # it needs what needs this

    return {*kept_stages(run), *([stage - 1] if placement.keep_stages and stage else [])}


def bytes_of_kept(run: Path) -> int:
    """What is kept beside the present checkpoint takes: files that have no other name."""
    places = [run / "rack", run / "state", run / "best"]
    known = {file.stat().st_ino for place in places if place.is_dir() for file in place.iterdir()}
    files = (file for name in KEPT for file in (run / name).rglob("*.*"))
    found = {}
    for file in files:
        with suppress(FileNotFoundError):  # of a run that another process trains
            stat = file.stat()
            found[stat.st_ino] = stat.st_size
    return sum(count for inode, count in found.items() if inode not in known)


def check_folder(folder: Path, key: str) -> None:
    """Raise if a folder is none, or nothing can be made in it.

    Raises:
        ExperimentError: If so.
    """
    found = there(folder)
    if not found.is_dir():
        raise ExperimentError(f"placement.{key}: {found} is a file; name a folder")
    if not os.access(found, os.W_OK | os.X_OK):
        raise FolderError(
            f"placement.{key}: {found} may not be written to; name another folder, or let it be"
        )


def caches_in(home: Path | None) -> dict[str, int]:
    """Bytes of the caches in a folder, by name; none without a folder."""
    return {} if home is None else {found.name: bytes_held(found) for found in home.glob("*")}


def there(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def same_disk(one: Path, other: Path) -> bool:
    """Whether two folders lie on one file system."""
    return there(one).stat().st_dev == there(other).stat().st_dev
