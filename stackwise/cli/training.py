"""Commands that train: `run`, `resume`, `demo`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from stackwise.cli.keeping import watchdog_in
from stackwise.cli.settings import placement_keys, said, settings
from stackwise.exit_codes import stop_code
from stackwise.printing import say

FOLDERS = {"runs_dir", "data_dir"}  # by which a run that is there is found


def run_command(options: argparse.Namespace) -> int:
    """Train, with a progress bar; Ctrl-C stops and keeps everything."""
    from stackwise.own_code import load_code
    from stackwise.training.start import create_run, seen_from, settled

    code = load_code(*options.code)
    exp, placement = settings(options.experiment, options.changes)
    given = placement.model_fields_set
    exp, placement = settled(exp, placement)
    run = create_run(exp, placement, rerun=options.rerun, code=code)
    seen = seen_from(run.path, placement)
    keys = {key: getattr(seen, key) for key in given}
    return carry_out(run, seen if given else None, keys, options)


def resume_command(options: argparse.Namespace) -> int:
    """Go on with a run, here or in a process of its own; a paused one where it is."""
    from stackwise.runs import attach
    from stackwise.runs.carried import check_trusted
    from stackwise.training.earlier import go_back
    from stackwise.training.moving import changed_placement

    keys = placement_keys(options.changes)
    run = attach(options.run, options.runs_dir)
    if watchdog_in(options) and not options.detach:
        raise ValueError("--watchdog, --restart-died: of a launched run; add --detach")
    if options.checkpoint is not None:
        check_trusted(run, options.trust)
        changed_placement(run, keys)  # which raises if it cannot be had
        go_back(run, options.checkpoint)
    if run.state == "paused" or (options.detach and run.state != "finished"):
        run.resume(
            keys,
            mirror=options.mirror,
            alert=options.alert,
            watchdog=watchdog_in(options),
            trust=options.trust,
        )
        say(f"{run.id}: goes on in its own process")
        return 0
    check_trusted(run, options.trust)
    changed = None if run.state == "finished" else changed_placement(run, keys)
    return carry_out(run, changed, keys or {}, options)


def carry_out(
    run: Any, placement: Any, given: Mapping[str, Any], options: argparse.Namespace
) -> int:
    """Execute a run under a progress bar and say what came of it.

    Args:
        run: The run.
        placement: How; None for as before.
        given: What was asked for of the placement, key by key.
        options: Says where it is mirrored to, and what is called at its end.
    """
    from stackwise.alerts import alerting
    from stackwise.determinism import promise_text
    from stackwise.progress import bar_over
    from stackwise.report import beside, bytes_text, called, count_text, number, program
    from stackwise.runs.damage import RESTORE, DamagedRun, blamed_on
    from stackwise.runs.pruned import pruned_text
    from stackwise.training.run import execute

    say(f"{run.id}: {run.experiment}")
    promise = run.determinism()
    with blamed_on(run, "provenance.json"):
        facts = run.provenance()
        notes = [*facts["data"]["notes"], *facts.get("notes", ())]
    notes += [promise_text(promise)] if promise["promised"] is False else []
    for note in notes:
        say(f"note: {note}")
    if run.state == "finished" and (late := ", ".join(changes_of(run, given))):
        say(f"note: it is finished already, so {late} had no effect; run --rerun trains it again")
    if run.state == "finished":
        execute(run, mirror=options.mirror)
    else:
        with blamed_on(run, "plan.json"):
            planned = sum(row["flops"] for row in run.plan())
        try:
            with alerting(run, options.alert), bar_over(planned) as bar:
                execute(run, placement, on_step=bar.on_step, mirror=options.mirror)
                if run.state == "finished":  # also where all steps were taken before
                    bar.end()
        except KeyboardInterrupt as stop:
            say(
                "stackwise: interrupted before the state was saved; go on from the last "
                f"checkpoint with: {program()} resume {called(run)}",
                error=True,
            )
            return stop_code(stop)
    if run.state == "stopped":
        say(f"stopped and saved; go on with: {program()} resume {called(run)}")
        return stop_code()
    result = run.result()
    if not result:
        raise DamagedRun(
            f"run {run.id}: is finished, but its events.jsonl is damaged and holds no result; "
            f"{program()} eval {called(run)} measures its weights again"
        )
    with blamed_on(run, "events.jsonl"):
        said = (
            f"{number(result['bits_per_byte'])} bits per byte held-out ({result['note']}), "
            f"{count_text(result['parameters'])} parameters, {result['flops']:.3g} FLOPs, "
            f"peak {bytes_text(result['peak_bytes'])}, {result['seconds']:.0f} s of training"
        )
    say(said)
    say(beside(run))
    if not run.has_weights():
        if "weights" in run.pruned():
            say(f"note: it {pruned_text(run.path)}")
            return 0
        raise DamagedRun(f"run {run.id}: its weights are gone: rack/ holds none; {RESTORE}")
    say(f'look at it with: {program()} sample {called(run)} "In the beginning"')
    return 0


def changes_of(run: Any, given: Mapping[str, Any]) -> list[str]:
    """Where a placement is another one than a run's, but for folders by which it is found."""
    from stackwise.config import Placement

    present = Placement.load(run.path / "placement.yaml")
    new = present.replace(**given)
    chosen = sorted(given.keys() - FOLDERS)
    return [f"placement.{key}" for key in chosen if getattr(new, key) != getattr(present, key)]


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
