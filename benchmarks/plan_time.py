"""Step times as planned against step times of real runs, on the CPU at hand.

    python benchmarks/plan_time.py                      the declared grid
    python benchmarks/plan_time.py --random 12 --seed 3 cells that are not in it
    python benchmarks/plan_time.py --clock cpu          where other programs use the machine, too

Each cell is a run of a small experiment through `sw.train`; its step time is the median of the
differences of `run.metrics()["seconds"]`, without the first two of a stage. What it is compared
with comes from probes that `stackwise calibrate` takes, those that the cell depends on, taken right
before each of its runs and after, since machines drift; the rest from one round at the start.

Only steps count during which other programs took at most a tenth of the machine, where there are
three or more of them; a round of probes that had less of it is taken again, twice at most, and the
quietest is kept. A cell is run twice, and a third time where the two differ by more than a tenth,
its probes by more than a quarter, or others took more of the machine in one: one run of the same
step may take a fifth longer than the next, as its tensors happen to lie in memory. Where others
never rest, `--clock cpu` compares CPU time of one thread with CPU time of one thread, calibration
included.

It exits with 1 unless every cell is within 30 %: predicted / measured from 1/1.3 to 1.3.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bars import publish

import stackwise as sw
from stackwise.planner.calibrate import Samples, measure_round
from stackwise.planner.calibration import Calibration, facts_of
from stackwise.planner.probe import Probe
from stackwise.planner.probes import probes_for
from stackwise.report import table
from stackwise.training.start import threads_of

LIMIT = 1.3
QUIET, LEAST_QUIET, TURNS, TRIES = 0.10, 3, 3, 3
APART, PROBES_APART = 1.1, 1.25  # two runs of a cell, and its probes; else there is a third
DROPPED = 2
SECONDS, FEWEST, MOST = 1.2, 5, 30  # of the steps of a run
CPU = torch.device("cpu")
HEAD = 64
ALONE = multiprocessing.get_context("forkserver")
ALONE.set_forkserver_preload(["stackwise.planner.probes", "stackwise.training.run"])


@dataclass(frozen=True)
class Cell:
    """One shape and one way to carry it out.

    Attributes:
        curriculum: `end_to_end`, or one of which the last of three stages counts.
        frozen: What the other stacks are frozen to; None: as they train.
        trunk: Where the input of the stage comes from.
        weights: `float32`, or `bfloat16/master` or `bfloat16/stochastic`.
    """

    width: int
    seq: int
    batch: int
    compute: str = "float32"
    blocks: int = 2
    curriculum: str = "end_to_end"
    frozen: str | None = None
    trunk: str = "recompute"
    checkpointing: bool = False
    micro: int | None = None
    optimizer: str = "adamw"
    grads: str = "whole"
    weights: str = "float32"
    objective: str = "clm"
    vocab: int | None = None
    average: bool = True

    def experiment(self, steps: int) -> sw.Experiment:
        """Whose last stage has so many steps."""
        frozen = self.curriculum != "end_to_end"
        weights, _, rounding = self.weights.partition("/")
        split = {"split": (1.0, 1.0, float(steps))} if frozen else {}
        return sw.Experiment(
            title="cell",
            rack={
                "stacks": 3 if frozen else 1,
                "blocks_per_stack": 1 if frozen else self.blocks,
                "d_model": self.width,
                "heads": max(1, self.width // HEAD),
                "vocab": self.vocab,
            },
            objective=self.objective,
            curriculum={"name": self.curriculum, **split},
            data={"seq_len": self.seq},
            optim={
                "name": self.optimizer,
                "batch": self.batch,
                "grads": self.grads,
                "clip": 1.0 if self.grads == "whole" else None,
                "ema": 0.99 if self.average else None,
                "lr": 1e-4,
            },
            precision={
                "compute": self.compute,
                "weights": weights,
                "rounding": rounding or "master",
                "frozen": self.frozen,
            },
            budget={"tokens": (steps + 2 * frozen) * self.batch * self.seq},
            eval={"points": 1, "windows": 1, "final": 1},
        )

    def placement(self, threads: int | None) -> sw.Placement:
        """How it is carried out."""
        return sw.Placement(
            device="cpu",
            threads=threads,
            micro_batch=self.micro,
            checkpointing=self.checkpointing,
            trunk=self.trunk,
        )

    def depends_on(self, probe: Probe) -> bool:
        """Whether a probe has a part in its step time."""
        kind, _, rest = probe.name.partition("/")
        if kind in ("matmul", "attention", "around", "block", "loss"):
            return rest.split("/")[0] == self.compute
        if kind == "optimizer":
            return rest.split("/")[0] == self.optimizer
        if kind == "dequantise":
            kept = self.frozen or {"float32": "fp32"}.get(self.weights, "bf16")
            return self.curriculum != "end_to_end" and rest == f"{kept}/{self.compute}"
        return kind in ("passing", "embedding", "memory", "fresh", "calls")

    def __str__(self) -> str:
        plain = Cell(self.width, self.seq, self.batch)
        more = [
            f"{key}={value}"
            for key, value in vars(self).items()
            if key not in ("width", "seq", "batch", "compute") and value != getattr(plain, key)
        ]
        return " ".join([f"{self.width} {self.seq}x{self.batch} {self.compute}", *more])


def grid() -> list[Cell]:
    """The declared cells: every width and dtype plain, and each other setting at two widths."""
    cells = []
    for compute in ("float32", "bfloat16"):
        for width, seq, batch in (
            (256, 64, 8),
            (256, 512, 4),
            (512, 128, 8),
            (512, 512, 2),
            (1024, 64, 8),
            (1024, 512, 1),
            (2048, 128, 2),
            (2048, 512, 1),
        ):
            cells.append(Cell(width, seq, batch, compute))
        for width, seq, batch in ((256, 256, 4), (1024, 128, 4)):
            plain = Cell(width, seq, batch, compute)
            left = replace(plain, curriculum="left_to_right")
            right = replace(plain, curriculum="right_to_left")
            cells += [
                replace(plain, checkpointing=True),
                replace(plain, micro=1),
                left,
                replace(left, frozen="nf4"),
                replace(left, frozen="int8", trunk="streamed"),
                replace(left, trunk="streamed"),
                replace(left, trunk="cached"),
                replace(right, frozen="bf16"),
                replace(right, frozen="nf4", checkpointing=True),
                replace(plain, optimizer="adamw8bit"),
                replace(plain, optimizer="lion8bit", grads="in_backward", average=False),
                replace(plain, objective="diffusion"),
                replace(plain, vocab=8192, blocks=1),
            ]
            if compute == "bfloat16":
                cells += [
                    replace(plain, weights="bfloat16/master"),
                    replace(plain, weights="bfloat16/stochastic", optimizer="lion8bit"),
                ]
    return cells


def full_width() -> Cell:
    """A block as wide as those of a 70B rack, as `full_width.py` trains one."""
    return Cell(
        8192,
        512,
        1,
        "bfloat16",
        blocks=1,
        optimizer="lion8bit",
        grads="in_backward",
        weights="bfloat16/stochastic",
        average=False,
    )


def random_cells(count: int, seed: int) -> Iterator[Cell]:
    """Cells anywhere between those of the grid, a function of the seed."""
    draw = random.Random(seed)
    for _ in range(count):
        width = HEAD * draw.randint(3, 32)
        tokens = draw.randint(128, max(256, min(4096, (1 << 20) // width)))
        seq = min(tokens, draw.choice((48, 64, 96, 128, 200, 256, 384, 512, 768)))
        compute = draw.choice(("float32", "bfloat16"))
        curriculum = draw.choice(("end_to_end", "end_to_end", "left_to_right", "right_to_left"))
        frozen = draw.choice((None, "fp16", "bf16", "fp8", "int8", "nf4"))
        low = compute == "bfloat16" and draw.random() < 0.4
        weights = draw.choice(("bfloat16/master", "bfloat16/stochastic")) if low else "float32"
        batch = max(1, tokens // seq)
        cell = Cell(
            width,
            seq,
            batch,
            compute,
            blocks=draw.randint(1, 3),
            curriculum=curriculum,
            frozen=frozen if curriculum != "end_to_end" else None,
            trunk=draw.choice(("recompute", "streamed", "cached"))
            if curriculum == "left_to_right"
            else "recompute",
            checkpointing=draw.random() < 0.3,
            optimizer=draw.choice(("adamw", "adamw", "adamw8bit", "lion8bit")),
            weights=weights,
            objective=draw.choice(("clm", "diffusion")),
            vocab=draw.choice((None, None, 2048, 8192)),
            average=draw.random() < 0.7,
        )
        if draw.random() < 0.2:
            yield replace(cell, grads="in_backward")
        else:
            yield replace(cell, micro=draw.choice((None, None, 1, max(1, batch // 2))))


class Others:
    """The share of the machine that other programs had since the last time it was asked."""

    def __init__(self) -> None:
        self.seen = self._now()

    def share(self) -> float | None:
        """Between 0 and 1; None where the system does not tell."""
        before, self.seen = self.seen, self._now()
        if before is None or self.seen is None:
            return None
        wall, busy, mine = (b - a for a, b in zip(before, self.seen, strict=True))
        return max(0.0, (busy - mine) / wall / (os.cpu_count() or 1))

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        path = Path("/proc/stat")
        if not path.exists():
            return None
        ticks = [int(each) for each in path.read_text().splitlines()[0].split()[1:9]]
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, time.process_time()


def measured(cell: Cell, steps: int, threads: int | None, cpu: bool) -> tuple[float, float]:
    """Seconds of the median step of a cell's last stage, and the others' share meanwhile.

    In a process of its own, as users run theirs: what probes leave in the heap would slow it.
    """
    with ALONE.Pool(1) as pool:
        return pool.apply(trained, (cell, steps, threads, cpu))


def trained(cell: Cell, steps: int, threads: int | None, cpu: bool) -> tuple[float, float]:
    """The same, in this process."""
    exp, others = cell.experiment(steps), Others()
    marks: list[tuple[int, float, float]] = []

    def mark(work: Any, numbers: Any) -> None:
        marks.append((work.at.stage, time.process_time(), others.share() or 0.0))

    with tempfile.TemporaryDirectory(prefix="plan_time-") as folder:
        run = sw.train(exp, cell.placement(threads).replace(runs_dir=folder), on_step=mark)
        frame = run.metrics()
    last = int(frame["stage"].max())
    wall = frame.loc[frame["stage"] == last, "seconds"].to_numpy()  # a running sum
    spent = np.array([at for stage, at, _ in marks if stage == last])
    seconds = np.diff(spent if cpu else wall)[DROPPED - 1 :]
    shares = np.array([share for stage, _, share in marks if stage == last])[DROPPED:]
    quiet = shares <= QUIET
    if quiet.sum() >= LEAST_QUIET:
        seconds, shares = seconds[quiet], shares[quiet]
    return float(np.median(seconds)), float(shares.mean())


@dataclass(frozen=True)
class Compared:
    """A cell's step as planned and as measured.

    Attributes:
        predicted: From all its probes.
        seconds: The median step of the median run.
        others: The share of the machine that other programs had in the quietest run.
        apart: How many times as long the slowest round of probes says as the fastest.
    """

    predicted: sw.StepSeconds
    seconds: float
    others: float
    apart: float


def rates_for(*samples: Samples, whole: Samples) -> sw.Calibration:
    """The rates that a cell depends on from its own samples, the rest from the first round."""
    both = Samples()
    for each in samples:
        for (name, size), found in each.rates.items():
            both.add(name, size, each.units[name], found)
    rates = {(rate.name, rate.size): rate for rate in whole.taken()}
    rates |= {(rate.name, rate.size): rate for rate in both.taken()}
    return Calibration(facts_of(CPU), tuple(rates.values()))


def compared(cell: Cell, whole: Samples, threads: int | None, cpu: bool) -> Compared:
    """A cell beside its plan, run a few times with probes before, between and after."""
    clock: Callable[[], float] = time.process_time if cpu else time.perf_counter
    placement, exp = cell.placement(threads), cell.experiment(1)
    stage = sw.stages(exp)[-1]

    def predicted(*found: Samples) -> sw.StepSeconds:
        return sw.step_seconds(exp, placement, stage, rates_for(*found, whole=whole).hardware())

    def probed() -> Samples:
        chosen = [each for each in probes_for(CPU) if cell.depends_on(each)]
        tries = list[tuple[float, Samples]]()
        for _ in range(TRIES):
            found, others = Samples(), Others()
            with threads_of(placement):
                measure_round(found, CPU, None, clock=clock, probes=chosen)
            tries.append((others.share() or 0.0, found))
            if cpu or tries[-1][0] <= QUIET:
                break
        return min(tries, key=lambda each: each[0])[1]

    steps = DROPPED + min(MOST, max(FEWEST, round(SECONDS / predicted(whole).total)))
    samples, turns = [probed()], list[tuple[float, float]]()
    for number in range(TURNS):
        turns.append(measured(cell, steps, threads, cpu))
        samples.append(probed())
        quiet = [seconds for seconds, share in turns if cpu or share <= QUIET]
        totals = [predicted(found).total for found in samples]
        apart = max(totals) / min(totals)
        alike = len(quiet) > 1 and max(quiet) <= APART * min(quiet)
        if number and alike and apart <= PROBES_APART:
            break
    least = min(share for _, share in turns)
    seconds = statistics.median(quiet or [each for each, share in turns if share == least])
    return Compared(predicted(*samples), seconds, least, apart)


def main() -> int:
    """Print a line for each cell, and write all of it as JSON."""
    options = arguments()
    cpu = options.clock == "cpu"
    threads = 1 if cpu else options.threads
    cells = list(random_cells(options.random, options.seed)) if options.random else grid()
    if options.only:
        cells = [each for each in cells if options.only in str(each)]
    cells += [full_width()] if options.full_width else []
    whole = Samples()
    clock: Callable[[], float] = time.process_time if cpu else time.perf_counter
    with threads_of(sw.Placement(threads=threads)):
        measure_round(whole, CPU, Path(tempfile.gettempdir()), clock=clock)
    rows: list[dict[str, Any]] = []
    for cell in cells:
        turn = compared(cell, whole, threads, cpu)
        step, ratio = turn.predicted, turn.predicted.total / turn.seconds
        rows.append(
            {
                "cell": str(cell),
                "predicted": step.total,
                "measured": turn.seconds,
                "ratio": ratio,
                "others": turn.others,
                "apart": turn.apart,
                "parts": vars(step),
            }
        )
        print(
            f"{ratio:.2f}  {step.total * 1e3:9.1f} ms predicted {turn.seconds * 1e3:9.1f} ms "
            f"measured  others {turn.others:.2f}  probes {turn.apart:.2f}  {cell}",
            flush=True,
        )
    ratios = sorted(row["ratio"] for row in rows)
    errors = sorted(max(ratio, 1 / ratio) - 1 for ratio in ratios)
    summary = {
        "cells": len(ratios),
        "clock": options.clock,
        "least": ratios[0],
        "median": statistics.median(ratios),
        "most": ratios[-1],
        "error_median": statistics.median(errors),
        "error_90": errors[min(len(errors) - 1, int(0.9 * len(errors)))],
        "error_most": errors[-1],
        "within": sum(1 / LIMIT <= ratio <= LIMIT for ratio in ratios),
    }
    found = {**facts_of(CPU), "threads": threads, **summary, "rows": rows}
    Path(options.output).write_text(json.dumps(found, indent=1) + "\n")
    head = ["cells", "predicted / measured", "error, median", "90 %", "largest", "within 30 %"]
    line = [
        str(len(ratios)),
        f"{ratios[0]:.2f} .. {summary['median']:.2f} .. {ratios[-1]:.2f}",
        *(f"{100 * summary[key]:.0f} %" for key in ("error_median", "error_90", "error_most")),
        f"{summary['within']} of {len(ratios)}",
    ]
    print(table(head, [line]))
    if summary["within"] < len(ratios):
        return 1
    if options.publish:
        publish("time", ratios)
    return 0


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description="Step times as planned against real runs.")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="so many other cells")
    parser.add_argument("--seed", type=int, default=0, help="of the random cells (default 0)")
    parser.add_argument("--only", help="cells whose name has this in it")
    parser.add_argument(
        "--full-width", action="store_true", help="and a block 8192 wide: minutes, and 8 GiB"
    )
    parser.add_argument("--threads", type=int, default=None, help="default: torch's own choice")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument(
        "--publish", action="store_true", help="keep the error bar that plans are shown with"
    )
    parser.add_argument("--output", default="plan_time.json", help="default: plan_time.json")
    given = parser.parse_args()
    if given.publish and (given.random or given.only or given.clock == "cpu"):
        parser.error("--publish: is for the whole grid, on the wall's clock")
    return given


if __name__ == "__main__":
    sys.exit(main())
