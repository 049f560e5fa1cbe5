"""Commands that say what training will take, before it begins: `plan`, `advise`, `calibrate`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from stackwise.cli.settings import add_settings
from stackwise.exit_codes import DOES_NOT_FIT
from stackwise.printing import say

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement
    from stackwise.planner.hardware import Hardware

MOST_TOKENS = 10**15  # of a text; as of a budget
PLAN_MORE = """Nothing is built or read. HARDWARE is a card of the table (h200, h100-80, a100-80,
l40s-48, rtx-4090-24), `this` for the machine at hand as `stackwise calibrate` measured it, or a
YAML file of a card. Exit code 3 if it does not fit; what to change is printed then.

examples:
  stackwise plan llama-2-70b --hardware h200
  stackwise plan llama-3-70b placement.trunk=streamed --hardware rtx-4090-24
  stackwise plan mine.yaml optim.name=adamw8bit --fit
  stackwise plan mine.yaml placement.trunk=cached data.distinct_epochs=2 --text-tokens 4200000"""
ADVISE_MORE = """Racks from 124 million to 405 billion parameters, each with the curricula that can
train it, from random weights and from an imported model.

examples:
  stackwise advise --hardware h200 --days 14
  stackwise advise --days 2"""

CALIBRATE_MORE = """What is measured are pieces of a training step: matrix products, attention, what
else a block does, optimizers, formats of frozen weights, memory, and the disk of --folder. It takes
about a minute; close other programs meanwhile. Plans for `--hardware this` read the file.

examples:
  stackwise calibrate
  stackwise calibrate --folder runs --threads 8"""

Add = Callable[..., argparse.ArgumentParser]


def add_plan(add: Add) -> None:
    """The command `plan` and its options."""
    text = "what training will take: memory, disk, FLOPs and time of every stage"
    command = add("plan", plan_command, text, PLAN_MORE)
    add_settings(command)
    _on_hardware(command)
    command.add_argument(
        "--fit", action="store_true", help="find the largest stacks and micro-batches that fit"
    )
    command.add_argument(
        "--all", action="store_true", help="show every stage, however many (not with --fit)"
    )
    command.add_argument(
        "--text-tokens",
        type=int,
        metavar="N",
        help="of the training text, which bound a cache whose rows data.distinct_epochs repeats",
    )
    command.add_argument("--json", action="store_true", help="print all of it as JSON")


def add_advise(add: Add) -> None:
    """The command `advise` and its options."""
    text = "what racks, curricula and tokens some days of a machine buy"
    command = add("advise", advise_command, text, ADVISE_MORE)
    _on_hardware(command)
    command.add_argument("--days", type=float, default=14.0, help="how many (default 14)")


def _on_hardware(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--hardware", default="this", help="on what (default: this machine, as it was measured)"
    )
    command.add_argument(
        "--host-gb", type=float, metavar="GB", help="memory of the host; default: as the table says"
    )


def add_calibrate(add: Add) -> None:
    """The command `calibrate` and its options."""
    text = "measure how fast this machine is, for plans of what training takes"
    command = add("calibrate", calibrate_command, text, CALIBRATE_MORE)
    command.add_argument(
        "--folder", default=".", help="on the disk that runs will be kept on (default: here)"
    )
    command.add_argument(
        "--output", metavar="FILE", help="where to write; default: the user's cache folder"
    )
    command.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="default: a card if there is",
    )
    command.add_argument("--threads", type=int, help="of the CPU; default: torch's own choice")
    command.add_argument(
        "--rounds", type=int, default=4, help="how often all is measured (default 4)"
    )


def calibrate_command(options: argparse.Namespace) -> int:
    """Measure this machine, print a table, write a file."""
    from pathlib import Path

    from stackwise.planner.calibrate import calibrate
    from stackwise.planner.calibration import calibration_path

    if not Path(options.folder).is_dir():
        raise ValueError(
            f"--folder: {options.folder} is no folder; name one on the disk of the runs"
        )
    found = calibrate(
        options.folder,
        output=options.output,
        device=options.device,
        threads=options.threads,
        rounds=options.rounds,
    )
    say(found)
    path = calibration_path() if options.output is None else Path(options.output)
    say(f"written to {path}")
    return 0


def plan_command(options: argparse.Namespace) -> int:
    """Print a plan; say by the exit code whether it fits."""
    from stackwise.cli.settings import settings
    from stackwise.jsontext import dumps
    from stackwise.own_code import load_code
    from stackwise.planner.fit import fits
    from stackwise.planner.plan import plan
    from stackwise.planner.shown import fits_text, plan_text

    if options.fit and options.all:
        raise ValueError("--all: shows all stages of a plan, and --fit shows none; leave one out")
    load_code(*options.code)
    exp, placement = settings(options.experiment, options.changes)
    machine = machine_of(options)
    samples = samples_of(exp, placement, options.text_tokens, machine)
    if options.fit:
        found = fits(exp, placement, machine, epoch_samples=samples)
        say(
            dumps([fit.to_json() for fit in found])
            if options.json
            else fits_text(found, exp, machine)
        )
        return 0 if found else DOES_NOT_FIT
    made = plan(exp, placement, hardware=machine, epoch_samples=samples)
    say(dumps(made.to_json()) if options.json else plan_text(made, every=options.all))
    return 0 if made.fits else DOES_NOT_FIT


def advise_command(options: argparse.Namespace) -> int:
    """Print what the days buy."""
    from stackwise.planner.advise import advise

    say(advise(machine_of(options), options.days))
    return 0


def samples_of(exp: Experiment, placement: Placement, tokens: int | None, machine: Hardware) -> int:
    """Samples of a text of so many tokens: as many whole batches as there are."""
    from stackwise.curriculum import stages
    from stackwise.errors import short
    from stackwise.memory.disk import ENDLESS
    from stackwise.planner.timed import timed
    from stackwise.stage import trunk_of

    if tokens is None:
        return ENDLESS
    made = stages(timed(exp, placement, hardware=machine))
    caches = placement.trunk == "cached" and any(map(trunk_of, made))
    if not caches or exp.data.distinct_epochs is None:
        raise ValueError(
            "--text-tokens: only a cache of rows that repeat depends on it; leave it out, or set "
            "placement.trunk=cached and data.distinct_epochs, of a curriculum with a trunk"
        )
    batch, length = exp.optim.batch, exp.data.seq_len
    if tokens > MOST_TOKENS:
        raise ValueError(f"--text-tokens: {short(tokens)} must be {MOST_TOKENS} or less")
    if tokens < batch * length:
        raise ValueError(
            f"--text-tokens: {tokens} are less than one batch of {batch} samples of {length} tokens"
        )
    return tokens // length // batch * batch


def machine_of(options: argparse.Namespace) -> Hardware:
    """The hardware that is asked for."""
    from stackwise.planner.hardware import hardware_called

    host = None if options.host_gb is None else options.host_gb * 1e9
    return hardware_called(options.hardware, host_bytes=host)
