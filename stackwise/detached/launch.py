"""Launch a run in a process of its own, and go on with one that ended before its time.

`launch` makes the run folder and hands it to a supervisor (`supervisor.py`), which outlives this
process; what happens from then on is read from the folder.
"""

from __future__ import annotations

import select
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from stackwise.alerts import alert_of
from stackwise.asked import a_placement, an_experiment, usual_placement
from stackwise.bounded import check_no_links
from stackwise.config import Experiment, Placement
from stackwise.detached.foreign import check_known_elsewhere
from stackwise.detached.job import BUSY, TAKEN, Job
from stackwise.detached.warm import start_supervisor, take_warm
from stackwise.detached.watchdog import Watchdog, watchdog_of
from stackwise.errors import ExperimentError
from stackwise.mirrors.copying import Copies
from stackwise.mirrors.mirror import mirror_of
from stackwise.own_code import Paths, carried_by, loaded
from stackwise.runs import Run, RunError, attach
from stackwise.runs.carried import check_trusted
from stackwise.runs.control import is_stopping, newest
from stackwise.runs.log import last_line
from stackwise.training.moving import changed_placement
from stackwise.training.start import create_run, device_of, seen_from, settled

ANSWER_SECONDS = 60.0


def launch(
    exp: Experiment | str,
    placement: Placement | str | None = None,
    *,
    stages: Sequence[int] | Literal["next"] | None = None,
    rerun: bool = False,
    queue: bool = True,
    code: Paths = (),
    name: str | None = None,
    note: str | None = None,
    tags: Iterable[str] = (),
    mirror: str | None = None,
    alert: str | None = None,
    watchdog: Watchdog | float | None = None,
) -> Run:
    """Train an experiment in a process of its own, and return as soon as that has its job.

    A run that is there already is attached to, and goes on if it is unfinished; one that is being
    trained is left alone. Closing the notebook or the terminal does not end it.

    Args:
        exp: What to train: an experiment, or a preset's name.
        placement: As for `train`.
        stages: Only these, by number; they follow on those that are done. `next`: the first that is
            not done. None: all.
        rerun: Make another run even if one is there.
        queue: Wait while another run has the device; False: start beside it.
        code: Files of your own that bring its kinds; the run carries them.
        name: What to call it in lists.
        note: A text to find in its folder later.
        tags: Words to group runs by.
        mirror: As for `train`.
        alert: As for `train`.
        watchdog: When it is killed and started again from its last checkpoint: minutes without a
            sign of work, or a `Watchdog`; None: never (docs/keeping.md).

    Raises:
        ExperimentError: If stages, rack, data and budget do not go together, a kind is known to
            this process alone, or `stages` does not follow on what is done.
        DataError: If the corpus cannot be read.
        RunError: If no process could be started.
    """
    placement = a_placement(placement)
    files = carried_by(an_experiment(exp), code)
    check_known_elsewhere(an_experiment(exp), {each.sha256 for each in files})
    made, whole = settled(an_experiment(exp), placement or usual_placement(exp))
    run = create_run(made, whole, rerun=rerun, code=files)
    if name is not None or note is not None or tags:
        run.label(name=name, note=note, tags=tuple(tags) or None)
    seen = seen_from(run.path, whole) if placement else None
    return start(
        run,
        seen,
        through=last_of(run, stages),
        queue=queue,
        mirror=mirror,
        alert=alert,
        watchdog=watchdog,
    )


def relaunch(
    run: Run | str | Path,
    placement: Placement | Mapping[str, Any] | None = None,
    *,
    stages: Sequence[int] | Literal["next"] | None = None,
    queue: bool = True,
    trust: bool = False,
    mirror: str | None = None,
    alert: str | None = None,
    watchdog: Watchdog | float | None = None,
) -> Run:
    """Go on with a run from its last checkpoint, in a process of its own.

    Args:
        run: The run; or its folder, its id in `runs`, or the beginning of its id.
        placement: How to carry it out from here on, as for `resume`.
        stages: As for `launch`.
        queue: As for `launch`.
        trust: Import the code that it carries, if it does: it runs as you, so read it first.
        mirror: As for `launch`.
        alert: As for `launch`.
        watchdog: As for `launch`.

    Raises:
        TrustError: If it carries code that is neither known here nor trusted.
        ExperimentError: As `launch`, or if the placement cannot be had here.
        RunError: If there is no such run, or no process could be started.
    """
    run = run if isinstance(run, Run) else attach(run, Placement().runs_dir)
    check_trusted(run, trust)
    check_known_elsewhere(run.experiment, set(run.carries().values()) & loaded())
    new = None if placement is None else changed_placement(run, placement)
    return start(
        run,
        new,
        through=last_of(run, stages),
        queue=queue,
        mirror=mirror,
        alert=alert,
        watchdog=watchdog,
    )


