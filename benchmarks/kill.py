"""Hundreds of runs are killed, go on, and are compared with runs that nobody killed.

    python benchmarks/kill.py [KILLS] [SEED]     of 500, from seed 0, by default

Kinds of runs come in turn: every curriculum, with every optimizer, trunk source and number of data
workers in turns of their own (`killed.py`). Of each kind one run is left alone; others are killed
one to three times each, at a drawn operation on a file or at a drawn time, and go on. Weights,
metrics, looks, statistics, drift, result, best weights and the names of all files must then be the
same; clocks and peaks are not compared. Printed are two tables, by curriculum and by moment; the
record is a line of JSON with what was drawn of each run that was not the same. It exits 1 if there
is one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from killed import DATA, begun, kinds, straight, trial

from stackwise.report import table

EACH = (1, 2, 3)  # kills of a kind's runs, one after the other


def main(kills: int, seed: int) -> int:
    """Kill so many, and print what came of it."""
    torch.set_num_threads(1)
    began, runs, wrong = time.monotonic(), Counter[str](), list[dict[str, object]]()
    moments, struck, optimizers = Counter[str](), Counter[str](), dict[str, set[str]]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["STACKWISE_CACHE"] = str(folder / DATA)
        for number, kind in enumerate(kinds(begun(folder / "start"), seed)):
            if struck.total() >= kills:
                break
            curriculum = kind.facts["curriculum"]
            here = folder / str(number)
            whole = straight(kind, here)
            for each in EACH:
                done = trial(kind, whole, here, f"{seed} {number} {each}", each)
                runs[curriculum] += 1
                struck[curriculum] += len(done.struck)
                moments.update(moment for moment, _ in done.struck)
                optimizers.setdefault(curriculum, set()).add(kind.facts["optimizer"])
                if done.wrong:
                    found = {"seed": done.seed, **kind.facts, "struck": done.struck}
                    wrong.append(found | {"curriculum": curriculum, "wrong": done.wrong})
    rows = [
        (name, runs[name], struck[name], len(optimizers[name]), count(wrong, name)) for name in runs
    ]
    every = len(set[str]().union(*optimizers.values()))
    rows.append(("all", runs.total(), struck.total(), every, len(wrong)))
    print(table(["curriculum", "runs", "kills", "optimizers", "not the same"], told(rows)))
    print(table(["a kill came as", "times"], told(moments.most_common())))
    record = {"kills": struck.total(), "runs": runs.total(), "seed": seed, "wrong": wrong}
    print(json.dumps({**record, "seconds": round(time.monotonic() - began)}))
    return int(bool(wrong))


def told(rows: Iterable[tuple[object, ...]]) -> list[list[str]]:
    """Rows as a table has them."""
    return [[str(cell) for cell in row] for row in rows]


def count(wrong: list[dict[str, object]], curriculum: str) -> int:
    """How many of a curriculum's runs were not the same."""
    return sum(found["curriculum"] == curriculum for found in wrong)


if __name__ == "__main__":
    asked = [int(value) for value in sys.argv[1:]]
    raise SystemExit(main(*[*asked, *(500, 0)[len(asked) :]]))
