"""What it costs that a checkpoint stands on rows and events which no power cut can take.

Before each manifest the metrics and events are flushed to the disk, beside the checkpoint's own
files. Saves of a checkpoint of a given size are timed with and without, in turn, in one process.

    python benchmarks/durable.py [--megabytes 64] [--folder .]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from stackwise.runs import RunWriter
from stackwise.training.checkpoint import save

SAVES = 40


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--folder", default=".")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = saves(Path(folder), options.megabytes)
    for name, seconds in found.items():
        print(f"{name:<28} {1e3 * statistics.median(seconds):8.2f} ms")


def saves(folder: Path, megabytes: int) -> dict[str, list[float]]:
    """Seconds of settling, and of the whole save, each time."""
    found: dict[str, list[float]] = {"rows and events, flushed": [], "the checkpoint itself": []}
    with RunWriter(folder) as writer:
        for step in range(1, SAVES + 1):
            writer.metric({"step": step, "loss": float(step)})
            writer.event("eval", step=step, loss=float(step))
            began = time.perf_counter()
            writer.settle()
            settled = time.perf_counter()
            parts = {"s0": {"w": torch.full((megabytes << 18,), float(step))}}
            save(folder / "rack", parts, counters={"total_steps": step})
            found["rows and events, flushed"].append(settled - began)
            found["the checkpoint itself"].append(time.perf_counter() - settled)
    return found


if __name__ == "__main__":
    main()
