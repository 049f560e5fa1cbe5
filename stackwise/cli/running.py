"""Commands for runs in processes of their own: `launch`, `pause`, `stop`, `watch`, `fork`, ..."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from stackwise.cli.keeping import add_keeping, watchdog_in
from stackwise.cli.settings import add_code, add_trust, said, settings
from stackwise.printing import say

WATCH_SECONDS, LINE_SECONDS, STOP_SECONDS = 0.5, 10.0, 600.0
ENDED_BADLY = ("failed", "died", "damaged")
HOME, CLEAR_LINE, CLEAR_REST, CLEAR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"


LAUNCH_MORE = """The run trains in processes of its own: closing the terminal does not end it. A
second run for the same device waits for the first. The same command again finds the run that is
there, and goes on with it if it is unfinished.

examples:
  stackwise launch toy curriculum=grow
  stackwise launch toy curriculum=left_to_right --stage 0
  stackwise watch toy-grow"""


def add_running(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands and their options, given what adds one."""
    launch = add(
        "launch", launch_command, "train in a process of its own, and return at once", LAUNCH_MORE
    )
    launch.add_argument("experiment", metavar="EXPERIMENT", help="as for run")
    launch.add_argument("changes", nargs="*", default=[], metavar="key=value", help="as for run")
    launch.add_argument(
        "--rerun", action="store_true", help="make another run even if there is one"
    )
    launch.add_argument(
        "--stage",
        type=stage_of,
        action="append",
        metavar="N",
        help="only this stage, which follows on those that are done; may be given again; next: the "
        "first that is not done",
    )
    add_code(launch)
    launch.add_argument("--no-queue", action="store_true", help="do not wait for the device")
    launch.add_argument("--name", help="what to call it in lists")
    add_keeping(launch, launched="launch")
    _for_a_run(add, "pause", pause_command, "hold a launched run, in memory; resume lets it go on")
    stop = _for_a_run(add, "stop", stop_command, "end a launched run, saved, and wait until it has")
    stop.add_argument("--now", action="store_true", help="at once, back to its last checkpoint")
    watch = _for_a_run(
        add, "watch", watch_command, "show a run until it ends; Ctrl-C leaves it running"
    )
    watch.add_argument("--once", action="store_true", help="show it as it stands, and end")
    watch.add_argument("--plain", action="store_true", help="a line now and then, as in a file")
    fork = _for_a_run(
        add, "fork", fork_command, "launch a branch of a run after one of its finished stages"
    )
    fork.add_argument("after_stage", type=int, metavar="STAGE", help="the stage's number")
    fork.add_argument("changes", nargs="*", default=[], metavar="key=value", help="what changes")
    add_trust(fork)
    label = _for_a_run(add, "label", label_command, "name a run, note something of it, tag it")
    label.add_argument("--name", help="what to call it in lists; empty: its id")
    label.add_argument("--note", help="any text; empty: none")
    label.add_argument("--tag", action="append", help="may be given again; they replace the old")
    delete = _for_a_run(add, "delete", delete_command, "remove a run's folder")
    delete.add_argument("--yes", action="store_true", help="really")
    share = _for_a_run(add, "share", share_command, "pack a run into a .zip, or show it on a .html")
    share.add_argument("file", metavar="FILE", help="the file to write, by its ending")
    share.add_argument("--no-weights", action="store_true", help="leave them out of the zip")


def _for_a_run(
    add: Callable[..., argparse.ArgumentParser], name: str, function: Any, text: str
) -> argparse.ArgumentParser:
    command = add(name, function, text)
    command.add_argument(
        "run", metavar="RUN", help="a run's id, the beginning of one, or its folder"
    )
    command.add_argument("--runs-dir", default="runs", help="folder of the runs (default runs)")
    return command


def launch_command(options: argparse.Namespace) -> int:
    """Train in a process of its own, which outlives this terminal."""
    from stackwise.detached.launch import launch
    from stackwise.own_code import load_code
    from stackwise.report import called, program

    load_code(*options.code)
    exp, placement = settings(options.experiment, options.changes)
    given = placement if placement.model_fields_set else None
    run = launch(
        exp,
        given,
        stages="next" if options.stage == ["next"] else options.stage or None,
        rerun=options.rerun,
        queue=not options.no_queue,
        code=options.code,
        name=options.name,
        mirror=options.mirror,
        alert=options.alert,
        watchdog=watchdog_in(options),
    )
    say(f"{run.id}: {run.state}")
    say(f"watch it with: {program()} watch {called(run)}")
    return 0


