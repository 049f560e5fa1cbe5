"""What calibration found, as a file and as a `Hardware`.

The file is JSON: facts of the machine, and one entry for each probe, with its rate and its spread.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from stackwise import bounded
from stackwise.atomic import write_text
from stackwise.data.cache import cache_folder
from stackwise.errors import ExperimentError
from stackwise.jsontext import parsed
from stackwise.planner.curve import Curve, Curves
from stackwise.planner.hardware import Hardware
from stackwise.planner.together import with_blocks
from stackwise.report import program, table

FORMAT = 2
FACTS = {"machine", "device", "threads", "torch", "date", "memory_bytes", "host_bytes"}


MOST = 1e30  # of any number in the file


@dataclass(frozen=True)
class Rate:
    """One point of a curve.

    Attributes:
        name: Of the curve.
        size: Of a piece of work.
        unit: Of the work.
        rate: Work per second: the median of what was measured.
        spread: Between its quartiles, as a share of the rate.
        count: Timings.
    """

    name: str
    size: float
    unit: str
    rate: float
    spread: float
    count: int


def is_sound(rate: Rate) -> bool:
    """Whether a rate that was read is one: names, and numbers that can be divided by."""
    numbers = (rate.size, rate.rate, rate.spread, rate.count)
    return (
        all(isinstance(text, str) for text in (rate.name, rate.unit))
        and all(type(number) in (int, float) and abs(number) < MOST for number in numbers)
        and rate.size > 0
        and rate.rate > 1 / MOST
    )


def facts_fit(facts: Mapping[str, Any]) -> bool:
    """Whether the numbers among the facts of a machine that were read are some."""
    numbers = (facts["threads"], facts["memory_bytes"], facts["host_bytes"])
    return all(type(number) in (int, float) and 0 <= number < MOST for number in numbers)


def rate_of(name: str, size: float, unit: str, found: Sequence[float]) -> Rate:
    """What is taken of several timings."""
    if len(found) == 1:
        return Rate(name, size, unit, found[0], 0.0, 1)
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
    return Rate(name, size, unit, middle, (high - low) / middle, len(found))


@dataclass(frozen=True)
class Calibration:
    """What was measured of one machine.

    Attributes:
        facts: Machine, versions, threads, date.
        rates: One for each probe.
    """

    facts: Mapping[str, Any]
    rates: tuple[Rate, ...]

    def write(self, path: Path) -> None:
        """Write it as JSON, in one step.

        Raises:
            OSError: If it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {"format": FORMAT, **self.facts, "rates": [asdict(rate) for rate in self.rates]}
        write_text(path, json.dumps(whole, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Read what `write` wrote.

        Raises:
            ExperimentError: If there is no such file, or it is damaged or of another format.
        """
        again = f"; measure this machine with: {program()} calibrate"
        try:
            whole = parsed(bounded.read_text(path.resolve()))
            version, rates = whole.pop("format"), tuple(Rate(**each) for each in whole.pop("rates"))
            sound = all(map(is_sound, rates)) and whole.keys() >= FACTS and facts_fit(whole)
        except FileNotFoundError:
            raise ExperimentError(
                f"--hardware: 'this' machine has not been measured{again}"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExperimentError(
                f"{path}: is no calibration ({type(error).__name__}){again}"
            ) from None
        if version != FORMAT or not sound:
            raise ExperimentError(f"{path}: is of another format, or lacks a fact or a rate{again}")
        return cls(whole, rates)

    def curve(self, name: str) -> Curve:
        """The points of a name, by rising size.

        Raises:
            ExperimentError: If it was not measured.
        """
        points = sorted((each.size, each.rate) for each in self.rates if each.name == name)
        if not points:
            raise ExperimentError(
                f"calibration: lacks {name!r}; measure again with: {program()} calibrate"
            )
        return tuple(points)

    def curves(self, prefix: str) -> dict[str, Curve]:
        """All curves whose names begin with a prefix, by the rest of their names."""
        names = dict.fromkeys(rate.name for rate in self.rates)
        start = f"{prefix}/"
        found = [name for name in names if name.startswith(start)]
        return Curves({name.removeprefix(start): self.curve(name) for name in found})

    @property
    def faster(self) -> str:
        """The dtype whose matrix products are faster here, at the largest size measured."""
        return max(("float32", "bfloat16"), key=lambda kind: self.curve(f"matmul/{kind}")[-1][1])

    def hardware(self) -> Hardware:
        """The same as `seconds.py` reads it.

        Raises:
            ExperimentError: If a rate is missing.
        """
        cuda = self.facts["device"] == "cuda"

        def one(name: str) -> float:
            return self.curve(name)[-1][1]

        pieces = Hardware(
            name="this",
            kind="cuda" if cuda else "cpu",
            origin="measured",
            said=f"measured {self.facts['date']} on {self.facts['machine']}",
            memory_bytes=float(self.facts["memory_bytes"]),
            host_bytes=float(self.facts["host_bytes"]),
            threads=int(self.facts["threads"]),
            matmul=self.curves("matmul"),
            attention=self.curves("attention"),
            around=self.curves("around"),
            loss=self.curves("loss"),
            optimizer=self.curves("optimizer"),
            passing=self.curves("passing"),
            embedding=self.curve("embedding"),
            dequantise=self.curves("dequantise"),
            quantise={form: curve[-1][1] for form, curve in self.curves("quantise").items()},
            memory_rate=one("memory"),
            fresh_rate=one("fresh"),
            link_rate=one("link") if cuda else None,
            disk_read=one("disk/read"),
            disk_write=one("disk/write"),
            page_read=one("disk/pages"),
            hash_rate=one("disk/hash"),
            start=one("start"),
            call_seconds=1 / one("calls"),
            calls_overlap=cuda,
        )
        blocks = {name: self.curve(f"block/{name}") for name in pieces.around}
        return with_blocks(pieces, blocks)

    def __str__(self) -> str:
        rows = []
        for rate in self.rates:
            size = f"{rate.size:,.0f}" if rate.size > 1 else ""
            shown = scaled(rate.rate, rate.unit)
            rows.append([rate.name, size, shown, f"{100 * rate.spread:.0f} %", str(rate.count)])
        ratio = self.curve("matmul/bfloat16")[-1][1] / self.curve("matmul/float32")[-1][1]
        words = {"bfloat16": f"{ratio:.1f} times", "float32": f"{1 / ratio:.1f} times"}
        facts = self.facts
        return "\n".join(
            [
                f"{facts['machine']}, {facts['threads']} threads, torch {facts['torch']}, "
                f"{facts['date']}",
                table(["what", "size", "rate", "spread", "timings"], rows),
                f"products are {words[self.faster]} as fast in {self.faster} here: "
                f"precision.compute={self.faster}",
            ]
        )


def scaled(rate: float, unit: str) -> str:
    """`187 GFLOP/s`."""
    for letter, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {letter}{unit}/s"
    return f"{rate:.3g} {unit}/s"


def calibration_path() -> Path:
    """Where `this` is read from: in the user's cache folder."""
    return cache_folder() / "calibration.json"


def this_machine() -> Hardware:
    """The machine at hand: rates from its file; memory as it is now.

    Raises:
        ExperimentError: If it has not been measured, or a card that was is not here.
    """
    from dataclasses import replace

    found = Calibration.read(calibration_path()).hardware()
    device = torch.device(found.kind)
    if found.kind == "cuda" and not torch.cuda.is_available():
        raise ExperimentError(
            "--hardware: 'this' was measured with a card that torch does not see now; measure "
            f"again with: {program()} calibrate"
        )
    memory, host = memory_of(device)
    return replace(found, memory_bytes=memory, host_bytes=host)


def unmeasured() -> Hardware:
    """The machine at hand before it is measured: its memory, and no rates."""
    cuda = torch.cuda.is_available()
    memory, host = memory_of(torch.device("cuda" if cuda else "cpu"))
    none = 0.0
    return Hardware(
        name="this",
        kind="cuda" if cuda else "cpu",
        origin="unknown",
        said=f"not measured; {program()} calibrate adds the time",
        memory_bytes=memory,
        host_bytes=host,
        threads=torch.get_num_threads(),
        matmul={},
        attention={},
        around={},
        loss={},
        optimizer={},
        passing={},
        embedding=(),
        dequantise={},
        quantise={},
        memory_rate=none,
        fresh_rate=none,
        link_rate=None,
        disk_read=none,
        disk_write=none,
        page_read=none,
        hash_rate=none,
        start=none,
        call_seconds=none,
        calls_overlap=cuda,
    )


def memory_of(device: torch.device) -> tuple[float, float]:
    """Bytes of the device's memory, and of the machine around it."""
    from stackwise.memory.room import machine_bytes

    host = float(machine_bytes() or 0)
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info()[1]), host
    return host, host


def facts_of(device: torch.device) -> dict[str, Any]:
    """What a calibration says of the machine."""
    from stackwise.runs.provenance import processor

    memory, host = memory_of(device)
    card = torch.cuda.get_device_name() if device.type == "cuda" else None
    return {
        "machine": card or processor() or platform.machine(),
        "device": device.type,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "memory_bytes": memory,
        "host_bytes": host,
    }
