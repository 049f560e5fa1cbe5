"""Make the run folders of this version that stay in the tests for good.

    python tests/releases/make.py            makes tests/releases/VERSION; part of a release

Small ones of each kind that a user may have: finished; stopped in the middle of a stage, with
moments and an average; launched and stopped; streamed; the runs of a study. `expected.json` says
what the unfinished ones come to when they go on, and on which machine that was. Every later version
opens them: `tests/integration/test_runs_of_every_release_go_on.py`.

Make them from a clean checkout, or the difference to the commit goes along in provenance.json. A
folder that is there is never made again: what a release wrote is what it wrote.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import stackwise as sw
from stackwise.determinism import machine_now
from stackwise.jsontext import dumps

HERE = Path(__file__).parent
STOPPED_AT = 8  # of 12 steps: in the middle of the second stage of two
LEFT_OUT = ("lock", "supervisor", "supervisor.next", "metrics.parquet", "plan.json.part")


def experiment(title: str) -> sw.Experiment:
    """Two stacks of width 4, on synthetic text; some are looked at in every way that there is."""
    whole = title in ("finished", "interrupted")
    return sw.Experiment(
        title=title,
        rack={"stacks": 2, "blocks_per_stack": 1, "d_model": 4, "heads": 1},
        curriculum="left_to_right",
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 8},
        optim={"batch": 8, "lr": 0.01, "ema": 0.9},
        budget={"tokens": 12 * 8 * 8},
        eval={
            "points": 2 if whole else 1,
            "windows": 1,
            "final": 4,
            "drift": whole,
            "statistics": title == "finished",
        },
        objective="clm" if title == "finished" else "diffusion",  # so that it can be exported
    )


def stop_in_the_middle(work: Any, numbers: Any) -> None:
    """Ask for a stop, so that moments and averages are saved."""
    work.stop_requested = work.at.total_steps == STOPPED_AT


def make(folder: Path) -> None:
    """Train the runs."""
    place = sw.Placement(device="cpu", threads=1, runs_dir=str(folder / "runs"), keep_stages=False)
    sw.train(experiment("finished"), place.replace(keep_stages=True))
    sw.train(experiment("interrupted"), place, on_step=stop_in_the_middle)
    sw.train(experiment("streamed"), place.replace(trunk="streamed"), on_step=stop_in_the_middle)
    launched = sw.launch(experiment("launched"), place, stages=[0], queue=False)
    launched.wait()
    sw.Study(
        experiment("study").replace(curriculum="end_to_end"),
        vary={"curriculum": ["end_to_end", "left_to_right"]},
        placement=place.replace(runs_dir=str(folder / "study")),
        lr_grid=None,
        same_bytes=False,
    ).run()


def comes_to(run: sw.Run) -> dict[str, Any]:
    """What a run came to, and the losses on the way."""
    return {"weights": run.weights_hash(), "loss": run.metrics()["loss"].tolist()}


def expected(folder: Path) -> dict[str, Any]:
    """What the runs come to, gone on with in a copy."""
    with tempfile.TemporaryDirectory() as name:
        copies = Path(shutil.copytree(folder, Path(name, "copy")))
        found = sorted([*sw.runs_in(copies / "runs"), *sw.runs_in(copies / "study")], key=str)
        return {
            "machine": machine_now("cpu"),
            "runs": {str(run.path.relative_to(copies)): comes_to(sw.resume(run)) for run in found},
        }


def main() -> int:
    """Make the folder of this version."""
    target = HERE / sw.__version__
    if target.exists():
        print(f"{target}: is there, and stays as that version wrote it", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, sw.__version__)
        make(folder)
        for path in folder.rglob("*"):
            if path.name in LEFT_OUT:
                path.unlink()
        (folder / "expected.json").write_text(dumps(expected(folder), indent=1) + "\n")
        shutil.copytree(folder, target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