def stage_of(text: str) -> int | str:
    """A stage as it is named on a command line."""
    return text if text == "next" else int(text)


def pause_command(options: argparse.Namespace) -> int:
    """Hold a run where it is."""
    run = _of(options)
    run.pause()
    return _say(
        run, "it holds after the step in hand" if run.is_live else "there is nothing to pause"
    )


def stop_command(options: argparse.Namespace) -> int:
    """End a run, and wait until it has, ten minutes at most."""
    from stackwise.runs.lock import owner_of
    from stackwise.runs.standing import LIVE

    run = _of(options)
    if not run.is_live:
        return _say(run, "there is nothing to stop")
    run.stop(now=options.now)
    if run.wait(STOP_SECONDS) in LIVE:
        owner = owner_of(run.path)
        who = "its process" if owner is None else f"process {owner.pid} on {owner.host}"
        say(f"{run.id}: is still {run.state}; {who} has not taken up the stop yet")
        return 1
    return _say(run, run.what_now() or "")


def watch_command(options: argparse.Namespace) -> int:
    """Show a run until it ends; Ctrl-C leaves it running."""
    from stackwise.runs.following import Follower
    from stackwise.screen import one_line, screen

    run = _of(options)
    seen = Follower(run.path)
    drawn = sys.stdout.isatty() and not options.plain
    if drawn:
        print(CLEAR, end="")
    while True:
        live = run.is_live
        if drawn:
            lines = screen(run, shutil.get_terminal_size().columns, seen)
            print(HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in lines) + CLEAR_REST, end="")
        else:
            print(one_line(run))
        sys.stdout.flush()
        if not live or options.once:
            break
        wait_while_live(run, WATCH_SECONDS if drawn else LINE_SECONDS)
    return 1 if run.state in ENDED_BADLY else 0


def wait_while_live(run: Any, seconds: float) -> None:
    """Wait, but not longer than the run lives."""
    until = time.monotonic() + seconds
    while run.is_live and time.monotonic() < until:
        time.sleep(min(0.2, seconds))


def fork_command(options: argparse.Namespace) -> int:
    """Branch a run after a finished stage."""
    from stackwise.changes import nested
    from stackwise.detached.launch import relaunch
    from stackwise.report import called, program
    from stackwise.runs.carried import check_trusted
    from stackwise.runs.damage import blamed_on
    from stackwise.training.forking import fork

    old = _of(options)
    check_trusted(old, options.trust)
    run = fork(old, options.after_stage, nested(said(options.changes)))
    with blamed_on(run, "provenance.json"):
        notes = [*run.provenance().get("notes", ())]
    for note in notes:
        say(f"note: {note}")
    relaunch(run, trust=options.trust)
    say(f"{run.id}: {run.state}")
    say(f"watch it with: {program()} watch {called(run)}")
    return 0


def label_command(options: argparse.Namespace) -> int:
    """Name a run, note something, tag it."""
    run = _of(options)
    labels = run.label(name=options.name, note=options.note, tags=options.tag)
    say(f"{run.id}: name {labels.name!r}, tags {', '.join(labels.tags) or 'none'}")
    if labels.note:
        say(labels.note)
    return 0


def delete_command(options: argparse.Namespace) -> int:
    """Remove a run's folder, once that is confirmed."""
    run = _of(options)
    if not options.yes:
        say(f"{run.path}: would be removed, with its weights; say so with --yes")
        return 2
    left = run.delete()
    say(f"{run.id}: removed")
    for path in left:
        say(f"{path}: is left; it may be another run's")
    return 0


def share_command(options: argparse.Namespace) -> int:
    """Pack a run into a zip file or an HTML page."""
    target = _of(options).share(options.file, weights=not options.no_weights)
    say(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


def _of(options: argparse.Namespace) -> Any:
    from stackwise.runs import attach

    return attach(options.run, options.runs_dir)


def _say(run: Any, more: str) -> int:
    say(f"{run.id}: {run.state}{f'; {more}' if more else ''}")
    return 0