def last_of(run: Run, stages: Sequence[int] | Literal["next"] | None) -> int | None:
    """The stage after which a run is to stop, of those that were asked for.

    Raises:
        ExperimentError: If they are not stages of it, or leave one out before.
    """
    if stages is None:
        return None
    count, done = len(run.stages()), run.stages_done()
    if stages == "next":
        return done
    for number in stages:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < count:
            raise ExperimentError(f"stages: {number!r} is no stage; there are 0 to {count - 1}")
    asked = sorted(set(stages))
    if not asked:
        raise ExperimentError("stages: none given; name some, or leave it out for all")
    left_out = [number for number in range(done, asked[-1]) if number not in asked]
    if left_out:
        ready = f"stages 0 to {done - 1} are done" if done else "none is done"
        raise ExperimentError(
            f"stages: {asked[-1]} comes after {left_out[0]}, and {ready}; "
            f"give stages={list(range(done, asked[-1] + 1))}"
        )
    return asked[-1]


def start(
    run: Run,
    placement: Placement | None = None,
    *,
    through: int | None = None,
    queue: bool = True,
    mirror: str | None = None,
    alert: str | None = None,
    watchdog: Watchdog | float | None = None,
    asleep: bool = False,
) -> Run:
    """Hand a run to a supervisor, unless it is finished or in good hands.

    Args:
        run: The run.
        placement: Another one from here on, its folders seen from the run's.
        through: The stage after which it stops.
        queue: Whether it waits for its turn.
        mirror: As for `launch`.
        alert: As for `launch`.
        watchdog: As for `launch`.
        asleep: As for `start_supervisor`.

    Raises:
        ExperimentError: If the device is not here, or a command or a number of minutes is none.
        OSError: If a link in its folder leads out of it.
        RunError: If no process could be started.
    """
    rule, address, command = watchdog_of(watchdog), mirror_of(mirror), alert_of(alert)
    if address:
        Copies.at(run, address)  # which raises if it cannot be
    if run.state == "finished" or (through is not None and through < run.stages_done()):
        return run
    follows = run.is_live
    if follows and not is_stopping(run.path, run.status()) and not goes_beyond(run, through):
        return run
    check_no_links(run.path)
    where = placement or Placement.load(run.path / "placement.yaml")
    job = Job(
        run=str(run.path.resolve()),
        device=device_of(where).type,
        queue=queue,
        obeyed=newest(run.path),
        follows=follows,
        through=through,
        placement=None if placement is None else placement.model_dump(mode="json"),
        mirror=address or "",
        alert=command,
        watchdog=None if rule is None else asdict(rule),
        trusted=tuple(sorted(code)) if (code := set(run.carries().values())) <= loaded() else (),
    )
    for pair in (None if asleep else take_warm(), None):
        answer = handed(pair or start_supervisor(asleep=asleep), job)
        if answer in (TAKEN, BUSY):
            return run
    why = last_line(run.path)
    raise RunError(
        f"run {run.id}: no process could be started for it{f': {why}' if why else ''}; "
        "train it in this one with sw.resume, or look at the memory that is free"
    )


def goes_beyond(run: Run, through: int | None) -> bool:
    """Whether more is asked for than the attempt that is live will do."""
    last = run.status().get("through")
    return isinstance(last, int) and (through is None or through > last)


def handed(pair: subprocess.Popen[str], job: Job) -> str:
    """What a supervisor answers to a job; nothing if it does not."""
    assert pair.stdin is not None and pair.stdout is not None
    with suppress(OSError), pair.stdin, pair.stdout:
        pair.stdin.write(job.line())
        pair.stdin.flush()
        if select.select([pair.stdout], [], [], ANSWER_SECONDS)[0]:
            return pair.stdout.readline().strip()
    return ""
