"""StackWise: train transformers a few layers at a time, and know the cost before.

The public names below are imported where they are first used, so that `import stackwise` is quick.
Where two things would have one name, the home says which is meant: `module:name`.
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
    "TrustError": "errors",
    "load_code": "own_code",
    "Choice": "choice",
    "Params": "choice",
    "Stage": "stage",
    "NewStack": "stage",
    "Adapter": "adapters",
    "adapters_on": "adapters",
    "CURRICULA": "curriculum",
    "Curriculum": "curriculum",
    "stages": "curriculum",
    "ATTENTION": "model.attention",
    "AttentionKind": "model.attention",
    "SCHEDULES": "schedules",
    "time_schedule": "schedules",
    "band_edges": "masking",
    "stack_bands": "masking",
    "OBJECTIVES": "objective",
    "Corruption": "corruption",
    "corrupt": "objective",
    "loss_at": "objective",
    "CORPORA": "data.corpora",
    "TOKENIZERS": "data.tokenizer",
    "Rack": "model.rack",
    "RackShape": "model.shape",
    "stack_ids": "model.shape",
    "decode": "model.decoding",
    "count_parameters": "model.count",
    "grow_": "model.init:grow",
    "open_dataset": "data.dataset",
    "Batch": "data.batches",
    "batch_at": "data.batches",
    "baselines": "data.baselines",
    "vocab_size": "memory.flops",
    "stage_flops_per_token": "memory.flops",
    "plan": "planner.plan",
    "Plan": "planner.plan",
    "advise": "planner.advise",
    "plan_rows": "memory.bytes",
    "training_bytes": "memory.bytes",
    "HARDWARE": "planner.hardware",
    "Hardware": "planner.hardware",
    "hardware_called": "planner.hardware",
    "timed": "planner.timed",
    "calibrate": "planner.calibrate",
    "Calibration": "planner.calibration",
    "StepSeconds": "planner.seconds",
    "step_seconds": "planner.seconds",
    "StageSeconds": "planner.stage_seconds",
    "stage_seconds": "planner.stage_seconds",
    "lr_at": "training.rates",
    "stage_lr": "training.rates",
    "lr_find": "lr_range",
    "LrFound": "lr_curve",
    "StageRates": "lr_curve",
    "evaluate": "evaluation",
    "attention_map": "attention_maps",
    "read_depths": "lens",
    "weight_drift": "drift",
    "representation_drift": "drift",
    "rack_after": "stage_ends",
    "exit_losses": "probe",
    "entry_losses": "probe",
    "fixed_draws": "probe",
    "sample": "sampling",
    "sample_ids": "sampling",
    "trajectory": "sampling",
    "stream": "sampling",
    "text_of": "sampling",
    "Sampler": "sampling",
    "SAMPLERS": "sampling",
    "train": "training.run",
    "resume": "training.run",
    "launch": "detached.launch",
    "Watchdog": "detached.watchdog",
    "fetch": "mirrors.fetching",
    "prune": "pruning",
    "warm": "detached.warm",
    "Stepper": "stepping",
    "steps_of": "stepping",
    "why_of": "stepping",
    "train_stack_wise": "own.train",
    "TrainingResults": "own.train",
    "Run": "runs",
    "attach": "runs",
    "runs_in": "runs",
    "import_model": "interop.importing",
    "export_model": "interop.exporting",
    "read_model": "interop.model_folder",
    "open_model": "interop.model_folder",
    "experiment_from": "interop.beginning",
    "merge_adapters": "model.adapters",
    "save_adapters": "interop.peft_folder",
    "load_adapters": "interop.peft_folder",
    "ModelFolder": "interop.model_folder",
    "ModelError": "interop.errors",
    "Study": "study",
    "StudyResult": "study",
    "doctor": "planner.doctor",
    "error_bars": "planner.doctor",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stackwise' has no attribute {name!r}")
    module, _, there = _HOME[name].partition(":")
    value = getattr(importlib.import_module(f"stackwise.{module}"), there or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
