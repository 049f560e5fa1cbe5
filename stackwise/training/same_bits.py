"""What a run needs of its process to compute the same bits wherever it goes on.

Threads of the CPU decide how sums are split, so a run keeps those that it was made with, wherever
it goes on. Kernels of a fixed order are asked for by `placement.deterministic`. What can be
promised then is in `stackwise/determinism.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from stackwise.config import Placement
from stackwise.determinism import CHANGED, differences
from stackwise.runs import Run, RunWriter
from stackwise.training.start import TrainingError, threads_of

MOST_THREADS = 1024
CUBLAS, WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"  # as torch asks for it


@contextmanager
def computing_alike(run: Run, placement: Placement, device: torch.device) -> Iterator[None]:
    """Inside, this process computes as the run does: its threads, and its kind of kernels."""
    threads = threads_for(run, placement, device)
    order = fixed_order() if placement.deterministic else nullcontext()
    with threads_of(placement.replace(threads=threads)), order:
        yield


def threads_for(run: Run, placement: Placement, device: torch.device) -> int | None:
    """The CPU's threads for a run: those asked for, or else those that it was made with.

    None where the run does not say, and on a card, whose numbers do not depend on them.
    """
    if placement.threads is not None or device.type != "cpu":
        return placement.threads
    made = run.provenance().get("threads")
    if isinstance(made, bool) or not isinstance(made, int) or not 1 <= made <= MOST_THREADS:
        return None
    return made


@contextmanager
def fixed_order() -> Iterator[None]:
    """Inside, torch takes kernels that add in a fixed order, and refuses those that do not.

    Raises:
        TrainingError: If something has no such kernel.
    """
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    os.environ.setdefault(CUBLAS, WORKSPACE)  # read as a card's first product is taken
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error) or isinstance(error, TrainingError):
            raise
        raise TrainingError(
            f"placement.deterministic: true, but torch says: {str(error).partition(', but')[0]}; "
            "the last checkpoint is intact; go on with placement.deterministic=false"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def tell_changes(run: Run, writer: RunWriter, now: Mapping[str, Any], after_step: int) -> None:
    """Write down that a run goes on where, or in a way in which, last bits may differ.

    Args:
        run: The run.
        writer: Of its folder.
        now: What is promised from here on, of `promised_here`.
        after_step: Steps that were taken before.
    """
    known = run.determinism()
    if known["promised"] is None:
        return
    if changed := differences(known["same"], now["same"]):
        writer.event(CHANGED, after_step=after_step, changed=changed, now=dict(now))
