"""What the terms that hold a stage to the rack before it take: copies, and their work.

The terms are in `training/holding.py`. Copies of parts that train lie in memory throughout, as they
train. Consistency keeps the difference of what goes into the suffix and what should; distillation
the old rack's outputs at the counted positions, and logits twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise.adapters import SUFFIX
from stackwise.evaluation import LOGITS_AT_ONCE
from stackwise.memory.stored import Tensors, part_tensors, trained_tensors
from stackwise.preserving import copied_parts, distils, joint_of

if TYPE_CHECKING:
    from stackwise.config import Experiment
    from stackwise.stage import Stage

FLOAT = 4
AT_ONCE = 9  # of logits: both, softened, their probabilities and gradients


def held_copies(exp: Experiment, stage: Stage, untied: bool) -> dict[str, Tensors]:
    """Numbers and axes of the tensors of the parts that are kept as they were, by name."""
    return {
        part: trained_tensors(exp, part, stage=stage)
        if part.endswith(SUFFIX)
        else part_tensors(exp, part, untied=untied)
        for part in sorted(copied_parts(stage))
    }


def held_activations(exp: Experiment, stage: Stage, rows: int, counted: float) -> int:
    """Bytes that terms keep from forward to backward, of a micro-batch."""
    row = FLOAT * exp.rack.d_model
    return round(row * ((joint_of(stage) is not None) * rows + distils(stage) * counted))


def distilling_bytes(vocab: int, counted: float) -> int:
    """Bytes of logits and what is worked out of them, while predictions are distilled."""
    return round(FLOAT * AT_ONCE * min(counted * vocab, max(LOGITS_AT_ONCE, vocab)))
