"""Drift over a stage while a run trains: what the rack makes before its first step, and at its end.

Measured as `stackwise/drift.py` does between kept ends of stages, and to the same figures, but on a
few held-out windows under all noise and without keeping an end: of the path of the stage before,
likenesses of `DRIFT_POSITIONS` positions and their predictions are written into `drift.safetensors`
as a stage begins, which a resumed run reads and which is gone once the stage's end is saved. How
much there is of it says `probing.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from xxhash import xxh3_128

from stackwise.atomic import replacing
from stackwise.data.heldout import some_windows
from stackwise.drift import Seen, divergence, likeness, seen
from stackwise.objective import is_causal
from stackwise.probe import fixed_draws
from stackwise.probing import DRIFT_FILE, DRIFT_POSITIONS, drift_windows, seen_flops
from stackwise.stage import FULL_BAND
from stackwise.training.step import autocast
from stackwise.training.tensorfile import bytes_of, save_file
from stackwise.training.work import AT_THE_END, Work

PREDICTION, STAGE, HASH = "prediction", "stage", "xxh3"


def note_beginning(work: Work, number: int) -> None:
    """Keep what the rack makes as a stage that is not the first begins."""
    if not number or not work.exp.eval.drift or work.at.step:
        return
    with timed(work):
        made = read_path(work, number - 1, number)
        tensors = {**made.grams, PREDICTION: made.log_PV}
        (work.run.path / DRIFT_FILE).unlink(missing_ok=True)  # so that there are never two
        with replacing(work.run.path / DRIFT_FILE) as part:
            save_file({**tensors, STAGE: torch.tensor([number]), HASH: hash_of(tensors)}, part)


def tell_drift(work: Work, number: int) -> None:
    """Write down how far it has moved by the stage's end."""
    if not number or not work.exp.eval.drift:
        return
    try:
        old = beginning_of(work, number)
    except (LookupError, OSError, SafetensorError) as error:
        damaged = f"is damaged: {error}" if isinstance(error, SafetensorError) else str(error)
        why = "is missing" if isinstance(error, FileNotFoundError) else damaged
        work.writer.event("drift_unknown", stage=number, why=f"{DRIFT_FILE} {why}")
        return
    with timed(work):
        new = read_path(work, number, number)
    work.writer.event(
        "drift",
        stage=number,
        since=number - 1,
        step=work.at.total_steps,
        kl=divergence(old.log_PV, new.log_PV),
        drift={
            name: 1 - likeness(old.grams[name], gram_PP)
            for name, gram_PP in new.grams.items()
            if name in old.grams
        },
    )


def forget_beginning(work: Work) -> None:
    """Remove what was kept as a stage began, once a checkpoint says that it has ended."""
    (work.run.path / DRIFT_FILE).unlink(missing_ok=True)


def beginning_of(work: Work, number: int) -> Seen:
    """What was kept as a stage began.

    Raises:
        LookupError: If it is of another stage, or not what was written.
        OSError, SafetensorError: If it cannot be read.
    """
    with safe_open(work.run.path / DRIFT_FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    stage, written = (tensors.pop(name, torch.tensor([])).tolist() for name in (STAGE, HASH))
    if stage != [number]:
        raise LookupError("is not of this stage")
    if written != hash_of(tensors).tolist():
        raise LookupError("is not what was written (its hash differs)")
    log_PV = tensors.pop(PREDICTION)
    return Seen(tensors, log_PV)


def hash_of(tensors: Mapping[str, Tensor]) -> Tensor:
    """A hash of names and bytes, (16,)."""
    digest = xxh3_128()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(bytes_of(tensors[name]))
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def read_path(work: Work, of: int, during: int) -> Seen:
    """What the path of stage `of` makes of the windows now, while stage `during` is in hand."""
    exp, stage = work.exp, work.stages[of]
    windows_NT, _ = some_windows(work.dataset, drift_windows(exp))
    rule = work.corruption(during, band=FULL_BAND)
    noisy = fixed_draws(rule, windows_NT, progress=AT_THE_END)
    tokens = noisy.input_BT.numel()
    work.at.probe_flops += seen_flops(exp, stage.path, tokens, min(DRIFT_POSITIONS, tokens))
    with torch.no_grad(), autocast(work.device, getattr(torch, exp.precision.compute)):
        return seen(work.rack, noisy, stage, is_causal(exp.objective), DRIFT_POSITIONS)


@contextmanager
def timed(work: Work) -> Iterator[None]:
    """Count time and memory that are not training's."""
    work.note_peak()
    began = time.perf_counter()
    try:
        yield
    finally:
        work.at.probe_seconds += time.perf_counter() - began
        work.meter.restart()
