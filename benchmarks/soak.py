"""Whether a run that goes on for long takes no more memory and no longer steps than at first.

    python benchmarks/soak.py --minutes 12     an hour unless said; exits 1 if a bound is missed

A small rack is launched, with looks, statistics of blocks and checkpoints every few seconds, and
watched by the run panel in another process, twice a second, as a notebook watches it, its messages
counted in place of a page. Every few seconds the anonymous memory, the open files and the threads
of the process that trains, of the one that looks after it and of the watcher are noted.

Memory: the slope of a line through the medians of ten equal parts of the time, after a first fifth
that warms up. The watcher holds the numbers of every step, so its bound grows with the steps. Time:
the median seconds of a step in the last quarter over that in the first, all of one stage, the last:
those before it are so short that they end in the warm-up. Where other processes compute meanwhile,
steps are as long as these let them be; so the bound is on the seconds of a step, looks and
checkpoints included, less those in which the process that trains waited for a core, over the
seconds of a yardstick: small products that this process makes at each note, less its own waits,
since a core that is shared or slow is slow for both.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import stackwise as sw
from stackwise.report import table
from stackwise.runs.lock import SUPERVISOR, owner_of

NOTE_SECONDS, WARM_FRAC, PARTS, LEAST_MINUTES = 3.0, 0.2, 10, 2.0
MIB = 1 << 20
SLOPE_MIB_PER_HOUR = {"trainer": 8.0, "supervisor": 2.0, "watcher": 16.0}
NOISE_MIB = 2.0  # that an allocator gives and takes, which in minutes is a steep slope
WATCHED_BYTES_PER_STEP = 160  # nine numbers of a step, in arrays that double
TIME_RATIO = 1.1
YARD_PRODUCTS = 500
STEPS, LOOKS = 2_000_000, 10_000  # more than an hour has room for: a look every 200 steps
SPLIT = (0.0005, 0.0005, 0.0005, 0.9985)  # of them over the stages


@dataclass
class Noted:
    """What was seen of one process.

    Attributes:
        pid: Its number.
        at: Seconds since the beginning, of each note.
        bytes: Of anonymous memory, at each.
        files: That it had open.
        threads: That it had.
        waited: Seconds that its main thread had waited for a core by then.
    """

    pid: int
    at: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    def note(self, at: float) -> None:
        """Look at it now; nothing of one that is gone."""
        try:
            said = Path(f"/proc/{self.pid}/status").read_text()
            files = len(os.listdir(f"/proc/{self.pid}/fd"))
            waited = waited_seconds(self.pid)
        except OSError:
            return
        facts = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
        self.at.append(at)
        self.bytes.append(int(facts["RssAnon"].split()[0]) * 1024)
        self.files.append(files)
        self.threads.append(int(facts["Threads"]))
        self.waited.append(waited)

    def later(self, values: list[int]) -> np.ndarray:
        """Medians of ten equal parts of the time after the warm-up."""
        kept = np.asarray(values)[int(len(values) * WARM_FRAC) :]
        return np.asarray([np.median(part) for part in np.array_split(kept, PARTS)])

    def slope_mib_per_hour(self) -> float:
        """How fast its memory grows."""
        hours = (self.at[-1] - self.at[int(len(self.at) * WARM_FRAC)]) / 3600
        middles = (np.arange(PARTS) + 0.5) * hours / PARTS
        return float(np.polyfit(middles, self.later(self.bytes) / MIB, 1)[0])


def yardstick() -> float:
    """Seconds of always the same small products, without those of waiting for a core."""
    one = np.ones((64, 64), np.float32)
    began, waited = time.perf_counter(), waited_seconds(os.getpid())
    for _ in range(YARD_PRODUCTS):
        one = one @ one * np.float32(1 / 64)
    return time.perf_counter() - began - (waited_seconds(os.getpid()) - waited)


def waited_seconds(pid: int) -> float:
    """Seconds that the main thread of a process has waited for a core."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9


def experiment() -> sw.Experiment:
    """A rack whose steps take some milliseconds, looked at by depth every 200 of them."""
    return sw.Experiment(
        title="soak",
        rack={"stacks": 4, "blocks_per_stack": 1, "d_model": 32, "heads": 2},
        curriculum={"name": "left_to_right", "split": SPLIT},
        data={"corpus": {"kind": "markov", "size_bytes": 200_000}, "seq_len": 32},
        optim={"batch": 8},
        budget={"tokens": STEPS * 8 * 32},
        eval={"points": LOOKS, "windows": 8, "probe_frac": 100},
    )


def watch(folder: Path) -> int:
    """What a notebook does: the run panel reads and draws, twice a second, until the run ends."""
    from workbench import Counting

    from stackwise_widgets import RunPanel

    panel = RunPanel(sw.attach(folder))
    counting, shown = Counting(), 0
    while panel.run is not None and panel.run.is_live:
        if panel.chart is not None and not shown:
            panel.chart.figure.comm = counting
        shown += 1
        time.sleep(1.0)
    print(f"{counting.bytes} bytes were sent to the page")
    return 1 if panel.errors else 0


