"""What is wrong with the folder of a model: always the file, the rule and the way out."""

from __future__ import annotations

from collections.abc import Sequence

MOST_SHOWN = 8


class ModelError(ValueError):
    """A model folder, or one of Hugging Face's, that cannot be read or written as asked."""


class DamagedModel(ModelError):
    """A model folder whose files are not what was written."""


def refuse(problems: Sequence[str]) -> None:
    """Raise with all the problems at once, one line each; the first few where they are many.

    Raises:
        ModelError: If there is one.
    """
    if problems:
        shown, more = problems[:MOST_SHOWN], len(problems) - MOST_SHOWN
        raise ModelError("\n".join([*shown, *([f"and {more} more of the kind"] * (more > 0))]))
