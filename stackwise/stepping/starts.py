"""What new stacks start from, in words, and what such a start is good for.

Why a stage is carried out as it is stands in `why.py`; what it adds at random is said there.
"""

from __future__ import annotations

from collections.abc import Sequence

from stackwise.stage import FROM_OTHERS, NewStack, Stage
from stackwise.stepping.words import named

MOST_NAMED = 6  # new stacks that are told one by one
STARTS = {
    "copy": "{0.stack} is a copy of {0.source}",
    "copy+noise": "{0.stack} is a copy of {0.source} with noise of {0.noise:g} on its weights",
    "interpolate": "{0.stack} is halfway between {0.source} and {0.other}, weight by weight",
    "zero_output": "{0.stack} is fresh, with output weights at zero",
}


def grown(stage: Stage, made: Sequence[NewStack]) -> str:
    """What the stacks that do not start at random start from, and what that is good for."""
    inits = {entry.init for entry in made}
    said = f"{_starts(made)}. "
    if inits & set(FROM_OTHERS):
        said += (
            "What a trained stack does is a better start than random weights, as neighbouring "
            "layers do similar work. "
        )
    if "zero_output" in inits:
        said += (
            "A stack that adds nothing to what runs past it changes no output, so the loss goes on "
            "from where it was. "
        )
    if set(stage.path) - set(stage.active or ()):
        return f"{said}{named(stage.active or ())} alone can move; the other stacks stand still."
    return (
        f"{said}All stacks of the path train, so the gradient goes all the way down, and the whole "
        "rack moves together: nothing can be cached, but the early steps ran through a shallow "
        "rack and cost less."
    )


def _starts(made: Sequence[NewStack]) -> str:
    """Each new stack's start; of many the first and the last."""
    told = [STARTS[entry.init].format(entry) for entry in made]
    return ", ".join(told) if len(told) <= MOST_NAMED else f"{told[0]}, and so on up to {told[-1]}"
