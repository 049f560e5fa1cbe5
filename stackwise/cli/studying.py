"""The command that compares: `study`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING

from stackwise.cli.settings import add_code, add_trust
from stackwise.exit_codes import DONE, FAILED
from stackwise.printing import say

if TYPE_CHECKING:
    from stackwise.study import Arm, Study, StudyResult

STUDY_MORE = """FILE is YAML with the keys of sw.Study, or the folder that a study wrote:

  base: toy                      a preset, an experiment's file, or keys; {preset: toy, ...}: both
  vary:
    curriculum: [end_to_end, left_to_right, grow]
  seeds: [0, 1, 2]
  equal: flops                   or tokens, or seconds
  lr_grid: {times: [0.5, 1, 2]}  or rates; null: none
  placement: {runs_dir: runs}

The same command again goes on where it stopped. Exit code 1 says that a run failed.

examples:
  stackwise study growth.yaml --plan
  stackwise study growth.yaml --workers 2
  stackwise study runs/study-toy-1a2b3c4d --json"""


def add_study(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The command and its options."""
    text = "compare experiments fairly: equal budgets, paired seeds, tuned and decayed controls"
    command = add("study", study_command, text, STUDY_MORE)
    command.add_argument("file", metavar="FILE", help="a YAML file, or a study's folder")
    command.add_argument(
        "--plan", action="store_true", help="print what it will take, and train nothing"
    )
    command.add_argument(
        "--workers",
        type=workers_of,
        metavar="N",
        help="runs at a time, each in a process of its own; auto: by the cores (default: one "
        "after the other, in this process)",
    )
    command.add_argument(
        "--threads", type=int, metavar="N", help="of the CPU for each run; they decide last bits"
    )
    add_code(command)
    add_trust(command)
    command.add_argument("--json", action="store_true", help="print plan or result as JSON")


def workers_of(text: str) -> int | str:
    """Workers as they are named on a command line."""
    return text if text == "auto" else int(text)


def study_command(options: argparse.Namespace) -> int:
    """Print what a study takes, carry it out, and print what it says."""
    from stackwise.jsontext import dumps
    from stackwise.own_code import load_code
    from stackwise.report import program
    from stackwise.study import Study
    from stackwise.training.run import Stopped

    given = load_code(*options.code)
    code = {"code": options.code} if given else {}
    study = Study.load(options.file, trust=options.trust, **code)
    planned = study.plan()
    if options.plan or not options.json:
        say(dumps(planned.to_json()) if options.json else planned)
    if options.plan:
        return 0
    try:
        result = carried_out(study, options)
    except Stopped as stopped:
        raise Stopped(f"{stopped}: {program()} study {options.file}") from None
    say(dumps(result.to_json()) if options.json else f"\n{result}\n\nstudy: {study.folder}")
    return FAILED if result.failures else DONE


def carried_out(study: Study, options: argparse.Namespace) -> StudyResult:
    """Train what is left of a study: under a progress bar, or by its workers, a line for each."""
    if options.workers is not None:

        def told(arm: Arm, seed: int) -> None:
            say(f"{arm.name}, seed {seed}", error=True)

        return study.run(workers=options.workers, threads=options.threads, on_arm=told)
    from stackwise.progress import bar_over
    from stackwise.study import spent
    from stackwise.training.start import settled

    jobs = [*study.tuning_jobs(), *study.jobs({})]
    planned = [spent(settled(job.experiment, study.placement)[0])["flops"] for job in jobs]
    before = accumulate(planned, initial=0.0)
    with bar_over(sum(planned)) as bar:
        result = study.run(
            threads=options.threads,
            on_step=bar.on_step,
            on_arm=lambda arm, seed: bar.enter(f"{arm.name}, seed {seed}", next(before)),
        )
        bar.end()
    return result
