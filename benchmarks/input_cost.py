"""What the mask draw and the data order take of a training step, at the `small` preset's shape.

    python benchmarks/input_cost.py      prints two tables and exits 1 if a bound is missed

Batches have 2 samples: a step and its batch both take time in proportion to it.

- Throughput: steps whose batches are ordered, read and corrupted ahead in the trainer's thread,
  against steps on batches that lie ready, in turn; the median over the turns of one over the
  other. Bound: 3 % slower.
- Work: seconds of making one batch, alone, over seconds of one step, for every way of drawing
  times, for a mixture and for parts of samples. Bound: 3 % each, so that not even a machine without
  a free core is slowed by more.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import get_args

import torch
from step import our_step

import stackwise as sw
from stackwise.bell import USUAL
from stackwise.data.batches import Batch, batch_at, part_of, prefetch
from stackwise.data.dataset import Dataset, open_dataset
from stackwise.data.mixing import mixed_batch
from stackwise.masking import Sampling
from stackwise.memory.flops import vocab_size
from stackwise.objective import Corrupted, Corruption, corrupt
from stackwise.report import table
from stackwise.training.start import dataset_of

TURNS, STEPS, BATCH, BOUND = 5, 2, 2, 0.03
MIX = {"kind": "mix", "corpora": ["kjv", "markov", "pcfg"], "weights": [3, 1, 1]}


def rule_of(exp: sw.Experiment, sampling: Sampling = "antithetic") -> Corruption:
    """How an experiment's batches are corrupted."""
    return Corruption(
        exp.objective, vocab_size(exp), exp.optim.batch, exp.seed, None, sampling, bell=USUAL
    )


def throughput(exp: sw.Experiment, data: Dataset, step: Callable[[Corrupted], object]) -> float:
    """The median over turns of the time with real draws over the time without."""
    size, rule = exp.optim.batch, rule_of(exp)
    seconds: dict[str, list[float]] = {"drawn": [], "ready": []}

    def drawn() -> Iterator[Corrupted]:
        for number in itertools.count():
            yield corrupt(rule, batch_at(data, number * size, size, exp.seed))

    def run(batches: Iterator[Corrupted]) -> float:
        """Seconds of some steps, after the first batch is there."""
        next(batches)
        began = time.perf_counter()
        for noisy in itertools.islice(batches, STEPS):
            step(noisy)
        return time.perf_counter() - began

    ready = itertools.cycle(list(itertools.islice(drawn(), STEPS)))
    for turn in range(TURNS + 1):  # the first one warms up
        for name in sorted(seconds, reverse=bool(turn % 2)):
            if name == "ready":
                seconds[name].append(run(ready))
                continue
            with prefetch(drawn()) as stream:  # anew: nothing is made in the other's time
                seconds[name].append(run(iter(stream)))
    pairs = list(zip(*seconds.values(), strict=True))[1:]
    ratio = statistics.median(a / b for a, b in pairs)
    shown = [f"{statistics.median(times[1:]) / STEPS:.3f}" for times in seconds.values()]
    print(
        table(["small, seconds a step", "drawn", "ready", "ratio"], [["", *shown, f"{ratio:.4f}"]])
    )
    return ratio


def each_alone(make: Callable[[int], object]) -> float:
    """Median seconds of making one of 30 batches."""
    times = []
    for number in range(31):
        began = time.perf_counter()
        make(number)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def work(exp: sw.Experiment, data: Dataset, step: Callable[[Corrupted], object]) -> float:
    """The largest share of a step that making a batch takes."""
    size, length, seed = exp.optim.batch, exp.data.seq_len, exp.seed
    mixed = open_dataset(MIX, seq_len=length)

    def plain(number: int) -> Batch:
        return batch_at(data, number * size, size, seed)

    def mixture(number: int) -> Batch:
        at = number * size
        return mixed_batch(mixed, (3, 1, 1), (0, 0, 0), first=at, place=at, batch=size, seed=seed)

    def quarter(number: int) -> Batch:
        return part_of(plain(number // 4), number % 4, 4, length // 4)

    noisy = corrupt(rule_of(exp), plain(0))
    whole = statistics.median(timed(step, noisy) for _ in range(3))
    found = {
        "order": each_alone(plain),
        "order of a mixture": each_alone(mixture),
        "order of parts of samples": each_alone(quarter),
    }
    for sampling in get_args(Sampling):
        rule, batch = rule_of(exp, sampling), plain(0)
        found[f"mask draw, {sampling}"] = each_alone(lambda _, r=rule, b=batch: corrupt(r, b))
    rows = [[name, f"{1e3 * each:.2f}", f"{each / whole:.3%}"] for name, each in found.items()]
    print(table(["small, one batch alone", "ms", f"of a step of {whole:.2f} s"], rows))
    return max(found.values()) / whole


def timed(step: Callable[[Corrupted], object], noisy: Corrupted) -> float:
    """Seconds of one step."""
    began = time.perf_counter()
    step(noisy)
    return time.perf_counter() - began


def main() -> int:
    """Print both tables."""
    torch.manual_seed(0)
    exp = sw.Experiment.preset("small").replace(optim={"batch": BATCH})
    data, step = dataset_of(exp, "."), our_step(exp, "eager")
    most = work(exp, data, step)
    print()
    slower = throughput(exp, data, step) - 1
    return int(slower > BOUND or most > BOUND)


if __name__ == "__main__":
    raise SystemExit(main())
