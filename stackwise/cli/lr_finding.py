"""The command that looks for learning rates: `lr-find`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from stackwise.cli.settings import add_settings
from stackwise.printing import say

MORE = """The rate rises step by step on real batches of each stage, with what trains and what is
frozen there, and the loss says where it is too high. What is suggested is a tenth of the rate at
which the loss is lowest: where to begin a grid. Nothing is written.

A stage begins where a run's would: at the end of the stage before as RUN kept it, or after the
stages before have trained --lead-steps each at optim.lr.

examples:
  stackwise lr-find toy
  stackwise lr-find toy curriculum=left_to_right --stage 2
  stackwise lr-find mine.yaml optim.name=muon --steps 200 --high 0.3
  stackwise lr-find mine.yaml --run mine-grow-1a2b3c4d --json"""

Add = Callable[..., argparse.ArgumentParser]


def add_lr_find(add: Add) -> None:
    """The command `lr-find` and its options."""
    command = add("lr-find", lr_find_command, "look for the learning rate of each stage", MORE)
    add_settings(command)
    command.add_argument("--stage", type=int, metavar="N", help="one stage; default: all")
    command.add_argument(
        "--run", metavar="RUN", help="a run whose kept ends of stages later ones begin with"
    )
    command.add_argument("--runs-dir", default="runs", help="folder of the runs (default runs)")
    command.add_argument("--low", type=float, default=1e-6, help="the first rate (default 1e-6)")
    command.add_argument("--high", type=float, default=1.0, help="the last rate (default 1)")
    command.add_argument("--steps", type=int, default=100, help="of the ramp (default 100)")
    command.add_argument(
        "--lead-steps",
        type=int,
        metavar="N",
        help="of each stage before, where no run kept its end; default: as many as --steps",
    )
    command.add_argument("--json", action="store_true", help="print every step as JSON")


def lr_find_command(options: argparse.Namespace) -> int:
    """Print what was done, a table, and what to set."""
    from stackwise.cli.settings import settings
    from stackwise.jsontext import dumps
    from stackwise.lr_range import lr_find
    from stackwise.own_code import load_code
    from stackwise.runs import attach

    load_code(*options.code)
    exp, placement = settings(options.experiment, options.changes)
    tell = partial(say, error=options.json)
    found = lr_find(
        exp,
        placement,
        stage=options.stage,
        run=None if options.run is None else attach(options.run, options.runs_dir),
        low=options.low,
        high=options.high,
        steps=options.steps,
        lead_steps=options.lead_steps,
        tell=tell,
    )
    if options.json:
        say(dumps(found.to_json()))
        return 0
    say(f"\n{found}\n")
    for each in found.stages:
        say(f"stage {each.stage} ({each.name}): {each.advice}")
    if len(found.stages) > 1 and found.suggested is not None:
        say(f"all stages have one rate; the lowest serves them: optim.lr={found.suggested:g}")
    return 0
