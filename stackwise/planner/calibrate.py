"""Measure the machine at hand: `stackwise calibrate`, `sw.calibrate()`.

All probes once is a round; several rounds follow each other, so that seconds in which another
program had the machine do not decide any one rate. Of all that a probe gave the median is taken, as
of the steps that are compared with it. The spread that is printed is between the quartiles.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from stackwise.memory.heap import settle
from stackwise.planner.calibration import Calibration, Rate, calibration_path, facts_of, rate_of
from stackwise.planner.disks import disk_rates
from stackwise.planner.probe import Probe
from stackwise.planner.probes import probes_for

ROUNDS = 4
SECONDS = 0.05  # of each probe in each round, after one call that warms up
FEWEST, MOST = 2, 12

Clock = Callable[[], float]


@dataclass
class Samples:
    """What probes gave so far.

    Attributes:
        rates: Work per second of every timing, by (name, size).
        units: Of the names.
    """

    rates: dict[tuple[str, float], list[float]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, size: float, unit: str, rates: Iterable[float]) -> None:
        """Take what one probe gave."""
        self.rates.setdefault((name, size), []).extend(rates)
        self.units[name] = unit

    def taken(self) -> tuple[Rate, ...]:
        """One rate for each probe."""
        return tuple(
            rate_of(name, size, self.units[name], found)
            for (name, size), found in self.rates.items()
        )


def calibrate(
    folder: str | Path = ".",
    *,
    output: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    rounds: int = ROUNDS,
) -> Calibration:
    """Measure what this machine can do, and write it down for `hardware="this"`.

    Args:
        folder: On the disk that runs are kept on; a file of 128 MiB lies in it for a moment.
        output: Where to write; None for the user's cache folder, where `this` is read from.
        device: `auto`, `cpu` or `cuda`.
        threads: Of the CPU; None for torch's own choice.
        rounds: How often everything is measured, 1 or more.

    Returns:
        What was measured; `print` it for a table.

    Raises:
        ExperimentError: If the device is not here.
        ValueError: If `rounds` is under 1.
        OSError: If the folder or the file cannot be written.
    """
    from stackwise.config import Placement
    from stackwise.training.start import device_of, threads_of

    if rounds < 1:
        raise ValueError(f"rounds: {rounds} must be 1 or more")
    placement = Placement(device=device, threads=threads)
    place = device_of(placement)
    samples = Samples()
    with threads_of(placement):
        for _ in range(rounds):
            measure_round(samples, place, Path(folder))
        found = Calibration(facts=facts_of(place), rates=samples.taken())
    found.write(calibration_path() if output is None else Path(output))
    return found


def measure_round(
    samples: Samples,
    device: torch.device,
    folder: Path | None,
    *,
    clock: Clock = time.perf_counter,
    probes: Iterable[Probe] | None = None,
) -> None:
    """Add one round to the samples.

    Args:
        samples: Are added to.
        device: What computes.
        folder: On the disk to measure; None for no disk.
        clock: Seconds.
        probes: What is measured; None for all.
    """
    settle()  # as in a run
    for probe in probes_for(device) if probes is None else probes:
        seconds = timings(probe, device, clock)
        samples.add(probe.name, probe.size, probe.unit, (probe.work / each for each in seconds))
    if folder is not None:
        for name, rate in disk_rates(folder, clock).items():
            samples.add(name, 1.0, "byte", [rate])


def timings(probe: Probe, device: torch.device, clock: Clock) -> list[float]:
    """Seconds of some calls of one probe, all else done before the clock starts."""
    prepare = probe.make()
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    found: list[float] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        prepare()()  # tables grow, kernels are chosen
        while len(found) < FEWEST or (sum(found) < SECONDS and len(found) < MOST):
            run = prepare()
            wait()
            began = clock()
            run()
            wait()
            found.append(max(clock() - began, 1e-9))
    finally:
        if collecting:
            gc.enable()
    return found
