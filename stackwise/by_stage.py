"""What a stage reads where that is not what the experiment reads: shorter samples, another mixture.

Or the same in blocks of another size, with `block_diffusion`. Lists of the experiment
(`data.seq_len_by_stage`, `data.weights_by_stage`, `objective.block_by_stage`) are written into its
stages here, so that planner, trainer and pictures look at a stage and at nothing else. Costs of a
stage are those of the experiment at the stage's own length and blocks: `as_read`. Held-out text is
always cut into samples of `data.seq_len`, at looks during a stage, too, so that all losses can be
compared; of blocks it has the stage's (`in_blocks`), and at the end those of the last one.
Which samples a step gets is in `data/batches.py` and `data/mixing.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stackwise.data.corpora import MixParams
from stackwise.stage import Stage

if TYPE_CHECKING:
    from stackwise.config import Experiment

LISTS = {  # of a stage's key, the list in the experiment
    "seq_len": "data.seq_len_by_stage",
    "weights": "data.weights_by_stage",
    "block": "objective.block_by_stage",
}


def as_read(exp: Experiment, stage: Stage) -> Experiment:
    """The experiment with the length and blocks of a stage's samples in the place of its own."""
    exp = in_blocks(exp, stage)
    if stage.seq_len is None or stage.seq_len == exp.data.seq_len:
        return exp
    data = exp.data.model_copy(update={"seq_len": stage.seq_len})
    return exp.model_copy(update={"data": data})


def in_blocks(exp: Experiment, stage: Stage) -> Experiment:
    """The experiment with a stage's size of blocks in the place of its own."""
    if stage.block is None:
        return exp
    changed = {"block": stage.block, "block_by_stage": None}
    return exp.model_copy(update={"objective": exp.objective.model_copy(update=changed)})


def said_of(exp: Experiment, path: str) -> tuple[Any, ...] | None:
    """The list at a path; None where it is empty, or the kind of a section has no such key."""
    section, _, name = path.partition(".")
    values: tuple[Any, ...] | None = getattr(getattr(exp, section), name, None)
    return values


def step_tokens(exp: Experiment, stage: Stage) -> int:
    """Tokens that an optimizer step of a stage reads."""
    return exp.optim.batch * (stage.seq_len or exp.data.seq_len)


def phases(exp: Experiment) -> int:
    """Into how many stages what is read divides an experiment; 1 where that never changes."""
    lists = (said_of(exp, path) for path in LISTS.values())
    return max((len(values) for values in lists if values is not None), default=1)


def with_own_data(exp: Experiment, made: Sequence[Stage]) -> list[Stage]:
    """Give each stage what the lists of the experiment say of it; what it says itself stays.

    Raises:
        ValueError: If a list has another number of entries than there are stages.
    """
    out = list(made)
    for key, path in LISTS.items():
        values = said_of(exp, path)
        if values is None:
            continue
        if len(values) != len(made):
            raise ValueError(
                f"{path}: {len(values)} entries for the {len(made)} stages of curriculum="
                f"{exp.curriculum.choice}; give one for each stage"
            )
        for number, (stage, value) in enumerate(zip(out, values, strict=True)):
            if getattr(stage, key) is None:
                out[number] = stage.model_copy(update={key: value})
    return out


def data_problems(exp: Experiment, stage: Stage) -> Iterator[str]:
    """What is wrong with what a stage reads."""
    if stage.seq_len is not None and stage.seq_len > exp.data.seq_len:
        yield (
            f"seq_len: {stage.seq_len} > data.seq_len={exp.data.seq_len}, of which its samples are "
            "cut; shorten it, or raise data.seq_len"
        )
    if stage.block is not None and "block" not in type(exp.objective).model_fields:
        yield (
            f"block: {stage.block} tokens per block, and objective={exp.objective.choice} has no "
            "blocks; leave it out, or use objective=block_diffusion"
        )
    if stage.weights is None:
        return
    corpus = exp.data.corpus
    if not isinstance(corpus, MixParams):
        yield (
            f"weights: {list(stage.weights)} weigh the corpora of a mixture, and data.corpus is "
            f"{corpus.choice}; leave them out, or use data.corpus=mix"
        )
    elif len(stage.weights) != len(corpus.corpora):
        yield (
            f"weights: {len(stage.weights)} for the {len(corpus.corpora)} corpora of data.corpus; "
            "give one for each"
        )