def soak(
    folder: Path, minutes: float
) -> tuple[sw.Run, dict[str, Noted], list[int], list[float], int]:
    """Train, watch and note for so long; then stop it.

    Returns:
        The run; what was noted; at each note steps of the process that trains, and the yardstick's
        seconds; the watcher's end.
    """
    run = sw.launch(
        experiment(),
        sw.Placement(runs_dir=str(folder), device="cpu", threads=1, checkpoint_seconds=10),
        queue=False,
    )
    while not run.status().get("step"):
        if not run.is_live:
            raise SystemExit(f"the run did not begin: {run.error()}")
        time.sleep(0.2)
    watcher = subprocess.Popen([sys.executable, __file__, "--watch", str(run.path)])
    supervisor = owner_of(run.path, SUPERVISOR)
    assert supervisor is not None
    noted = {
        "trainer": Noted(run.status()["pid"]),
        "supervisor": Noted(supervisor.pid),
        "watcher": Noted(watcher.pid),
    }
    began, steps, yards = time.monotonic(), list[int](), list[float]()
    while (at := time.monotonic() - began) < minutes * 60 and run.is_live:
        for each in noted.values():
            each.note(at)
        steps.append(int(run.status().get("step", 0)))
        yards.append(yardstick())
        time.sleep(NOTE_SECONDS)
    run.stop()
    run.wait(120)
    return run, noted, steps, yards, watcher.wait(120)


def step_seconds(run: sw.Run) -> tuple[np.ndarray, int]:
    """Seconds of every step after the first fifth, and of how many stages they are."""
    frame = run.metrics()
    seconds, warm = np.diff(frame["seconds"].to_numpy()), int(len(frame) * WARM_FRAC)
    return seconds[warm:], frame["stage"].iloc[warm:].nunique()


def own_seconds(trainer: Noted, steps: list[int]) -> np.ndarray:
    """Seconds per step between notes, less those of waiting for a core; after the first fifth."""
    count = min(len(steps), len(trainer.at))
    seconds = np.diff(trainer.at[:count]) - np.diff(trainer.waited[:count])
    found = seconds / np.maximum(1, np.diff(steps[:count]))
    return found[int(len(found) * WARM_FRAC) :]


def ratio_of(seconds: np.ndarray) -> float:
    """The median of the last quarter over that of the first."""
    quarter = len(seconds) // 4
    return float(np.median(seconds[-quarter:]) / np.median(seconds[:quarter]))


def rows_of(
    run: sw.Run, noted: dict[str, Noted], steps: list[int], yards: list[float]
) -> list[list[Any]]:
    """What is shown: name, value, bound, and whether it is kept."""
    rows: list[list[Any]] = []
    for name, each in noted.items():
        bound, found = SLOPE_MIB_PER_HOUR[name], each.slope_mib_per_hour()
        bound = max(bound, NOISE_MIB / (each.at[-1] * (1 - WARM_FRAC) / 3600))
        if name == "watcher":
            per_hour = len(run.metrics()) / each.at[-1] * 3600
            bound += per_hour * WATCHED_BYTES_PER_STEP / MIB
        begin, end = each.later(each.bytes)[[0, -1]] / MIB
        shown = f"{found:+.1f} MiB per hour ({begin:.1f} to {end:.1f})"
        rows.append([f"{name}: memory", shown, f"{bound:.1f}", found <= bound])
        for what in ("files", "threads"):
            begin, end = each.later(getattr(each, what))[[0, -1]]
            rows.append([f"{name}: {what}", f"{begin:.0f} to {end:.0f}", "flat", end <= begin])
    whole, stages = step_seconds(run)
    rows.append(["stages whose steps are compared", str(stages), "1", stages == 1])
    own, yard = own_seconds(noted["trainer"], steps), np.array(yards[int(len(yards) * WARM_FRAC) :])
    for name, seconds in (
        ("a step", whole),
        ("a step, no core waited for", own),
        ("the yardstick", yard),
    ):
        shown = f"{ratio_of(seconds):.3f} of {np.median(seconds) * 1e3:.2f} ms"
        rows.append([f"{name}: last quarter over first", shown, "", True])
    ratio = ratio_of(own) / ratio_of(yard)
    good = ratio <= TIME_RATIO
    rows.append(["the same of a step over the yardstick", f"{ratio:.3f}", f"{TIME_RATIO}", good])
    return rows


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long; 60 unless said")
    parser.add_argument("--watch", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.minutes < LEAST_MINUTES:
        parser.error(f"--minutes: {asked.minutes:g} < {LEAST_MINUTES:g}, too short to tell a slope")
    if asked.watch is not None:
        return watch(asked.watch)
    with tempfile.TemporaryDirectory() as name:
        run, noted, steps, yards, watched = soak(Path(name), asked.minutes)
        rows, events = rows_of(run, noted, steps, yards), run.events()
        kinds = {kind: sum(e["kind"] == kind for e in events) for kind in ("eval", "statistics")}
        rows.append(["the watcher's errors", str(watched), "0", watched == 0])
        print(
            f"{asked.minutes:g} minutes: {len(run.metrics())} steps, {len(events)} events "
            f"({kinds['eval']} looks, {kinds['statistics']} statistics), {run.state}"
        )
    print(table(["", "found", "bound"], [row[:3] for row in rows]))
    return 0 if all(row[3] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
