"""How long the workbench takes to list and open runs, and what a live tick costs.

    python benchmarks/workbench.py              prints a table and exits 1 if a bound is missed
    python benchmarks/workbench.py --million    also reads a run of a million steps, 740 MB

A hundred finished runs of 80 layers, 2000 steps and 200 looks at held-out text are written as the
trainer writes them. Listed: the table of all of them. Opened: the overlay of all, and one run's
whole figure. Each is the first of its kind in the process, with all modules loaded, since a
notebook has loaded them by then. Bounds: a list in 1 s, an opening in 2 s, a tick of 200 kB.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import stackwise as sw
from stackwise.report import table
from stackwise.runs import RunWriter
from stackwise.training.start import create_run
from stackwise_widgets.charts import (
    LiveChart,
    Reader,
    list_runs,
    overlay,
    run_figure,
    run_still,
    view_of,
)
from stackwise_widgets.charts.brief import briefs_in

RUNS, STACKS, EACH, STEPS, LOOKS = 100, 16, 5, 2000, 200
LIST_SECONDS, OPEN_SECONDS, TICK_BYTES = 1.0, 2.0, 200_000
CURRICULA = ("left_to_right", "grow", "end_to_end", "block_coordinate")


class Counting:
    """Stands where a page would, and counts what is sent to it."""

    comm_id = "counting"

    def __init__(self) -> None:
        self.bytes = 0

    def send(self, data: Any = None, metadata: Any = None, buffers: Any = None) -> None:
        """Count a message: its JSON, and what travels beside it."""
        self.bytes += len(json.dumps(data)) + len(json.dumps(metadata or {}))
        self.bytes += sum(memoryview(buffer).nbytes for buffer in buffers or ())

    def on_msg(self, call: Any) -> None:
        """Nobody answers."""

    def close(self, *args: Any, **more: Any) -> None:
        """Nothing to close."""


def experiment(number: int) -> sw.Experiment:
    """One of several curricula, each with its own seeds."""
    return sw.Experiment(
        title="listed",
        rack={"stacks": STACKS, "blocks_per_stack": EACH, "d_model": 8, "heads": 1},
        curriculum=CURRICULA[number % len(CURRICULA)],
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 8},
        optim={"batch": 2},
        budget={"tokens": STEPS * 16},
        eval={"points": LOOKS},
        seed=number // len(CURRICULA),
    )


def write_run(folder: Path, number: int, steps: int = STEPS) -> sw.Run:
    """A run as the trainer leaves it, with made-up numbers."""
    exp = experiment(number)
    run = create_run(exp, sw.Placement(runs_dir=str(folder), device="cpu"))
    draw = np.random.default_rng(number)
    with RunWriter(run.path) as writer:
        done = 0
        for at, stage in enumerate(run.stages()):
            count = stage["tokens"] // 16
            writer.event("stage_started", stage=at, name=stage["name"])
            for step in range(done + 1, done + count + 1):
                writer.metric(row_of(at, step, step - done, draw))
                if step * LOOKS // steps > (step - 1) * LOOKS // steps or step == done + count:
                    writer.event("eval", **look_of(at, step, stage, draw))
            done += count
            kinds = dict.fromkeys(("weights", "gradients", "optimizer", "average"), 1 << 20)
            writer.event("memory", stage=at, **kinds, activations=1 << 22, peak=1 << 23)
        writer.status(stage=at, step=done, loss=2.0, seconds_left=0.0)
        writer.event("result", **result_of(done))
    return run


def row_of(stage: int, step: int, stage_step: int, draw: np.random.Generator) -> dict[str, Any]:
    """The metrics of one step."""
    return {
        "step": step, "stage": stage, "stage_step": stage_step, "tokens": step * 16,
        "flops": step * 1e9, "loss": 2 + 4 * math.exp(-step / 300) + 0.3 * draw.random(),
        "lr": 1e-3, "grad_norm": draw.random(), "masked_frac": draw.random(),
        "seconds": step * 0.1, "embedding_grad_norm": draw.random(),
        "head_grad_norm": draw.random(), "block_grad_norms": draw.random(STACKS * EACH).tolist(),
    }  # fmt: skip


def look_of(at: int, step: int, stage: dict[str, Any], draw: np.random.Generator) -> dict[str, Any]:
    """One look by depth."""
    exits = (3 + draw.random(1 + EACH * len(stage["path"]))).tolist()
    return {
        "stage": at, "step": step, "tokens": step * 16, "flops": step * 1e9,
        "seconds": step * 0.1, "loss": exits[-1], "bits_per_byte": exits[-1] / math.log(2),
        "exit_losses": exits,
    }  # fmt: skip


def result_of(steps: int) -> dict[str, Any]:
    """What it came to."""
    return {
        "bits_per_byte": 4.3, "nats_per_token": 3.0, "stderr": 0.01, "tokens": 1000, "bytes": 1000,
        "estimate": "nelbo", "note": "upper bound", "parameters": 1, "trained_tokens": steps * 16,
        "epochs": 1.0, "flops": steps * 1e9, "probe_flops": 0.0, "peak_bytes": 1 << 23,
        "seconds": steps * 0.1, "entropy_bits_per_byte": None, "grows_left": False,
        "depth_losses": [3.0] * (1 + STACKS * EACH),
    }  # fmt: skip


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what it gave."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def loaded(folder: Path) -> None:
    """Use everything once on another run, so that no import is measured."""
    run = write_run(folder, 0)
    view = view_of(run)
    for made in (run_figure(view), overlay([run]), LiveChart(view).figure):
        made.to_dict()
    run_still(view)
    list_runs(folder)


def one_tick(run: sw.Run, folder: Path) -> tuple[float, float, int]:
    """Seconds to read and to send, and bytes of, the largest tick there is: a run after nothing."""
    exp = experiment(1).replace(seed=99)
    empty = view_of(create_run(exp, sw.Placement(runs_dir=str(folder), device="cpu")))
    reading, view = timed(lambda: view_of(run))
    chart, largest = LiveChart(empty), 0
    counting = Counting()
    chart.figure.comm = counting
    sending, drawn = timed(lambda: chart.update(view))
    assert drawn
    for change in (lambda: None, lambda: setattr(chart, "x", "flops"),
                   lambda: setattr(chart, "heat", "grad_norm")):  # fmt: skip
        change()
        largest, counting.bytes = max(largest, counting.bytes), 0
    return reading, sending, largest


def million_steps(folder: Path) -> tuple[float, float]:
    """Seconds to read a million steps of 80 layers, and then a tick that finds nothing new."""
    import pyarrow as pa

    from stackwise.runs.metrics import END_OF_STREAM, segments

    run = write_run(folder, 2)
    path = segments(run.path)[0]
    # Not mapped: the file is about to be written over.
    with pa.ipc.open_stream(path.read_bytes()) as stream:
        batch, names = stream.read_next_batch(), stream.schema
    with path.open("wb") as file:
        file.write(names.serialize())
        step = names.get_field_index("step")
        for first in range(0, 1_000_000, batch.num_rows):
            numbers = pa.array(range(first + 1, first + 1 + batch.num_rows), pa.int64())
            file.write(batch.set_column(step, "step", numbers).serialize())
        file.write(END_OF_STREAM)
    reader = Reader(run)
    return timed(reader.read)[0], timed(reader.read)[0]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--million", action="store_true", help="read a run of a million steps, too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        loaded(Path(name, "other"))
        runs = [write_run(Path(name, "runs"), number) for number in range(RUNS)]
        listing, frame = timed(lambda: list_runs(Path(name, "runs")))
        assert len(frame) == RUNS and (frame["state"] == "finished").all(), frame
        all_of_them, figure = timed(lambda: overlay(briefs_in(Path(name, "runs"))))
        assert len(figure.data) >= len(CURRICULA)
        one, _ = timed(lambda: run_figure(view_of(runs[0])).to_json())
        still, _ = timed(lambda: run_still(view_of(runs[1]))._repr_png_())
        tick, sending, size = one_tick(runs[1], Path(name, "empty"))
        rows = [
            ["list 100 runs", f"{listing:.2f} s", f"{LIST_SECONDS:g} s"],
            ["overlay of 100 runs", f"{all_of_them:.2f} s", ""],
            ["one run's figure, as JSON", f"{one:.2f} s", ""],
            ["both: opened", f"{all_of_them + one:.2f} s", f"{OPEN_SECONDS:g} s"],
            ["one run's figure, as PNG", f"{still:.2f} s", ""],
            ["read a run for the live chart", f"{tick:.2f} s", ""],
            ["draw it in the live chart", f"{sending:.2f} s", ""],
            ["largest live tick", f"{size / 1000:.0f} kB", f"{TICK_BYTES / 1000:g} kB"],
        ]
        if asked.million:
            whole, again = million_steps(Path(name, "million"))
            rows.append(["read 1,000,000 steps of 80 layers", f"{whole:.2f} s", ""])
            rows.append(["read them again, nothing new", f"{again * 1000:.0f} ms", ""])
        print(table(["80 layers, 2000 steps", "takes", "bound"], rows))
    good = listing <= LIST_SECONDS and all_of_them + one <= OPEN_SECONDS and size <= TICK_BYTES
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
