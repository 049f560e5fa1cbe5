"""Which racks a Llama can be: every option that it has not, with what it has.

The same from the other side, keys of a config.json that a rack has not, is in `llama_config.py`.
"""

from __future__ import annotations

from stackwise.choice import Params
from stackwise.errors import short
from stackwise.interop.errors import ModelError
from stackwise.interop.llama_config import DIVIDE
from stackwise.model.shape import RackShape
from stackwise.objective import OBJECTIVES, Objective

NEEDED = {
    "ffn": "swiglu",
    "norm": "rmsnorm",
    "norm_place": "pre",
    "positions": "rope",
    "qk_norm": False,
    "residual_gain": 1.0,
    "depth_base": None,
    "time": "none",
    "token_types": 0,
    "embed_norm": False,
    "head_transform": False,
    "head_bias": False,
}
ATTENTIONS = ("mha", "gqa")


def refuse_what_is_no_llama(
    shape: RackShape, attention: Params, objective: str, whose: str
) -> None:
    """Refuse a rack that no Llama can be.

    Raises:
        ModelError: With every reason.
    """
    found = [f"objective: {line}" for line in of_objective(objective)]
    if attention.choice not in ATTENTIONS:
        found.append(
            f"attention: {attention.choice!r} is none of a Llama's: {', '.join(ATTENTIONS)}"
        )
    for key, wanted in NEEDED.items():
        value = getattr(shape, key)
        if value != wanted:
            found.append(f"rack.{key}: {short(value)} is not a Llama's, which has {wanted!r}")
    if isinstance(shape.rope_base, tuple) and len(set(shape.rope_base)) > 1:
        found.append(
            f"rack.rope_base: {short(shape.rope_base)} differs between blocks; a Llama has one"
        )
    windows = shape.window if isinstance(shape.window, tuple) else (shape.window,)
    if any(window is not None for window in windows):
        found.append(f"rack.window: {short(shape.window)} is not a Llama's, which sees all tokens")
    if shape.d_model % shape.heads:
        found.append(f"rack.heads: {shape.heads} does not divide d_model={shape.d_model}; {DIVIDE}")
    if found:
        lines = "\n".join(f"{whose}: {line}" for line in found)
        raise ModelError(
            f"{lines}\n{whose}: is no Llama for these reasons; it can be used from here "
            "(run.rack(), stackwise sample), and one that is trained without them exported"
        )


def of_objective(name: str) -> list[str]:
    """What is wrong with what the rack learned."""
    entry = OBJECTIVES.get(name)
    if isinstance(entry, Objective) and entry.causal:
        return []
    causal = [key for key, e in OBJECTIVES.items() if isinstance(e, Objective) and e.causal]
    return [
        f"{name!r} reads in both directions, and a Llama is loaded as one that reads from left to "
        f"right, which this rack never did; train with {' or '.join(causal)}"
    ]
