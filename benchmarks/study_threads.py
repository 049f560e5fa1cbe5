"""What it costs that a study's runs have as many threads as one alone has.

    python benchmarks/study_threads.py         prints a table and exits 1 if the bound is missed

The number of threads decides the last bits of sums, so a run in a study has as many as it has by
itself, and several workers have more threads together than there are cores. Those that wait for
one another then sleep. As many runs of the preset toy as there are cores, all at once, each in a
process of its own: seconds per step with one thread each, against as many as there are cores,
asleep and awake while they wait. Bound: asleep at most twice as long.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

import stackwise as sw
from stackwise.detached.warm import ASLEEP
from stackwise.report import table

STEPS, WARM = 40, 5
MOST = 2.0
CORES = os.cpu_count() or 1
WIDTHS = (64, 128)


def one(width: int, threads: int) -> None:
    """Train one run in this process, and print the median seconds of its steps."""
    exp = sw.Experiment.preset("toy").replace(
        rack={"d_model": width},
        budget={"tokens": STEPS * 16 * 64},
        eval={"points": 1, "windows": 4, "final": 4},
    )
    with tempfile.TemporaryDirectory() as folder:
        run = sw.train(exp, sw.Placement(runs_dir=folder, device="cpu", threads=threads))
        print(run.metrics()["seconds"].diff()[WARM:].median())


def together(width: int, threads: int, asleep: bool) -> float:
    """Seconds per step of as many runs at once as there are cores."""
    extra = {"OMP_NUM_THREADS": str(threads), **(ASLEEP if asleep else {})}
    command = [sys.executable, __file__, str(width), str(threads)]
    children = [
        subprocess.Popen(command, env={**os.environ, **extra}, stdout=subprocess.PIPE, text=True)
        for _ in range(CORES)
    ]
    return statistics.median(float(child.communicate()[0]) for child in children)


def main() -> int:
    """Print the table."""
    if sys.argv[1:]:
        one(*map(int, sys.argv[1:]))
        return 0
    rows, good = [], True
    for width in WIDTHS:
        single = together(width, 1, asleep=False)
        asleep, awake = (together(width, CORES, asleep=each) for each in (True, False))
        good &= asleep <= MOST * single
        shown = [f"{seconds * 1e3:.1f} ms" for seconds in (single, asleep, awake)]
        rows.append([f"{width}", *shown, f"{asleep / single:.2f}", f"{MOST:g}"])
    heads = ["d_model", "one thread", f"{CORES}, asleep", f"{CORES}, awake", "ratio", "bound"]
    print(table(heads, rows))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
