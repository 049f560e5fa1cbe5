"""StackWise: train transformers a few layers at a time, and know the cost before.

The public names below are imported where they are first used, so that `import stackwise` is quick.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Experiment": "config",
    "Placement": "config",
    "presets": "config",
    "ExperimentError": "errors",
    "Choice": "choice",
    "Params": "choice",
    "Stage": "stage",
    "NewStack": "stage",
    "CURRICULA": "curriculum",
    "stages": "curriculum",
    "ATTENTION": "model.attention",
    "SCHEDULES": "schedules",
    "OBJECTIVES": "objective",
    "CORPORA": "data.corpora",
    "TOKENIZERS": "data.tokenizer",
    "Rack": "model.rack",
    "RackShape": "model.shape",
    "stack_ids": "model.shape",
    "count_parameters": "model.count",
    "open_dataset": "data.dataset",
    "evaluate": "evaluation",
    "sample": "sampling",
    "train": "training.run",
    "resume": "training.run",
    "train_stack_wise": "own.train",
    "TrainingResults": "own.train",
    "Run": "runs",
    "attach": "runs",
    "runs_in": "runs",
    "Study": "study",
    "StudyResult": "study",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stackwise' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"stackwise.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
