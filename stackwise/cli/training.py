"""Commands that train: `run`, `resume`, `demo`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from stackwise.cli.settings import placement_keys, said, settings

STOPPED = 130
FOLDERS = {"runs_dir", "data_dir"}  # by which a run that is there is found


def run_command(options: argparse.Namespace) -> int:
    """Train, with a progress bar; Ctrl-C stops and keeps everything."""
    from stackwise.training.start import create_run, seen_from, settled

    exp, placement = settings(options.experiment, options.changes)
    given = placement.model_fields_set
    exp, placement = settled(exp, placement)
    run = create_run(exp, placement, rerun=options.rerun)
    seen = seen_from(run.path, placement)
    return carry_out(run, seen if given else None, {key: getattr(seen, key) for key in given})


def resume_command(options: argparse.Namespace) -> int:
    """Go on with a run, here or in a process of its own; a paused one where it is."""
    from stackwise.runs import attach
    from stackwise.training.moving import changed_placement

    keys = placement_keys(options.changes)
    run = attach(options.run, options.runs_dir)
    if run.state == "paused" or options.detach:
        run.resume(keys)
        print(f"{run.id}: goes on in its own process")
        return 0
    changed = None if run.state == "finished" else changed_placement(run, keys)
    return carry_out(run, changed, keys or {})


def carry_out(run: Any, placement: Any, given: Mapping[str, Any]) -> int:
    """Execute a run under a progress bar and say what came of it.

    Args:
        run: The run.
        placement: How; None for as before.
        given: What was asked for of the placement, key by key.
    """
    from stackwise.progress import bar_over
    from stackwise.report import beside, bytes_text, called, count_text, number, program
    from stackwise.runs import RunError
    from stackwise.runs.damage import RESTORE, blamed_on
    from stackwise.training.run import execute

    print(f"{run.id}: {run.experiment}")
    facts = run.provenance()
    with blamed_on(run, "provenance.json"):
        notes = [*facts["data"]["notes"], *facts.get("notes", ())]
    for note in notes:
        print(f"note: {note}")
    if run.state == "finished" and (late := ", ".join(changes_of(run, given))):
        print(f"note: it is finished already, so {late} had no effect; run --rerun trains it again")
    if run.state != "finished":
        with blamed_on(run, "plan.json"):
            planned = sum(row["flops"] for row in run.plan())
        try:
            with bar_over(planned) as bar, hangup_saves():
                execute(run, placement, on_step=bar.on_step)
                if run.state == "finished":  # also where all steps were taken before
                    bar.end()
        except KeyboardInterrupt:
            print(
                "stackwise: interrupted before the state was saved; go on from the last "
                f"checkpoint with: {program()} resume {called(run)}",
                file=sys.stderr,
            )
            return STOPPED
    if run.state == "stopped":
        print(f"stopped and saved; go on with: {program()} resume {called(run)}")
        return STOPPED
    result = run.result()
    if not result:
        raise RunError(
            f"run {run.id}: is finished, but its events.jsonl is damaged and holds no result; "
            f"{program()} eval {called(run)} measures its weights again"
        )
    with blamed_on(run, "events.jsonl"):
        said = (
            f"{number(result['bits_per_byte'])} bits per byte held-out ({result['note']}), "
            f"{count_text(result['parameters'])} parameters, {result['flops']:.3g} FLOPs, "
            f"peak {bytes_text(result['peak_bytes'])}, {result['seconds']:.0f} s of training"
        )
    print(said)
    print(beside(run))
    if not run.has_weights():
        raise RunError(f"run {run.id}: its weights are gone: rack/ holds none; {RESTORE}")
    print(f'look at it with: {program()} sample {called(run)} "In the beginning"')
    return 0


def changes_of(run: Any, given: Mapping[str, Any]) -> list[str]:
    """Where a placement is another one than a run's, but for folders by which it is found."""
    from stackwise.config import Placement

    present = Placement.load(run.path / "placement.yaml")
    new = present.replace(**given)
    chosen = sorted(given.keys() - FOLDERS)
    return [f"placement.{key}" for key in chosen if getattr(new, key) != getattr(present, key)]


@contextmanager
def hangup_saves() -> Iterator[None]:
    """A closed terminal stops a run as SIGTERM does, with its state saved; not under nohup."""
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:
        yield
        return
    before = signal.signal(hangup, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(hangup, before)


def demo_command(options: argparse.Namespace) -> int:
    """Run the demo."""
    from stackwise.changes import nested
    from stackwise.demo import run_demo
    from stackwise.errors import ExperimentError

    for key, value in nested(said(options.changes)).items():
        if key == "curriculum" or (
            key == "masking" and isinstance(value, Mapping) and "bands" in value
        ):
            name = key if key == "curriculum" else "masking.bands"
            raise ExperimentError(f"{name}: the five arms of the demo set it; leave it out")
    exp, placement = settings("toy", options.changes)
    run_demo(exp, placement)
    return 0
