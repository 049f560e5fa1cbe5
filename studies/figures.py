"""Makes the figures of the studies: `python studies/figures.py [NUMBER ...]`.

From run folders where they are, writing `result.csv` if it is not there yet; else from
`result.csv` alone, which it says. Nothing is trained unless `--run` is given; then what is missing
is, as `stackwise study studies/NN_name/study.yaml` does it, and a run that stopped goes on.
`--check` writes nothing: it works every number out again and compares it with `result.csv`, to the
tolerances of `common.py` and of each `figure.py`. Exit code 1 if one differs, 130 if stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from common import TOLERANCE, differing, figure_of, finished, folders, read, studies_of, title_of
from drawing import save

from stackwise.training.run import Stopped
from stackwise_widgets import PaperFigure

STOPPED = 130  # the exit code of what Ctrl-C stopped; all is saved
WORDS = {True: "right", False: "wrong", None: "undecided"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, or check, what is asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("number", nargs="*", type=int, help="studies, by number; none: all")
    parser.add_argument("--run", action="store_true", help="train what is missing first")
    parser.add_argument("--check", action="store_true", help="compare numbers, and write nothing")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, with --run")
    asked = parser.parse_args(arguments)
    known = {int(folder.name[:2]): folder for folder in folders()}
    if set(asked.number) - set(known):
        parser.error(f"there are studies {', '.join(map(str, known))}")
    wrong = 0
    for number in asked.number or known:
        folder = known[number]
        print(f"{folder.name}: {title_of(folder)}", flush=True)
        try:
            if asked.run:
                trained(folder, asked.workers)
        except Stopped as stopped:
            print(f"  {stopped}")
            return STOPPED
        wrong += checked(folder) if asked.check else made(folder)
    return 1 if wrong else 0


def trained(folder: Path, workers: int) -> None:
    """Train what is missing, one run in each process."""
    for study in studies_of(folder):
        if not finished(study):
            study.run(
                workers=workers,
                threads=1,
                on_arm=lambda arm, seed: print(f"  {arm.name}, seed {seed}", flush=True),
            )


def measured(folder: Path) -> pd.DataFrame | None:
    """The rows of its result, from its run folders; None unless all of them are there."""
    studies = studies_of(folder)
    if not all(finished(study) for study in studies):
        return None
    frame: pd.DataFrame = figure_of(folder).measure(studies)
    return frame


def made(folder: Path) -> int:
    """Draw a study's figure; 1 if its runs do not give the result that is written down."""
    has, file = (folder / "result.csv").is_file(), folder / "result.csv"
    frame = measured(folder)
    if frame is None and not has:
        print("  not run to its end: give --run, or run stackwise study on its study.yaml")
        return 0
    if frame is not None and has and told(folder, frame):
        return 1
    if frame is not None and not has:
        frame.to_csv(file, index=False, lineterminator="\n")
    print("  from run folders" if frame is not None else "  from result.csv alone, without runs")
    save(drawn(folder), folder)
    return 0


def checked(folder: Path) -> int:
    """Compare a study's numbers; 1 if one differs."""
    if not (folder / "result.csv").is_file():
        print("  not run: there is no result.csv")
        return 0
    frame = measured(folder)
    drawn(folder)
    if frame is None:
        print("  the run folders are not here: the figure was drawn from result.csv alone")
        return 0
    if told(folder, frame):
        return 1
    print("  every number was worked out again from the run folders, and agrees")
    return 0


def told(folder: Path, frame: pd.DataFrame) -> bool:
    """Say in what the runs differ from result.csv, and whether they do."""
    tolerance = {**TOLERANCE, **getattr(figure_of(folder), "TOLERANCE", {})}
    found = list(differing(read(folder), frame, tolerance))
    for line in found:
        print(f"  result.csv differs: {line}")
    return bool(found)


def drawn(folder: Path) -> PaperFigure:
    """The figure, from result.csv; what came of each prediction is printed."""
    module, frame = figure_of(folder), read(folder)
    for claim in module.claims(frame):
        print(f"  {WORDS[claim.held]}: {claim.text}")
    figure: PaperFigure = module.draw(frame)
    return figure


if __name__ == "__main__":
    sys.exit(main())
