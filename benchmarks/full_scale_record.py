"""What a full-scale run took and gave: watched from outside, kept over attempts, written down.

`full_scale.py` carries the runs out. The record is docs/full_scale.json, and docs/full_scale.md is
made of it.
"""

from __future__ import annotations

import json
import math
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import stackwise as sw
from stackwise.data.baselines import baselines
from stackwise.report import table
from stackwise.training.start import dataset_of

DOCS = Path(__file__).parent.parent / "docs"
RECORD, DOCUMENT = DOCS / "full_scale.json", DOCS / "full_scale.md"
LEARNS = "## Three blocks that learn\n"
HEAD = ["stage", "s", "peak GiB", "plan GiB", "loss, first step", "last", "held-out", "as NF4"]
MACHINE = ("processor", "cores", "threads", "system", "python", "packages", "code")


class Watch:
    """What a child takes at most: resident memory, and bytes in a folder; kept over attempts."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.path = folder, folder / f"{name}.json"
        self.most: dict[str, float] = {"resident": 0, "disk": 0, "seconds": 0.0, "attempts": 0}
        if self.path.exists():
            self.most = json.loads(self.path.read_text())

    def run(self, command: list[str]) -> int:
        """Run a child and give its exit code; Ctrl-C reaches it, too, and it saves."""
        began, over = time.time(), threading.Event()
        with subprocess.Popen(command) as child:
            looking = threading.Thread(target=self._look, args=(child.pid, over))
            looking.start()
            while True:
                try:
                    code = child.wait()
                    break
                except KeyboardInterrupt:
                    continue
            over.set()
            looking.join()
        self.most["seconds"] += time.time() - began
        self.most["attempts"] += 1
        self.path.write_text(json.dumps(self.most))
        return code

    def _look(self, pid: int, over: threading.Event) -> None:
        while not over.wait(0.5):
            self.most["resident"] = max(self.most["resident"], resident(pid))
            self.most["disk"] = max(self.most["disk"], bytes_in(self.folder))


def resident(pid: int) -> int:
    """The most that a process ever had resident, mapped files included."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024 if "VmHWM:" in text else 0


def bytes_in(folder: Path) -> int:
    """Of all files, also of those that are being written."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # it has just gone
            continue
    return total


def record_of(run: sw.Run, watch: Watch) -> dict[str, Any]:
    """What each stage of a run took and gave, and where."""
    facts, result = run.provenance(), run.result()
    unigram = next(b for b in baselines(dataset_of(run.experiment, ".")) if b.name == "unigram")
    return {
        "made": facts["made"],
        "machine": {key: facts[key] for key in MACHINE},
        "parameters": result.get("parameters"),
        "stages": stages_of(run),
        "depth_losses": result.get("depth_losses"),
        "bits_per_byte": result.get("bits_per_byte"),
        "unigram_bits_per_byte": unigram.bits_per_byte,
        **watch.most,
    }


def stages_of(run: sw.Run) -> list[dict[str, Any]]:
    """The stages that are done."""
    metrics, plan = run.metrics(), run.plan()
    by_stage = {
        kind: {event["stage"]: event for event in run.events(kind) if "stage" in event}
        for kind in ("stage_started", "stage_finished", "memory", "eval", "frozen")
    }
    done = []
    for number, end in sorted(by_stage["stage_finished"].items()):
        begun, following = (by_stage["stage_started"].get(n) for n in (number, number + 1))
        assert begun is not None
        until = following if following and following["attempt"] == begun["attempt"] else end
        took = datetime.fromisoformat(until["time"]) - datetime.fromisoformat(begun["time"])
        losses = metrics[metrics["stage"] == number]["loss"].tolist()
        memory = by_stage["memory"][number]
        kinds = ("weights", "gradients", "optimizer", "activations")
        done.append(
            {
                "stage": number,
                "seconds": took.total_seconds(),
                "peak_bytes": memory["peak"],
                "planned_bytes": plan[number].get("peak_bytes", plan[number]["bytes"]["total"]),
                "bytes": {kind: memory[kind] for kind in kinds},
                "losses": losses,
                "heldout": by_stage["eval"][number]["loss"],
                "frozen": by_stage["frozen"].get(number, {}).get("loss_after"),
            }
        )
    return done


def shown(stages: list[dict[str, Any]]) -> str:
    """The stages as a table."""
    rows = [
        [
            str(stage["stage"]),
            f"{stage['seconds']:.0f}",
            f"{stage['peak_bytes'] / 2**30:.2f}",
            f"{stage['planned_bytes'] / 2**30:.2f}",
            f"{stage['losses'][0]:.4f}",
            f"{stage['losses'][-1]:.4f}",
            f"{stage['heldout']:.4f}",
            "" if stage["frozen"] is None else f"{stage['frozen']:.4f}",
        ]
        for stage in stages
    ]
    return table(HEAD, rows)


def finite(stages: list[dict[str, Any]]) -> bool:
    """Whether every loss is a number."""
    numbers = [loss for stage in stages for loss in (*stage["losses"], stage["heldout"])]
    return all(map(math.isfinite, numbers))


def write_document(name: str, found: dict[str, Any]) -> None:
    """Put a record into docs/full_scale.json, and make the page of it."""
    records = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    records[name] = found
    RECORD.write_text(json.dumps(records, indent=1) + "\n")
    DOCUMENT.write_text(page(records))


def page(records: dict[str, Any]) -> str:
    """docs/full_scale.md, without the part of a run that has not been made."""
    text = (DOCS / "full_scale.txt").read_text("utf-8")
    if "learn" not in records:
        text = text.partition(LEARNS)[0].rstrip() + "\n"
    filled = {}
    for name in ("seventy", "learn"):
        if found := records.get(name):
            filled |= {f"{name}.{key}": value for key, value in told(found).items()}
    for key, value in filled.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def told(found: dict[str, Any]) -> dict[str, str]:
    """A record, in words and tables."""
    machine, stages = found["machine"], found["stages"]
    packages = ", ".join(f"{name} {machine['packages'][name]}" for name in ("torch", "stackwise"))
    losses = ", ".join(f"{loss:.2f}" for loss in found["depth_losses"])
    text, seconds = found.get("sample", ("", 0.0))
    return {
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python "
        f"{machine['python']}, {packages}",
        "made": found["made"][:10],
        "commit": str(machine["code"].get("commit", ""))[:12],
        "parameters": f"{found['parameters']:,}",
        "hours": f"{found['seconds'] / 3600:.1f}",
        "attempts": str(int(found["attempts"])),
        "resident": f"{found['resident'] / 2**30:.2f}",
        "disk": f"{found['disk'] / 1e9:.2f}",
        "seconds": f"{sum(stage['seconds'] for stage in stages) / len(stages):.0f}",
        "depths": losses,
        "bits": f"{found['bits_per_byte']:.3f}",
        "unigram": f"{found['unigram_bits_per_byte']:.3f}",
        "sample": text,
        "sampling": f"{seconds:.0f}",
        "stages": shown(stages),
    }
