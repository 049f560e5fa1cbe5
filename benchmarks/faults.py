"""A disk that refuses at every operation of a run, and a bit flipped at many places of every file.

What `tests/integration/test_a_disk_that_refuses_loses_nothing.py` and `test_every_file_of_a_run_is_
damaged_in_turn.py` do at some places is done at all, or at as many as are asked for, by the same
functions. Some minutes for each kind of fault; it ends with an error at the first thing that is
lost, silent, or a traceback.

    python benchmarks/faults.py [--flips 2000]
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import random
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import stackwise as sw
from stackwise.runs import writer

sys.path.insert(0, str(Path(__file__).parents[1]))
refusing = importlib.import_module("tests.integration.test_a_disk_that_refuses_loses_nothing")
damage = importlib.import_module("tests.integration.test_every_file_of_a_run_is_damaged_in_turn")


def refuse_everywhere(base: Path) -> None:
    """Each operation with each error, lasting and once."""
    disk = refusing.Refusing(base / "straight")
    with disk.here():
        straight = refusing.train(base / "straight")
    for number in (errno.ENOSPC, errno.EIO, errno.EROFS):
        said = 0
        for place in range(len(disk.seen)):
            root = base / f"{number}-{place}"
            said += bool(refusing.refused(root, place, number, number != errno.EIO, straight))
            shutil.rmtree(root)
        print(f"{os.strerror(number)}: {len(disk.seen)} operations refused, {said} said, 0 lost")


def flip_everywhere(base: Path, flips: int) -> None:
    """Bits flipped and ends cut off at random places of every file."""
    runs, chance = damage.made(base), random.Random(0)
    for which, original in runs.items():
        clean = damage.readings(original)
        copy = Path(shutil.copytree(original.path, base / which / original.id))
        paths = [p for p in sorted(original.path.rglob("*")) if p.is_file() and p.stat().st_size]
        for path in chance.choices(paths, k=flips):
            inside = path.relative_to(original.path)
            (copy / inside).write_bytes(damage.damaged(path.read_bytes(), chance))
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                damage.check(clean, damage.readings(sw.Run(copy)), inside, said)
            (copy / inside).write_bytes(path.read_bytes())
        print(f"{which} run: {flips} files damaged, nothing silently another one")


def main() -> None:
    """Do both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--flips", type=int, default=500)
    options = parser.parse_args()
    writer.HEARTBEAT_SECONDS = 3600.0  # or it would count as an operation
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STACKWISE_CACHE"] = str(Path(folder, "prepared"))
        flip_everywhere(Path(folder), options.flips)
        refuse_everywhere(Path(folder))


if __name__ == "__main__":
    main()
