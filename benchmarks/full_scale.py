"""All 80 blocks of Llama 2 70B at full width, trained, frozen and read again on this machine.

    python benchmarks/full_scale.py FOLDER                 all of it, from wherever it was stopped
    python benchmarks/full_scale.py FOLDER --stages 2      the first two stages, beside the record
    python benchmarks/full_scale.py FOLDER --learn         three full-width blocks, 300 steps
    python benchmarks/full_scale.py FOLDER --small         the same of a narrow rack, in minutes

The rack grows from the left: each block trains for two steps of 512 tokens of the King James text
on the outputs of the blocks before it, read from a cache, and is frozen to NF4 on disk; at the end
the head does. Then held-out text is read through all 80 blocks from disk, at every depth, and some
bytes are sampled. It proves bytes, not learning; `--learn` is for that: held-out loss has to fall
from stage to stage and to end below the unigram entropy of the text.

Ctrl-C or a kill at any moment: the same command goes on from the last stage's end. Needs 45 GB of
disk in FOLDER and 16 GiB of memory. When all is done the weights are removed (`--keep`: not), and
what was measured is written to docs/full_scale.md. It exits with 1 if the process was ever larger
than 16 GiB or the folder than 45 GB, or if a loss is no number.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from full_scale_record import RECORD, Watch, finite, record_of, shown, write_document

import stackwise as sw

MOST_GIB, MOST_GB, TOKENS, STEPS = 16.0, 45.0, 512, 2
SAMPLED = 4  # tokens, each of which reads all blocks

LEAN = {
    "data": {"corpus": "kjv", "tokenizer": "bytes", "seq_len": TOKENS},
    "precision": {
        "compute": "bfloat16",
        "weights": "bfloat16",
        "rounding": "stochastic",
        "frozen": "nf4",
        "master": "none",
    },
}
NARROW = {"d_model": 128, "heads": 8, "kv_heads": 1, "d_ff": 448}


def from_the_left(exp: sw.Experiment) -> Iterator[sw.Stage]:
    """A stage for each stack, and one for the head over all of them frozen."""
    ids = sw.stack_ids(exp.rack)
    for i, stack in enumerate(ids):
        yield sw.Stage(path=ids[: i + 1], active=(stack,), embedding=i == 0)
    yield sw.Stage(name="head", path=ids, active=(), embedding=False)


def seventy(small: bool) -> tuple[sw.Experiment, sw.Placement]:
    """Two steps for each of 80 blocks, and for the head."""
    sw.CURRICULA["from_the_left"] = from_the_left
    exp = sw.Experiment.preset("llama-2-70b").replace(title="full-scale", **LEAN)
    exp = exp.replace(rack=NARROW if small else {})
    exp = exp.replace(
        curriculum="from_the_left",
        data={"restart": True},
        optim={"name": "lion8bit", "lr": 2e-6, "batch": 1, "grads": "in_backward", "clip": None},
        budget={"tokens": (exp.rack.stacks + 1) * STEPS * TOKENS},
        eval={"points": 1, "windows": 1, "final": 1, "depths": "last"},
    )
    return exp, sw.Placement(device="cpu", trunk="cached", checkpoint_seconds=1e9)


def three(small: bool) -> tuple[sw.Experiment, sw.Placement]:
    """A hundred steps for each of three blocks, over bytes."""
    exp = sw.Experiment.preset("llama-2-70b").replace(title="full-width-learns", **LEAN)
    exp = exp.replace(rack={"stacks": 3, "vocab": None, **(NARROW if small else {})})
    exp = exp.replace(
        curriculum={"split": "tokens"},
        optim={"name": "adamw", "lr": 1e-4, "batch": 1, "warmup_frac": 0.1},
        budget={"tokens": 3 * 100 * TOKENS},
        eval={"points": 12, "windows": 8, "final": 32, "depths": "all"},
    )
    return exp, sw.Placement(device="cpu", checkpoint_seconds=600.0)


def train(folder: Path, learn: bool, small: bool, stages: int | None) -> None:
    """Train, or go on; with a number of stages, stop at their end. In a process of its own."""
    exp, placement = (three if learn else seventy)(small)

    def watch(work: Any, numbers: Any) -> None:
        at = work.at
        print(f"stage {at.stage}, step {at.step}: loss {numbers.loss:.3f}", flush=True)
        work.stop_requested |= (
            stages is not None and at.stage == stages - 1 and at.step == work.steps_of(at.stage)
        )

    sw.train(exp, placement.replace(runs_dir=str(folder / "runs")), on_step=watch)


def write_text(folder: Path) -> None:
    """Let the whole rack write, its blocks read from disk. In a process of its own."""
    (run,) = sw.runs_in(folder / "runs")
    rack, began = run.rack(lent="disk"), time.perf_counter()
    text = sw.sample(
        rack,
        "In the beginning",
        tokenizer=run.tokenizer(),
        length=SAMPLED,
        method="autoregressive",
        temperature=0.0,
    )
    (folder / "sample.json").write_text(json.dumps([text, time.perf_counter() - began]))


def main() -> int:
    """Read the command line; a child does one thing in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="on a disk with room for 45 GB")
    parser.add_argument("--stages", type=int, help="stop after so many, and show the record beside")
    parser.add_argument("--learn", action="store_true", help="three blocks, a hundred steps each")
    parser.add_argument("--small", action="store_true", help="a narrow rack; leaves no record")
    parser.add_argument("--keep", action="store_true", help="leave the weights there")
    parser.add_argument("--child", choices=["train", "write"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child == "write":
        write_text(given.folder)
        return 0
    if given.child == "train":
        train(given.folder, given.learn, given.small, given.stages)
        return 0
    return carried_out(given)


def carried_out(given: argparse.Namespace) -> int:
    """Carry out what is left, write the record, remove the weights, and judge."""
    folder = given.folder / ("learn" if given.learn else "seventy")
    if given.small:  # beside a real one
        folder = folder.with_name(f"{folder.name}-small")
    folder.mkdir(parents=True, exist_ok=True)
    # Threads that wait asleep: another program on these cores then costs its share, and not 10 x.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    watch = Watch(folder, "most")
    options = [f"--{name}" for name in ("learn", "small") if getattr(given, name)]
    options += [] if given.stages is None else ["--stages", str(given.stages)]
    code = watch.run([sys.executable, __file__, str(folder), "--child", "train", *options])
    (run,) = sw.runs_in(folder / "runs")
    if run.state != "finished" and given.stages is None:
        print(f"stopped ({run.state}); the same command goes on", file=sys.stderr)
        return code or 1
    found = record_of(run, watch)
    print(shown(found["stages"]))
    if given.stages is not None:
        return beside_the_record(found["stages"])
    if not given.learn:
        code |= watch.run([sys.executable, __file__, str(folder), "--child", "write"])
        found |= {"sample": json.loads((folder / "sample.json").read_text()), **watch.most}
    if not given.small:
        write_document("learn" if given.learn else "seventy", found)
    if not given.keep:
        shutil.rmtree(folder)
    return code or judged(found, learn=given.learn)


def beside_the_record(stages: list[dict[str, Any]]) -> int:
    """Show what the record has for these stages."""
    record = json.loads(RECORD.read_text())["seventy"]["stages"][: len(stages)]
    print("\nthe record:")
    print(shown(record))
    return 0 if finite(stages) else 1


def judged(found: dict[str, Any], *, learn: bool) -> int:
    """0 if all holds that is claimed."""
    good = finite(found["stages"])
    good &= found["resident"] <= MOST_GIB * 2**30
    print(f"resident at most {found['resident'] / 2**30:.2f} GiB of {MOST_GIB}")
    if not learn:
        good &= found["disk"] <= MOST_GB * 1e9
        print(f"on disk at most {found['disk'] / 1e9:.2f} GB of {MOST_GB}")
        return 0 if good else 1
    ends = [stage["heldout"] for stage in found["stages"]]
    good &= ends == sorted(ends, reverse=True)
    good &= found["bits_per_byte"] < found["unigram_bits_per_byte"]
    print(
        f"held-out nats per byte at the stages' ends {', '.join(f'{end:.4f}' for end in ends)}; "
        f"{found['bits_per_byte']:.4f} bits per byte in the end, where a unigram model gets "
        f"{found['unigram_bits_per_byte']:.4f}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
