"""Make the finished runs that ship in `data/runs/`, small enough to look at in every panel at once.

    python data/make_runs.py        replaces data/runs/

Four curricula on the King James text, byte by byte, at equal FLOPs; a rack of some 30 thousand
parameters each, so what they say of the curricula is nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import stackwise as sw

HERE = Path(__file__).parent


def main() -> None:
    """Train the runs."""
    shutil.rmtree(HERE / "runs", ignore_errors=True)
    base = sw.Experiment.preset("toy").replace(
        title="shipped",
        rack={"blocks_per_stack": 1, "d_model": 24, "heads": 2},
        data={"tokenizer": "bytes", "seq_len": 64},
        optim={"batch": 16},
        budget={"flops": 2e10},
        eval={"points": 8, "windows": 24},
    )
    banded = base.replace(
        curriculum={"name": "right_to_left", "embedding": "first"},
        masking={"bands": "equal_mass"},
    )
    arms = {"left_to_right": base.replace(curriculum="left_to_right"), "right_to_left": banded}
    arms["grow"] = base.replace(curriculum="grow")
    placement = sw.Placement(device="cpu", threads=1, runs_dir=str(HERE / "runs"))
    plain = {"lr_grid": None, "same_bytes": False}
    study = sw.Study(base, more=arms, name="end_to_end", placement=placement, **plain)
    study.run()
    shutil.rmtree(study.folder)
    for path in HERE.glob("runs/*/lock"):
        path.unlink()


if __name__ == "__main__":
    main()
