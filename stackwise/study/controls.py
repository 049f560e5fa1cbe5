"""The arms without which a comparison says little: they are added where a study lacks them.

The control is the base's own rack trained end to end, under a schedule that decays to zero: against
one that does not, many gains of growing vanish at a fixed budget (arXiv 2307.06440). The arm of
equal bytes is the end-to-end rack made so shallow that it trains in the memory of the most saving
arm: given this much memory, which wins?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stackwise.config import Experiment, Placement
from stackwise.curriculum import stages
from stackwise.end_to_end import as_end_to_end
from stackwise.errors import ExperimentError
from stackwise.memory.bytes import training_bytes
from stackwise.model.shape import total_blocks
from stackwise.report import bytes_text
from stackwise.study.arms import Arm
from stackwise.training.rates import lr_at
from stackwise.training.start import settled

CONTROL, SAME_BYTES = "control", "same bytes"
DECAYED = 1e-9  # of the peak rate: what a schedule may end at and still count as decayed


def decays(exp: Experiment) -> bool:
    """Whether an experiment's learning-rate schedule ends at zero."""
    return lr_at(exp.optim, 1.0) <= DECAYED * exp.optim.lr


def decayed(exp: Experiment) -> Experiment:
    """The same under a schedule that ends at zero: its own, or warmup-stable-decay."""
    return exp if decays(exp) else exp.replace(optim={"schedule": "wsd"})


def is_end_to_end(exp: Experiment) -> bool:
    """Whether it trains all of its rack in one stage, whatever its curriculum is called."""
    if exp.curriculum.choice == "end_to_end":
        return True
    try:
        made = stages(exp)
    except ExperimentError:
        return False
    (one, *rest), ids = made, {f"s{i}" for i in range(exp.rack.stacks)}
    whole = one.embedding and one.head and set(one.path) == set(one.active or ()) == ids
    return whole and not rest


def control_of(base: Experiment, arms: Sequence[Arm]) -> Arm | None:
    """The arm that serves as control: the base's rack, end to end, decayed. None if none does.

    One that differs from the base in nothing else is preferred.
    """
    found = [
        arm
        for arm in arms
        if arm.experiment.rack == base.rack
        and is_end_to_end(arm.experiment)
        and decays(arm.experiment)
    ]
    plain = [arm for arm in found if same_but_curriculum(arm.experiment, base)]
    return next(iter(plain or found), None)


def same_but_curriculum(one: Experiment, other: Experiment) -> bool:
    """Whether two experiments differ in curriculum, noise bands, budget and title at most."""
    keys: dict[str, Any] = {"title": "same", "budget": {"tokens": 1}}
    return as_end_to_end(one, **keys) == as_end_to_end(other, **keys)


def new_control(base: Experiment) -> Arm:
    """The base's rack end to end, under a schedule that decays to zero."""
    return Arm(CONTROL, decayed(as_end_to_end(base)))


def same_bytes_arm(
    control: Experiment, arms: Sequence[Arm], placement: Placement
) -> tuple[Arm | None, str]:
    """The control's rack made as shallow as the memory of the most saving arm asks for.

    Args:
        control: The control.
        arms: The arms.
        placement: How they are carried out, which decides bytes; never on a card, so that it is
            the same arm on every machine.

    Returns:
        The arm, or None with the reason; an empty one where no arm saves memory.
    """
    place = placement.replace(device="cpu")
    whole = bytes_of(control, place)
    saving = [bytes_of(a.experiment, place) for a in arms if not is_end_to_end(a.experiment)]
    if min(saving, default=whole) >= whole:
        return None, ""
    limit = min(saving)
    exp, where = settled(control, place)
    try:
        small = shrunk_to(exp, limit, where)
    except ExperimentError:
        return None, (
            f"no end-to-end rack of width {control.rack.d_model} trains in {bytes_text(limit)}, "
            "so there is no arm of equal bytes"
        )
    shape = {key: getattr(small.rack, key) for key in ("stacks", "blocks_per_stack")}
    arm = Arm(SAME_BYTES, control.replace(rack=shape))
    blocks = total_blocks(arm.experiment.rack)
    if any(total_blocks(a.experiment.rack) == blocks and _alike(a.experiment, arm) for a in arms):
        return None, ""
    return arm, ""


def _alike(exp: Experiment, arm: Arm) -> bool:
    """Whether an experiment is an arm's but for its title and for how its blocks are stacked."""
    rack = {key: getattr(arm.experiment.rack, key) for key in ("stacks", "blocks_per_stack")}
    try:
        return is_end_to_end(exp) and same_but_curriculum(exp.replace(rack=rack), arm.experiment)
    except ExperimentError:
        return False


def bytes_of(exp: Experiment, placement: Placement) -> int:
    """The highest bytes of training, by arithmetic."""
    return training_bytes(*settled(exp, placement))


def shrunk_to(exp: Experiment, limit_bytes: int, placement: Placement | None = None) -> Experiment:
    """The deepest end-to-end experiment whose training bytes are at most `limit_bytes`.

    Width and all else stay; blocks are left out, in one stack. It answers: given this much memory,
    which wins?

    Args:
        exp: The experiment.
        limit_bytes: How much memory there is.
        placement: How it is carried out; None for the defaults.

    Raises:
        ExperimentError: If not even one block fits.
    """
    place = Placement() if placement is None else placement.replace(trunk="recompute")
    for blocks in range(total_blocks(exp.rack), 0, -1):
        rack = {"stacks": 1, "blocks_per_stack": blocks}
        small = as_end_to_end(exp, rack=rack)
        if training_bytes(small, place) <= limit_bytes:
            return small
    raise ExperimentError(
        f"no end-to-end rack of this width trains in {limit_bytes} bytes; lower rack.d_model"
    )
