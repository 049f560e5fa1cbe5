"""What probing costs beside training, measured in one run: seconds and memory.

    python benchmarks/probe_cost.py [PRESET] [ROUNDS]      of `small`, two of each, by default

A training step, a look without statistics and one with them, in turn, of the preset's own rack,
windows and placement; how often a run makes each follows from the experiment. Printed are the share
of looks in a run's seconds beside the planned share of FLOPs, what statistics add to a look and to
the step before it, the drift over a stage, and the memory of a look beside a step's. Bounds, each a
ratio of one run: looks and statistics take at most 3 % of a step in the mean; a look holds no more
memory than a step.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch

import stackwise as sw
from stackwise.memory.heap import taken
from stackwise.probing import asked_probes, look_count
from stackwise.report import bytes_text, table
from stackwise.training.block_statistics import Moves
from stackwise.training.borders import enter_stage, setting_for
from stackwise.training.opening import open_work
from stackwise.training.stage_drift import read_path
from stackwise.training.start import create_run
from stackwise.training.step import StepNumbers, Trainee, training_step
from stackwise.training.watch import look, tell_statistics, watched_blocks
from stackwise.training.work import Work

MOST = 0.03


def seconds(function: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def peak_bytes(function: Callable[[], object]) -> float:
    """What one call takes at its highest moment, above what was there."""
    with taken() as found:
        function()
    return float(found.most or 0)


def looked(work: Work, trainee: Trainee, numbers: StepNumbers, told: bool) -> None:
    """A look, with the averaged weights, as `watch` makes it; with statistics or without."""
    moves = Moves(trainee.named, trainee.optimizer) if told else None
    average = trainee.average
    with (
        average.applied() if average is not None else nullcontext(),
        watched_blocks(work, trainee) if told else nullcontext(dict) as found,
    ):
        look(work, trainee)
    if moves is not None:
        tell_statistics(work, trainee, found(), numbers, moves)


def measured(exp: sw.Experiment, placement: sw.Placement, rounds: int) -> dict[str, float]:
    """Seconds of a step, of looks, of drift; and bytes."""
    found: dict[str, list[float]] = {}
    with open_work(create_run(exp, placement)) as work:
        trainee = enter_stage(work, 0)
        setting = setting_for(work, trainee)
        numbers = training_step(work.rack, work.noisy_batch(0, 0), setting, trainee, 1e-4)
        work.at.step = work.at.total_steps = 1
        for step in range(1, 1 + rounds):
            noisy = work.noisy_batch(0, step)
            ways = {
                "step": lambda: training_step(work.rack, noisy, setting, trainee, 1e-4),  # noqa: B023
                "look": lambda: looked(work, trainee, numbers, False),
                "told": lambda: looked(work, trainee, numbers, True),
                "drift": lambda: read_path(work, 0, 0),
            }
            for name, way in ways.items():
                found.setdefault(name, []).append(seconds(way))
        for name in ("step", "told"):
            found[f"{name} bytes"] = [peak_bytes(ways[name])]
    return {name: statistics.median(values) for name, values in found.items()}


def main(preset: str = "small", rounds: str = "2") -> int:
    """Measure, print, judge."""
    exp, made = sw.Experiment.preset(preset), sw.stages(preset)
    steps = sum(stage.tokens or 0 for stage in made) // (exp.optim.batch * exp.data.seq_len)
    looks = sum(look_count(exp, made, number) for number in range(len(made)))
    with tempfile.TemporaryDirectory() as folder:
        place = sw.Placement.preset(preset).replace(runs_dir=folder)
        one = measured(exp, place, int(rounds))
    share = looks * one["told"] / (steps * one["step"])
    planned = asked_probes(exp, made)
    rows = [
        ["a step", f"{one['step']:.2f} s", bytes_text(int(one["step bytes"]))],
        ["a look", f"{one['look']:.2f} s", ""],
        ["a look with statistics", f"{one['told']:.2f} s", bytes_text(int(one["told bytes"]))],
        ["the path once, for drift", f"{one['drift']:.2f} s", ""],
    ]
    print(f"{exp}: {steps} steps, {looks} looks, {torch.get_num_threads()} threads")
    print(table(["", "seconds", "memory above what lasts"], rows))
    print(f"looks with statistics: {100 * share:.2f} % of the seconds of all steps")
    print(f"planned, by FLOPs: {100 * planned.frac:.2f} %, bound {100 * planned.bound:.0f} %")
    print(f"statistics add {100 * (one['told'] / one['look'] - 1):.1f} % to a look")
    wrong = share > MOST or one["told bytes"] > one["step bytes"]
    print("over the bound" if wrong else "within the bounds")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
