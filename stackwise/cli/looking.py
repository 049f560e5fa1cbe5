"""Commands that look at what is there: `runs`, `eval`, `presets`, `lab`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackwise.cli.keeping import prune_command
from stackwise.printing import say


def runs_command(options: argparse.Namespace) -> int:
    """List the runs, newest first."""
    from stackwise.report import bytes_text, program, table
    from stackwise.runs import runs_in
    from stackwise.runs.disk_use import bytes_of

    if options.prune:
        return prune_command(options)
    if given := [name for name in ("yes", "keep_stages", "weights") if getattr(options, name)]:
        raise ValueError(f"--{given[0].replace('_', '-')}: goes with --prune")
    folder = Path(options.runs_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{options.runs_dir}: is no folder; name the one that holds the runs")
    found = runs_in(folder)
    if not found:
        say(f"no runs in {options.runs_dir}; make one with: {program()} run toy")
        return 0
    head = ["run", "state", "stage", "step", "bits per byte", "peak memory", "disk", "predicted"]
    say(table(head, [run_row(run.summary()) for run in found]))
    print(f"on disk together: {bytes_text(bytes_of(found))}")
    for run in found:
        why = run.error()
        if why:
            say(f"{run.id}: {why}")
    return 0


def run_row(found: Mapping[str, Any]) -> list[str]:
    """What the list says of one run's summary; of a damaged one, that it is."""
    from stackwise.printing import printable
    from stackwise.report import bytes_text, number

    called = f"{found['id']} ({found['name']})" if found["name"] else found["id"]
    try:
        if found["problem"] is None:
            return [
                printable(called),
                printable(str(found["state"])) + (", pruned" if found["pruned"] else ""),
                f"{(found['stage'] or 0) + 1}/{found['stages']}",
                str(found["step"] or 0),
                number(found["bits_per_byte"]),
                bytes_text(found["peak_bytes"]),
                bytes_text(found["disk_bytes"]),
                bytes_text(found["disk_predicted_bytes"]),
            ]
    except (TypeError, ValueError, ArithmeticError):  # what a file of it holds is no number
        pass
    return [printable(called), "damaged", "", "", "", "", bytes_text(found["disk_bytes"]), ""]


def eval_command(options: argparse.Namespace) -> int:
    """Score a run's rack on its held-out text: without options, the figure that it reported."""
    from stackwise.report import beside
    from stackwise.runs import attach
    from stackwise.training.score import evaluate_run

    for name, low, high in (("draws", 1, 1024), ("seed", 0, (1 << 31) - 1)):
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"--{name}: {value} must be {low} or more, and at most {high}")
    run = attach(options.run, options.runs_dir)
    score = evaluate_run(
        run,
        best=options.best,
        raw=options.raw,
        seed=options.seed,
        draws=options.draws,
        device=options.device,
        trust=options.trust,
    )
    print(
        f"{score.bits_per_byte:.4f} ± {score.stderr:.4f} bits per byte, "
        f"{score.nats_per_token:.4f} nats per token, {score.tokens} tokens of {score.bytes} bytes"
    )
    say(score.note)
    say(beside(run))
    return 0


def presets_command(options: argparse.Namespace) -> int:
    """List the shipped experiments."""
    from stackwise.config import Experiment, presets
    from stackwise.memory.bytes import cache_bytes_per_token
    from stackwise.memory.flops import vocab_size
    from stackwise.model.count import count_parameters
    from stackwise.model.shape import stack_ids
    from stackwise.report import program, table

    rows = []
    for name in presets():
        exp = Experiment.preset(name)
        count = count_parameters(exp.rack, exp.attention, vocab_size(exp))
        shape = f"{exp.rack.stacks} x {exp.rack.blocks_per_stack}"
        kinds = [exp.attention.choice, exp.objective.choice]
        cache = f"{cache_bytes_per_token(exp, stack_ids(exp.rack)):,}"
        row = [name, shape, str(exp.rack.d_model), *kinds, f"{count:,}", cache]
        rows.append((count, row))
    head = ["preset", "stacks x blocks", "width", "attention", "objective", "parameters"]
    head += ["KV cache, bytes/token"]
    print(table(head, [row for _, row in sorted(rows)]))
    print(f"\ntrain one with: {program()} run toy")
    return 0


def lab_command(options: argparse.Namespace) -> int:
    """Open JupyterLab, on the loopback address, with its usual token."""
    import importlib.util
    import subprocess

    from stackwise.data.errors import missing_package

    if importlib.util.find_spec("jupyterlab") is None:
        raise missing_package("stackwise lab", "jupyterlab")
    folder = Path("notebooks")
    command = [sys.executable, "-P", "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # as in a container; only this machine can reach it
    return subprocess.call([*command, str(folder)] if folder.is_dir() else command)
