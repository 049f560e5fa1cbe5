"""Commands that check the machine: `doctor`."""

from __future__ import annotations

import argparse


def doctor_command(options: argparse.Namespace) -> int:
    """Say whether to trust StackWise on this machine: 0 if all is good, 1 if something failed."""
    from stackwise.cli.moving import size
    from stackwise.planner.doctor import doctor

    asked = None if options.memory is None else size(options.memory, "--memory", "memory")
    report = doctor(
        quick=options.quick,
        device=options.device,
        folder=options.folder,
        output=options.output,
        memory_bytes=asked,
        tell=_now,
    )
    return 0 if report.ok else 1


def _now(line: str) -> None:
    """Print a line at once, also into a file."""
    print(line, flush=True)
