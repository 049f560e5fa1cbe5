"""The same experiment with all of its rack trained at once: what others are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackwise.config import Experiment


def as_end_to_end(exp: Experiment, **changes: Any) -> Experiment:
    """An experiment under `end_to_end`, without what only stages that freeze or follow can mean.

    Args:
        exp: The experiment.
        changes: Sections to change besides, as for `replace`.
    """
    plain = {
        name: {key: field.default for key, field in type(section).model_fields.items()}
        for name, section in (("adapters", exp.adapters), ("preserve", exp.preserve))
    }
    whole = {"curriculum": "end_to_end", "masking": {"bands": None}, **plain}
    return exp.replace(**{**whole, **changes})


def in_one_stage(exp: Experiment) -> Experiment:
    """The same in a single stage: samples, mixture and blocks of text as they are at its end."""
    data: dict[str, Any] = {"seq_len_by_stage": None, "weights_by_stage": None}
    sizes = exp.objective.model_dump()
    if sizes.get("block_by_stage"):
        sizes |= {"block": sizes["block_by_stage"][-1], "block_by_stage": None}
    return as_end_to_end(exp, data=data, objective=sizes)
