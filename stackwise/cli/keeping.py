"""What keeps runs: options of commands that train, `fetch`, and `runs --prune`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from stackwise.printing import say

PRUNE_MORE = """With --prune: what finished runs do not need any more, and how many bytes that is;
nothing is removed before --yes. Those that are live, paused, stopped or damaged are left alone, and
so are those tagged `keep` (stackwise label RUN --tag keep).

examples:
  stackwise runs --prune
  stackwise runs --prune --keep-stages --yes
  stackwise runs --prune --weights --keep-last 3 --keep-best 1 --yes"""
FETCH_MORE = """Every byte is compared with its hash before the run is there. Only fetch what you
trust to be yours: a run says what is trained, and stackwise resume does that.

examples:
  stackwise fetch s3://bucket/runs/toy-grow-1a2b3c4d
  stackwise resume toy-grow-1a2b3c4d --mirror s3://bucket/runs"""


def add_keeping(command: argparse.ArgumentParser, launched: str | None = None) -> None:
    """Where checkpoints are copied, what is called at the end, when it is started again.

    Args:
        command: The command.
        launched: What makes it a process of its own, which alone can be started again.
    """
    command.add_argument(
        "--mirror",
        metavar="URL",
        help="copy each checkpoint to this fsspec address: s3://bucket/runs, file:///mnt/disk "
        "(default: STACKWISE_MIRROR; '' for none)",
    )
    command.add_argument(
        "--alert",
        metavar="CMD",
        help="a command, without a shell, that is called when it finishes, fails or dies, with "
        "STACKWISE_EVENT, STACKWISE_RUN, ... and JSON on its input (default: STACKWISE_ALERT)",
    )
    if launched is None:
        return
    of = "" if launched == "launch" else f", with {launched}"
    command.add_argument(
        "--watchdog",
        type=float,
        metavar="MINUTES",
        help="kill it after so long without a sign of work, or ten of its usual steps, and go on "
        f"from its last checkpoint; three times at most without a new one{of} (default: never)",
    )
    command.add_argument(
        "--restart-died",
        action="store_true",
        help=f"go on so, too, when its process was ended by a signal{of}",
    )


def watchdog_in(options: argparse.Namespace) -> Any:
    """The watchdog that a command line asks for; None for none."""
    from stackwise.detached.watchdog import Watchdog

    if options.watchdog is None and not options.restart_died:
        return None
    return Watchdog(minutes=options.watchdog, died=options.restart_died)


def add_fetch(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The command and its options."""
    command = add("fetch", fetch_command, "make a run's folder from its mirror", FETCH_MORE)
    command.add_argument("url", metavar="URL", help="what --mirror was, or the run's folder there")
    command.add_argument("--runs-dir", default="runs", help="folder of the runs (default runs)")


def fetch_command(options: argparse.Namespace) -> int:
    """Make a run's folder from its mirror."""
    from stackwise.mirrors.fetching import fetch
    from stackwise.report import called, program

    run = fetch(options.url, options.runs_dir)
    say(f"{run.id}: {run.state}, step {run.status().get('step') or 0}; {run.path}")
    say(f"go on with it with: {program()} resume {called(run)}")
    return 0


def add_prune(command: argparse.ArgumentParser) -> None:
    """The options of `runs` that remove what is not needed."""
    command.add_argument(
        "--prune", action="store_true", help="show what finished runs do not need; --yes removes it"
    )
    command.add_argument("--yes", action="store_true", help="with --prune: really")
    command.add_argument(
        "--keep-stages",
        action="store_true",
        help="with --prune: keep the ends of stages, so that runs can still be forked",
    )
    command.add_argument(
        "--weights", action="store_true", help="with --prune: the weights of older runs, too"
    )
    for name, which in (("last", "newest"), ("best", "best by held-out bits per byte")):
        command.add_argument(
            f"--keep-{name}",
            type=int,
            default=1,
            metavar="N",
            help=f"with --weights: keep those of the {which} N (default 1)",
        )


def prune_command(options: argparse.Namespace) -> int:
    """Show what would go of each run, or remove it."""
    from stackwise.pruning import prune
    from stackwise.report import bytes_text

    found = prune(
        options.runs_dir,
        weights=options.weights,
        keep_last=options.keep_last,
        keep_best=options.keep_best,
        keep_stages=options.keep_stages,
        yes=options.yes,
    )
    for one in found:
        what = f"left alone: {one.left}" if one.left else ", ".join(one.what) or "nothing to remove"
        say(f"{one.id}: {bytes_text(one.bytes)}, {what}")
    total = bytes_text(sum(one.bytes for one in found))
    print(f"{total} removed" if options.yes else f"{total} would be removed; --yes removes it")
    return 0
