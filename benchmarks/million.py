"""How long it takes to open a run of a million steps.

    python benchmarks/million.py             prints a table and exits 1 if a bound is missed
    python benchmarks/million.py --steps 100000

A rack of twelve blocks, written by the writers that train, in two ways. As a run leaves it that
looks every thousand steps, by every depth and with the statistics of every block: far more often
than the eight looks that are usual. And as nobody should: an event at each step. Each reader is
timed once in this process, with all modules loaded: the seconds that it computes, since other
processes may have the cores meanwhile. Bound: five seconds.
"""

from __future__ import annotations

import argparse
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
from stackwise.runs.following import Follower
from stackwise.runs.layers import norms_of
from stackwise.runs.listing import runs_in
from stackwise.screen import screen
from stackwise.training.start import create_run
from stackwise_widgets.charts import Reader, list_runs, run_figure, view_of
from stackwise_widgets.page import page_html

OPEN_SECONDS = 5.0
LOOK_STEPS, BLOCKS = 1000, 12
SITES = ("residual", "attention", "ffn")
OF_SITE = ("rms", "mean", "max_abs", "kurtosis")
OF_STEP = ("grad_norm", "grad_to_weight", "update_to_weight")


def made(folder: Path, steps: int) -> sw.Run:
    """The folder of a run of so many steps, before it begins."""
    exp = sw.Experiment(
        title="million",
        rack={"stacks": 4, "blocks_per_stack": BLOCKS // 4, "d_model": 8, "heads": 1},
        curriculum="left_to_right",
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 8},
        optim={"batch": 2},
        budget={"tokens": steps * 16},
        eval={"points": min(10_000, max(1, steps // LOOK_STEPS)), "probe_frac": 100},
    )
    return create_run(exp, sw.Placement(runs_dir=str(folder), device="cpu"))


def row_of(stage: int, step: int, first: int, norms: list[float]) -> dict[str, Any]:
    """The metrics of one step."""
    noise = norms[step % BLOCKS]
    return {
        "step": step, "stage": stage, "stage_step": step - first, "tokens": step * 16,
        "flops": step * 1e9, "loss": 2 + 4 * math.exp(-step / 3e5) + 0.3 * noise, "lr": 1e-3,
        "grad_norm": noise, "masked_frac": noise, "seconds": step * 0.1,
        "embedding_grad_norm": noise, "head_grad_norm": noise, "block_grad_norms": norms,
    }  # fmt: skip


def tell_look(writer: RunWriter, at: int, step: int, path: list[str], draw: Any) -> None:
    """One look by depth, and the statistics of every block."""
    names = [f"{stack}.{n}" for stack in path for n in range(BLOCKS // 4)]
    exits = (3 + draw.random(1 + len(names))).tolist()
    numbers = {"stage": at, "step": step, "tokens": step * 16, "flops": step * 1e9}
    writer.event("eval", **numbers, seconds=step * 0.1, loss=exits[-1],
                 bits_per_byte=exits[-1] / math.log(2), exit_losses=exits)  # fmt: skip
    blocks = {
        name: {
            **{site: dict(zip(OF_SITE, draw.random(4).tolist(), strict=True)) for site in SITES},
            "dead_frac": draw.random(),
            **dict(zip(OF_STEP, draw.random(3).tolist(), strict=True)),
        }
        for name in ("embedding", *names, "head")
    }
    writer.event("statistics", stage=at, step=step, blocks=blocks)


def write(run: sw.Run, *, each_step: bool) -> None:
    """What training writes of it, with made-up numbers."""
    draw = np.random.default_rng(0)
    norms = draw.random((64, BLOCKS)).tolist()
    with RunWriter(run.path) as writer:
        first, done = 0, 0
        for at, stage in enumerate(run.stages()):
            first, last = done, done + stage["tokens"] // 16
            writer.event("stage_started", stage=at, name=stage["name"])
            for done in range(first + 1, last + 1):
                writer.metric(row_of(at, done, first, norms[done % 64]))
                if done % LOOK_STEPS == 0 or done == last:
                    tell_look(writer, at, done, stage["path"], draw)
                if each_step:
                    writer.event("note", at=done, text="a line that nobody asked for", value=0.5)
            writer.event("memory", stage=at, weights=1 << 20, peak=1 << 23)
        writer.status(stage=at, stages=at + 1, step=done, loss=2.0, seconds_left=0.0)
        writer.event(
            "result", bits_per_byte=4.3, nats_per_token=3.0, stderr=0.01, tokens=1000, bytes=1000,
            estimate="nelbo", note="upper bound", parameters=1, trained_tokens=done * 16,
            epochs=1.0, flops=done * 1e9, probe_flops=0.0, probe_seconds=0.0, probe_frac=0.0,
            peak_bytes=1 << 23, seconds=done * 0.1, entropy_bits_per_byte=None, grows_left=False,
            depth_losses=[3.0] * (1 + BLOCKS),
        )  # fmt: skip


def readers(run: sw.Run) -> dict[str, Callable[[], Any]]:
    """What opens a run, by name; unless another reading is named, as if it were the first."""
    follower, reader, path = Follower(run.path), Reader(run), run.path
    names = ("events", "evals", "metrics", "layers", "statistics", "memory", "determinism")
    asked = {f"run.{name}()": lambda name=name: getattr(sw.attach(path), name)() for name in names}
    return {
        **asked,
        "run.evals(), run.layers()": lambda: (run.evals(), run.layers()),
        "run.summary()": lambda: sw.attach(path).summary(),
        "gradient norms of blocks": lambda: norms_of(run),
        "stackwise runs": lambda: [found.summary() for found in runs_in(path.parent)],
        "stackwise watch, the first look": lambda: screen(run, 80, follower),
        "stackwise watch, another": lambda: screen(run, 80, follower),
        "the table of runs": lambda: list_runs(path.parent),
        "the live chart, the first look": reader.read,
        "the live chart, another": reader.read,
        "the figure": lambda: run_figure(view_of(run)).to_json(),
        "the page": lambda: page_html(sw.attach(path)),
    }


def timed(work: Callable[[], Any]) -> float:
    """Seconds for which it computes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000, help="how many; a million")
    asked = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        small = made(Path(name, "small"), 4000)
        write(small, each_step=False)
        for read in readers(small).values():
            read()  # loads all modules
        for each_step in (False, True):
            run = made(Path(name, str(each_step)), asked.steps)
            writing = timed(lambda run=run, each_step=each_step: write(run, each_step=each_step))
            size = (run.path / "events.jsonl").stat().st_size
            print(
                f"{asked.steps} steps, {'an event at each' if each_step else 'looked at each 1000'}"
                f": {size / 1e6:.0f} MB of events, written in {writing:.0f} s"
            )
            for what, read in readers(run).items():
                found.setdefault(what, []).append(timed(read))
    rows = [[what, *(f"{each:.2f} s" for each in seconds)] for what, seconds in found.items()]
    print(
        table(["", "looks", "an event per step"], [*rows, ["bound", *[f"{OPEN_SECONDS:g} s"] * 2]])
    )
    return 0 if max(map(max, found.values())) <= OPEN_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
