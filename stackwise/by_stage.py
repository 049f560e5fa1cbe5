"""What a stage reads where that is not what the experiment reads: shorter samples, another mixture.

Lists of the experiment (`data.seq_len_by_stage`, `data.weights_by_stage`) are written into its
stages here, so that planner, trainer and pictures look at a stage and at nothing else. Costs of a
stage are those of the experiment at the stage's own length: `as_read`. Held-out text is always cut
into samples of `data.seq_len`, at looks during a stage, too, so that all losses can be compared.
Which samples a step gets is in `data/batches.py` and `data/mixing.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from stackwise.data.corpora import MixParams
from stackwise.stage import Stage

if TYPE_CHECKING:
    from stackwise.config import Experiment

LISTS = {"seq_len": "seq_len_by_stage", "weights": "weights_by_stage"}


def as_read(exp: Experiment, stage: Stage) -> Experiment:
    """The experiment with the length of a stage's samples in the place of its own."""
    if stage.seq_len is None or stage.seq_len == exp.data.seq_len:
        return exp
    data = exp.data.model_copy(update={"seq_len": stage.seq_len})
    return exp.model_copy(update={"data": data})


def step_tokens(exp: Experiment, stage: Stage) -> int:
    """Tokens that an optimizer step of a stage reads."""
    return exp.optim.batch * (stage.seq_len or exp.data.seq_len)


def phases(exp: Experiment) -> int:
    """Into how many stages data alone divide an experiment; 1 where they never change."""
    lists = (getattr(exp.data, name) for name in LISTS.values())
    return max((len(values) for values in lists if values is not None), default=1)


def with_own_data(exp: Experiment, made: Sequence[Stage]) -> list[Stage]:
    """Give each stage what the lists of the experiment say of it; what it says itself stays.

    Raises:
        ValueError: If a list has another number of entries than there are stages.
    """
    out = list(made)
    for key, name in LISTS.items():
        values = getattr(exp.data, name)
        if values is None:
            continue
        if len(values) != len(made):
            raise ValueError(
                f"data.{name}: {len(values)} entries for the {len(made)} stages of curriculum="
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
