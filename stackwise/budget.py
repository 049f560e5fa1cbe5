"""How a budget is spent over stages: whole optimizer steps, and the whole of it.

The stages come from `curriculum.py`; what a token of each costs from `memory/flops.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from stackwise.by_stage import step_tokens
from stackwise.errors import ExperimentError
from stackwise.memory.flops import stage_flops_per_token
from stackwise.stage import Stage

if TYPE_CHECKING:
    from stackwise.config import Experiment


ROUNDS = 16  # prices settle in two or three where they move with training


def with_tokens(exp: Experiment, made: Sequence[Stage]) -> list[Stage]:
    """Give every stage whole optimizer steps, so that the budget is met, and its part of training.

    Where masking moves with training, what a token costs depends on when the stage comes, and that
    on the tokens before it: both are settled together.

    Raises:
        ExperimentError: As `_spent`.
    """
    out = placed(_spent(exp, made))
    for _ in range(ROUNDS):
        when = [{"progress": stage.progress} for stage in out]
        moved = [stage.model_copy(update=at) for stage, at in zip(made, when, strict=True)]
        again = placed(_spent(exp, moved))
        if again == out:
            break
        out = again
    return out


def steps_of(exp: Experiment, stage: Stage) -> int:
    """Optimizer steps of a stage."""
    return (stage.tokens or 0) // step_tokens(exp, stage)


def steps_before(exp: Experiment, stage: Stage) -> int:
    """Optimizer steps of the stages before it, of its own length; 0 for one that has none."""
    begin, end = stage.progress
    return round(begin * steps_of(exp, stage) / (end - begin)) if end > begin else 0


def placed(made: Sequence[Stage]) -> list[Stage]:
    """Say which part of all tokens each stage reads."""
    tokens = [stage.tokens or 0 for stage in made]
    edges = [done / sum(tokens) for done in accumulate(tokens, initial=0)]
    spans = list(pairwise(edges))
    return [s.model_copy(update={"progress": at}) for s, at in zip(made, spans, strict=True)]


def _spent(exp: Experiment, made: Sequence[Stage]) -> list[Stage]:
    """Split the budget over stages at the prices of the part of training that each of them is.

    What a stage gains or loses by rounding is handed to the next in the budget's own unit, so that
    the whole comes within half a step of the dearest stage. Tokens that a stage gives itself are
    rounded up to whole steps.

    Raises:
        ExperimentError: If the budget is not enough for one step of every stage.
    """
    size = [step_tokens(exp, stage) for stage in made]
    costs = [stage_flops_per_token(exp, stage).total for stage in made]
    in_flops = exp.budget.flops is not None
    unit = [n * (cost if in_flops else 1.0) for n, cost in zip(size, costs, strict=True)]
    budget = float(exp.budget.flops or exp.budget.tokens or 0)
    given = [
        -(-stage.tokens // n) if stage.tokens else None for stage, n in zip(made, size, strict=True)
    ]
    spent = sum(u * n for u, n in zip(unit, given, strict=True) if n)
    parts = [n / (exp.optim.batch * exp.data.seq_len) for n in size]
    weights = [  # steps, up to a common factor
        0.0 if n else stage.share / (cost if stage.share_of == "flops" else 1.0) / part
        for stage, cost, n, part in zip(made, costs, given, parts, strict=True)
    ]
    if spent > budget + max(unit):
        raise ExperimentError(
            _too_small(exp, spent, "what the stages with tokens of their own take")
        )
    whole = sum(u * w for u, w in zip(unit, weights, strict=True))
    if whole:
        rarest = min(w for w in weights if w)
        need = spent + whole / rarest
        if budget < need * (1 - 1e-9):
            number = weights.index(rarest)
            what = f"one step of {size[number]} tokens for stage {number} ({made[number].name})"
            raise ExperimentError(_too_small(exp, need, what))
    scale = (budget - spent) / whole if whole else 0.0
    out, left = [], 0.0
    for stage, n, w, u in zip(made, given, weights, unit, strict=True):
        steps = n or max(1, round(w * scale + left / u))
        left += 0.0 if n else (w * scale - steps) * u
        out.append(stage.model_copy(update={"tokens": steps * step_tokens(exp, stage)}))
    return out


def _too_small(exp: Experiment, need: float, what: str) -> str:
    """The message of a budget that is not enough; the number it names is."""
    key = "flops" if exp.budget.flops is not None else "tokens"
    given = exp.budget.flops or exp.budget.tokens or 0
    grain = 10 ** max(0, math.floor(math.log10(need)) - 3)
    enough = math.ceil(need / grain) * grain
    least = f"{enough:.3e}" if key == "flops" else str(enough)
    shown = f"{given:.3e}" if key == "flops" else str(given)
    return f"budget.{key}: {shown} is less than {what}; give at least {least}, or lower optim.batch"


def with_spans(made: Sequence[Stage]) -> list[Stage]:
    """Lay stages that continue one schedule end to end on it, by tokens."""
    shared = [stage.lr != "per_stage" for stage in made]
    whole = sum(s.tokens or 0 for s, share in zip(made, shared, strict=True) if share)
    out, done = [], 0
    for stage, share in zip(made, shared, strict=True):
        if share:
            start, done = done, done + (stage.tokens or 0)
            stage = stage.model_copy(update={"lr_span": (start / whole, done / whole)})
        out.append(stage)
    return out
