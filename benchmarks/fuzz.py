"""Malformed inputs for as long as one likes, guided by what code they reach.

    python benchmarks/fuzz.py                              a minute for each target of tests/fuzz
    python benchmarks/fuzz.py --seconds 600 experiment tokenizer
    python benchmarks/fuzz.py --engine changes             without atheris

Prints a row for each target and exits 1 if an input of one ended in a traceback, a hang, the end of
the process or more than a GiB; the input is kept in a file, and belongs into `tests/fuzz/kept.py`
once that is mended. Each target has a process of its own. Where atheris is not installed, it is
said, and the changes of `tests/fuzz/changes.py` are drawn at random instead.

Found by 20 minutes over all targets: see `KEPT` in `tests/fuzz/kept.py`. No figure is gated.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "widgets")]
INSTRUMENTED = ["stackwise", "stackwise_widgets", "yaml", "json"]
LONGEST_INPUT = 1 << 16
TELL_SECONDS = 1.0
EXITED = 77  # atheris under threads of Arrow's; what breaks by an input is in the tally
START_SECONDS = 600.0  # a process imports everything under instrumentation first


class Tally:
    """What has come of a target's inputs so far, in a file that outlives the process.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.told = path, 0.0
        self.facts: dict[str, Any] = {"inputs": 0, "slowest": 0.0, "found": {}}

    def take(self, name: str, entry: Any, content: bytes) -> None:
        """Give a target one input."""
        from tests.fuzz.guard import guarded

        began, facts = time.process_time(), self.facts
        facts["inputs"] += 1
        try:
            guarded(name, entry.run, content)
        except Exception as error:  # atheris would end the process, and tell less
            where = place_of(error.__cause__ or error)
            if where not in facts["found"]:
                facts["found"][where] = str(error)
                self.told = 0.0
        facts["slowest"] = max(facts["slowest"], time.process_time() - began)
        if time.monotonic() - self.told > TELL_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Write the file."""
        self.told = time.monotonic()
        self.path.write_text(json.dumps(self.facts))


def place_of(error: BaseException) -> str:
    """Where in this repository an error was raised: one name for one bug."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(ROOT)) and "/fuzz/" not in f.filename]
    last = (ours or frames)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"


def by_changes(name: str, seconds: float, tally: Tally, seed: int) -> None:
    """Changes of valid files, drawn at random."""
    from tests.fuzz.changes import changed
    from tests.fuzz.guard import bounded
    from tests.fuzz.targets import targets

    entry, draw, until = (
        targets()[name],
        random.Random(f"{name} {seed}"),
        time.monotonic() + seconds,
    )
    valid = entry.valid()
    with bounded():
        while time.monotonic() < until:
            tally.take(name, entry, changed(draw.choice(valid), entry.kind, drawn(draw)))
    tally.tell()


def drawn(draw: random.Random) -> list[tuple[int, int, int]]:
    """Some changes."""
    count = draw.choice((1, 1, 1, 2, 2, 3, 5))
    return [(*(draw.getrandbits(16) for _ in range(3)),) for _ in range(count)]  # type: ignore[misc]


def by_coverage(name: str, seconds: float, tally: Tally, seed: int) -> None:
    """Inputs that atheris makes of those that reached new code; it ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        from tests.fuzz.changes import changed
        from tests.fuzz.guard import FOUND, bounded
        from tests.fuzz.targets import targets

        entry = targets()[name]
        for content in (*entry.valid(), b""):  # what is imported late is instrumented, too
            with suppress(Exception):
                entry.run(content)
    FOUND.mkdir(parents=True, exist_ok=True)
    corpus = Path(tempfile.mkdtemp(prefix="stackwise-corpus-"))
    for number, content in enumerate(entry.valid()):
        (corpus / str(number)).write_bytes(content)

    def mutated(content: bytes, most: int, seed: int) -> bytes:
        draw = random.Random(seed)
        if draw.random() < 0.5:
            return atheris.Mutate(content, most)
        return changed(content, entry.kind, drawn(draw))[:most]

    options = [
        "fuzz", f"-max_total_time={int(seconds)}", f"-max_len={LONGEST_INPUT}", f"-seed={seed + 1}",
        "-rss_limit_mb=0", "-timeout=0", "-verbosity=0", "-print_final_stats=0",
        f"-artifact_prefix={FOUND}/", str(corpus),
    ]  # fmt: skip
    atheris.Setup(options, lambda content: tally.take(name, entry, content), custom_mutator=mutated)
    with bounded():
        atheris.Fuzz()


def run_apart(name: str, options: argparse.Namespace, engine: str) -> dict[str, Any]:
    """A target in a process of its own; what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tally.json")
        command = [sys.executable, __file__, name, "--engine", engine, "--into", str(path)]
        command += ["--seconds", str(options.seconds), "--seed", str(options.seed)]
        try:
            most = options.seconds + START_SECONDS
            done = subprocess.run(command, capture_output=True, errors="replace", timeout=most)
        except subprocess.TimeoutExpired:
            if engine == "changes":
                return {"inputs": 0, "slowest": most, "found": {"hung": "for good; see *.now"}}
            print(f"{name}: stood still under atheris; random changes instead", flush=True)
            return run_apart(name, options, "changes")
        empty = {"inputs": 0, "slowest": 0.0, "found": {}}
        facts = json.loads(path.read_text()) if path.exists() else empty
    if engine == "atheris" and done.returncode == EXITED and not facts["found"]:
        print(f"{name}: atheris ended after {facts['inputs']} inputs; random changes instead")
        more = run_apart(name, options, "changes")
        return {**more, "inputs": more["inputs"] + facts["inputs"]}
    if done.returncode < 0 or not facts["inputs"]:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing was said"]
        facts["found"][f"the process ended with {done.returncode}"] = last[0]
    return facts


def main() -> int:
    """Every target for its time; a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help="their names; default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each (default 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=["atheris", "changes"], default="atheris")
    parser.add_argument("--into", help=argparse.SUPPRESS)
    options, engine = parser.parse_args(), "atheris"
    if options.into:
        run = by_coverage if options.engine == "atheris" else by_changes
        run(options.targets[0], options.seconds, Tally(Path(options.into)), options.seed)
        return 0
    if options.engine == "changes" or find_spec("atheris") is None:
        engine = "changes"
        print("random changes of valid files" + (
            "" if options.engine == "changes" else ": atheris is not installed here"))  # fmt: skip
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from tests.fuzz.targets import targets

    known = targets()
    if unknown := [name for name in options.targets if name not in known]:
        parser.error(f"targets: {unknown[0]!r} is none; known: {', '.join(known)}")
    print(f"{'target':28}{'inputs':>9}{'slowest, s':>12}{'bugs':>6}", flush=True)
    total = bugs = 0
    for name in options.targets or known:
        facts = run_apart(name, options, engine)
        total, bugs = total + facts["inputs"], bugs + len(facts["found"])
        print(f"{name:28}{facts['inputs']:>9}{facts['slowest']:>12.2f}{len(facts['found']):>6}")
        for where, what in facts["found"].items():
            print(f"  {where}: {what[:300]}")
        sys.stdout.flush()
    print(f"{total} inputs, {bugs} bugs")
    return 1 if bugs else 0


if __name__ == "__main__":
    raise SystemExit(main())
