"""What it gains on a CPU that freed memory is kept from step to step: `memory/heap.py`, `settle`.

    python benchmarks/heap.py       a table, and exit 1 if a bound is missed

Each cell is trained in processes of its own, in turn with glibc's own thresholds and with ours.
Bounds: with ours the median step takes at most 1.05 times as long, at most a tenth of its pages
is new, and at most 1.15 times as much is resident.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from stackwise.report import table

TURNS = 3
CELLS = {
    "256 x 256 x 4": {"d_model": 256, "seq": 256, "batch": 4},
    "256 x 256 x 4, 8192 entries": {"d_model": 256, "seq": 256, "batch": 4, "vocab": 8192},
    "1024 x 128 x 4": {"d_model": 1024, "seq": 128, "batch": 4},
    "2048 x 128 x 2": {"d_model": 2048, "seq": 128, "batch": 2},
}
CHILD = """
import json, resource, statistics, sys, tempfile, time
import stackwise as sw
from stackwise.memory import meter
cell = json.loads(sys.argv[1])
if not cell["kept"]:
    meter.settle = lambda: None
exp = sw.Experiment(
    rack={"stacks": 1, "blocks_per_stack": 2, "d_model": cell["d_model"],
          "heads": cell["d_model"] // 64, "vocab": cell.get("vocab")},
    objective="clm", curriculum="end_to_end", data={"seq_len": cell["seq"]},
    optim={"batch": cell["batch"]}, precision={"compute": "bfloat16"},
    budget={"tokens": 14 * cell["seq"] * cell["batch"]},
    eval={"points": 1, "windows": 1, "final": 1},
)
marks = []
def mark(*_):
    marks.append((time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt))
with tempfile.TemporaryDirectory() as folder:
    run = sw.train(exp, sw.Placement(device="cpu", runs_dir=folder), on_step=mark)
    resident = max(event["resident"] for event in run.events("memory"))
steps = [[b - a for a, b in zip(x, y)] for x, y in zip(marks, marks[1:])][3:-1]
print(json.dumps([*map(statistics.median, zip(*steps)), resident]))
"""


def measured(cell: dict[str, int], kept: bool) -> list[float]:
    """Seconds and page faults of the median step, resident bytes of the run."""
    told = json.dumps({**cell, "kept": kept})
    done = subprocess.run(
        [sys.executable, "-c", CHILD, told], check=True, capture_output=True, text=True
    )
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Print the table."""
    rows, good = [], True
    for name, cell in CELLS.items():
        turns = [(measured(cell, False), measured(cell, True)) for _ in range(TURNS)]
        before, after = (
            [statistics.median(each) for each in zip(*arm, strict=True)]
            for arm in zip(*turns, strict=True)
        )
        seconds = statistics.median(ours[0] / theirs[0] for theirs, ours in turns)
        resident = after[2] / before[2]
        good &= seconds <= 1.05 and after[1] <= before[1] / 10 and resident <= 1.15
        pages = [f"{each:,.0f}" for each in (before[1], after[1])]
        ratios = [f"{seconds:.2f}", f"{resident:.2f}"]
        rows.append([name, f"{before[0] * 1e3:.0f}", f"{after[0] * 1e3:.0f}", *pages, *ratios])
    heads = ["bfloat16", "ms, glibc's", "ours", "pages, glibc's", "ours", "time", "resident"]
    print(table(heads, rows))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
