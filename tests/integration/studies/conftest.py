"""The studies of the repository, and results made up for them, without training anything."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

import stackwise as sw

STUDIES = Path(__file__).parents[3] / "studies"
OURS = ("common", "drawing", "figures")


@pytest.fixture(scope="session", autouse=True)
def studies_path() -> Iterator[None]:
    """What `python studies/figures.py` finds beside itself; its plain names stay in these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDIES))
        before = {name: sys.modules.pop(name, None) for name in OURS}
        yield
        for name in OURS:
            sys.modules.pop(name, None)
        sys.modules.update({name: module for name, module in before.items() if module})


@pytest.fixture(scope="session")
def common(studies_path: None) -> ModuleType:
    return importlib.import_module("common")


@pytest.fixture(scope="session")
def figures(studies_path: None) -> ModuleType:
    return importlib.import_module("figures")


@pytest.fixture(scope="session")
def folder_of(common: ModuleType) -> Callable[[int], Path]:
    return lambda number: common.folders()[number - 1]


@pytest.fixture(scope="session")
def made_up() -> Callable[[list[sw.Study]], pd.DataFrame]:
    return rows_made_up


def rows_made_up(studies: list[sw.Study], seed: int = 0) -> pd.DataFrame:
    """The rows that the runs of some studies would have, with bits drawn at random."""
    draw = np.random.default_rng(seed)
    rows = []
    for study in studies:
        units = [study.equal, *({"flops", "tokens"} - {study.equal} if study.both else ())]
        for arm in study.arms:
            jobs = [(kind, seed, None) for kind in units for seed in study.seeds]
            jobs += [("tuning", 1000, rate) for rate in study.rates]
            for kind, run_seed, rate in jobs:
                rows.append(
                    {
                        "study": study.folder.name,
                        "kind": kind,
                        "arm": arm.name,
                        "is_control": arm.name == study.control.name,
                        "seed": run_seed,
                        "hash": arm.experiment.replace(seed=run_seed).hash,
                        "lr": rate or arm.experiment.optim.lr,
                        "parameters": 1000 * arm.experiment.rack.d_model,
                        "tokens": 1e6,
                        "flops": 1e12,
                        "epochs": 0.25,
                        "bits_per_byte": 2.0 + 0.1 * draw.random(),
                        "stderr": 0.0,
                        "peak_bytes": 3e7,
                        "seconds": 1.0,
                    }
                )
    return pd.DataFrame(rows).sort_values("kind", key=lambda k: k == "tuning", kind="stable")
