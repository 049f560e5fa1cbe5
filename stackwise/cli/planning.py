"""Commands that say what training will take: `calibrate`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

CALIBRATE_MORE = """What is measured are pieces of a training step: matrix products, attention, what
else a block does, optimizers, formats of frozen weights, memory, and the disk of --folder. It takes
about a minute; close other programs meanwhile. Plans for `--hardware this` read the file.

examples:
  stackwise calibrate
  stackwise calibrate --folder runs --threads 8"""

Add = Callable[..., argparse.ArgumentParser]


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
    print(found)
    path = calibration_path() if options.output is None else Path(options.output)
    print(f"written to {path}")
    return 0
