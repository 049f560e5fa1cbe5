"""The rules that tie the sections of an experiment together.

Each problem is one line: the key, its value, the rule, the way out. Ranges of single keys stand
with their fields in `config.py` and `model/shape.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from stackwise.adapters import knob_problems
from stackwise.block_diffusion import BlockDiffusion
from stackwise.choice import find, unread
from stackwise.completion import packing
from stackwise.curricula.thawing import Fusion
from stackwise.curriculum import CURRICULA, Curriculum, curriculum_problems
from stackwise.data.corpora import MixParams
from stackwise.errors import ExperimentError, Problem
from stackwise.masking import check_bands_serve, check_masking
from stackwise.model.attention import ATTENTION, check_attention
from stackwise.objective import is_causal

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement


def problems_of(exp: Experiment, broken: Collection[str] = ()) -> list[Problem]:
    """Everything that is wrong between sections that are each right by themselves.

    Args:
        exp: The experiment.
        broken: Sections that are wrong by themselves; rules that read them are left out.
    """
    rules = [rule for sections, rule in RULES if not set(sections.split()) & set(broken)]
    return [_problem(line) for rule in rules for line in rule(exp)]


def check_placement(
    exp: Experiment, placement: Placement, *, goes_on: bool = False, elsewhere: bool = False
) -> None:
    """Refuse to carry out an experiment in a way, or on a machine, that it cannot be.

    Args:
        exp: The experiment.
        placement: The way.
        goes_on: Whether it is a run's already, so that only the placement may change.
        elsewhere: Whether it is for another machine, whose packages are not known.

    Raises:
        ExperimentError: With every problem at once.
    """
    found = [*_contradictions(exp, placement, goes_on)]
    found += [] if elsewhere else _missing(exp, goes_on)
    problems = [_problem(line) for line in found]
    if problems:
        raise ExperimentError(problems)


def _contradictions(exp: Experiment, placement: Placement, goes_on: bool) -> Iterator[str]:
    optim, micro = exp.optim, placement.micro_batch
    if optim.grads == "in_backward" and micro is not None and micro < optim.batch:
        yield (
            f"placement.micro_batch: {micro} < optim.batch={optim.batch} adds up gradients over "
            "forward passes, and with optim.grads=in_backward none is kept; leave micro_batch "
            f"empty{'' if goes_on else ', or use optim.grads=whole'}"
        )
    for key in () if placement.trunk == "cached" else ("cache_dir", "cache_gb"):
        yield from _unread_by(placement, key)
    if placement.trunk == "recompute":
        yield from _unread_by(placement, "stream_from")


def _missing(exp: Experiment, goes_on: bool) -> Iterator[str]:
    """Packages that are not here, or too old."""
    from stackwise.model.formats import missing_package
    from stackwise.training.updates import OPTIMIZERS  # torch's optimizers take time to load

    form, optim = packing(exp.precision), exp.optim
    if form is not None and (lacks := missing_package(form, made=goes_on)):
        yield f"precision.frozen: {lacks}"
    if lacks := OPTIMIZERS[optim.name].missing():
        other = "" if goes_on else ", or use optim.name=adamw"
        yield f"optim.name: {optim.name} {lacks}{other}"


def _unread_by(placement: Placement, key: str) -> Iterator[str]:
    for line in unread(placement, key, f"trunk={placement.trunk}"):
        yield f"placement.{line}"


def _problem(line: str) -> Problem:
    path, colon, text = line.partition(": ")
    keyed = colon and re.fullmatch(r"[\w.\[\]]+", path)
    return Problem(path, text) if keyed else Problem("", line)


def _attention(exp: Experiment) -> Iterable[str]:
    return check_attention(exp.rack, exp.attention)


def _masking(exp: Experiment) -> Iterable[str]:
    return check_masking(exp.objective, exp.masking, exp.rack.stacks)


def _bell(exp: Experiment) -> Iterator[str]:
    masking = exp.masking
    for key in () if masking.sampling == "bell" else ("bell_center", "bell_width"):
        for line in unread(masking, key, f"sampling={masking.sampling}"):
            yield f"masking.{line}"


def _served(exp: Experiment) -> Iterable[str]:
    if any(_masking(exp)):
        return ()
    return check_bands_serve(exp.objective, exp.masking, exp.rack.stacks, exp.data.seq_len)


def _curriculum(exp: Experiment) -> Iterable[str]:
    return curriculum_problems(exp.rack, exp.curriculum)


def _bands(exp: Experiment) -> Iterator[str]:
    name, bands = exp.curriculum.choice, exp.masking.bands
    entry = CURRICULA.get(name)
    if not isinstance(entry, Curriculum):
        return
    if bands is not None and entry.bands == "never":
        banded = [
            k for k, e in CURRICULA.items() if isinstance(e, Curriculum) and e.bands != "never"
        ]
        yield (
            f"masking.bands: {bands} has no meaning with curriculum={name}, whose stacks see all "
            f"noise; use {', '.join(banded)}, or leave bands empty"
        )
    if bands is None and entry.bands == "must":
        yield (
            f"masking.bands: is empty, and curriculum={name} gives each stack a band of its own; "
            "use equal_mass"
        )


def _started(exp: Experiment) -> Iterator[str]:
    entry = CURRICULA.get(exp.curriculum.choice)
    if isinstance(entry, Curriculum) and entry.starts == "must" and exp.start is None:
        yield (
            f"start: is empty, and curriculum={exp.curriculum.choice} goes on with weights that "
            "are there; give a model folder, or use end_to_end"
        )


def _vocabulary(exp: Experiment) -> Iterator[str]:
    tokenizer = exp.data.tokenizer
    size = 256 if tokenizer.choice == "bytes" else getattr(tokenizer, "entries", None)
    if exp.rack.vocab is not None and size is not None and exp.rack.vocab < size:
        yield (
            f"rack.vocab: {exp.rack.vocab} < {size} entries of data.tokenizer="
            f"{tokenizer.choice}; raise it or leave it empty"
        )


def _lengths(exp: Experiment) -> Iterator[str]:
    rows = exp.rack.max_positions
    if exp.rack.positions == "learned" and rows is not None and exp.data.seq_len > rows:
        yield (
            f"data.seq_len: {exp.data.seq_len} > rack.max_positions={rows}; "
            "shorten the samples or add positions"
        )


def _mixture(exp: Experiment) -> Iterator[str]:
    data, mixed = exp.data, isinstance(exp.data.corpus, MixParams)
    if mixed and data.distinct_epochs is not None:
        yield (
            f"data.distinct_epochs: {data.distinct_epochs} with data.corpus=mix, whose corpora "
            "have epochs of their own; leave it empty"
        )
    if not mixed and data.weights_by_stage is not None:
        yield (
            f"data.weights_by_stage: weighs the corpora of a mixture, and data.corpus is "
            f"{data.corpus.choice}; leave it empty, or use data.corpus=mix"
        )
    for number, length in enumerate(data.seq_len_by_stage or ()):
        if length > data.seq_len:
            yield (
                f"data.seq_len_by_stage[{number}]: {length} > data.seq_len={data.seq_len}, of "
                "which shorter samples are cut; lower it, or raise data.seq_len"
            )
    for number, weights in enumerate(data.weights_by_stage or ()):
        if mixed and len(weights) != len(data.corpus.corpora):
            yield (
                f"data.weights_by_stage[{number}]: {len(weights)} weights for the "
                f"{len(data.corpus.corpora)} corpora of data.corpus; give one for each"
            )
        if not sum(weights) > 0:
            yield (
                f"data.weights_by_stage[{number}]: {list(weights)} reads nothing; "
                "give one of them over 0"
            )


def _schedule(exp: Experiment) -> Iterator[str]:
    optim = exp.optim
    if optim.schedule != "wsd":
        for line in unread(optim, "decay_frac", f"schedule={optim.schedule}"):
            yield f"optim.{line}"
    if optim.schedule == "wsd" and optim.warmup_frac + optim.decay_frac > 1:
        yield (
            f"optim.warmup_frac: {optim.warmup_frac} + decay_frac={optim.decay_frac} is over 1; "
            "lower one of them"
        )


def _optimizer(exp: Experiment) -> Iterator[str]:
    optim = exp.optim
    for key in UNREAD.get(optim.name, ()):
        for line in unread(optim, key, f"name={optim.name}"):
            yield f"optim.{line}"
    if optim.grads == "in_backward" and optim.clip is not None:
        yield (
            f"optim.clip: {optim.clip} needs the norm of the whole gradient, and with "
            "grads=in_backward it is never held whole; leave clip empty, or use grads=whole"
        )


def _precision(exp: Experiment) -> Iterator[str]:
    precision = exp.precision
    if precision.weights == "bfloat16" and precision.compute != "bfloat16":
        yield (
            f"precision.weights: bfloat16 needs compute=bfloat16, not {precision.compute}; "
            "give compute=bfloat16, or leave weights at float32"
        )
    if precision.weights == "float32":
        for line in unread(precision, "rounding", "weights=float32"):
            yield f"precision.{line}"


def _draws(exp: Experiment) -> Iterator[str]:
    exact = isinstance(exp.objective, BlockDiffusion) and exp.objective.last == 1
    if is_causal(exp.objective) or exact:
        of = "objective.block=1" if exact else f"objective={exp.objective.choice}"
        for line in unread(exp.eval, "draws", of):
            yield f"eval.{line}"


def _time(exp: Experiment) -> Iterator[str]:
    if exp.rack.time != "none" and is_causal(exp.objective):
        yield (
            f"rack.time: {exp.rack.time} reads how much of a sample is masked, and with "
            f"objective={exp.objective.choice} nothing is; leave it at none, or use "
            "objective=diffusion or mlm"
        )


def _blocks(exp: Experiment) -> Iterator[str]:
    objective = exp.objective
    if not isinstance(objective, BlockDiffusion):
        return
    kind = find(ATTENTION, exp.attention.choice, "attention")
    if not getattr(kind, "blocks", False):
        known = ", ".join(k for k, e in ATTENTION.items() if getattr(e, "blocks", False))
        yield (
            f"attention.kind: {exp.attention.choice} cannot see text block by block, as "
            f"objective=block_diffusion reads it; use {known}"
        )
    if exp.rack.time != "none":
        yield (
            f"rack.time: {exp.rack.time} reads one noise level of each sample, and with "
            "objective=block_diffusion each block has its own; leave it at none"
        )
    if objective.block_by_stage is not None:
        for line in unread(objective, "block", "a list in block_by_stage"):
            yield f"objective.{line}"


def _spectral(exp: Experiment) -> Iterator[str]:
    if exp.rack.spectral_norm and exp.precision.weights != "float32":
        yield (
            "rack.spectral_norm: divides every matrix anew in each step, which "
            f"precision.weights={exp.precision.weights} is too coarse for; use float32 weights, "
            "or leave spectral_norm off"
        )


def _adapted(exp: Experiment) -> Iterator[str]:
    asked = exp.curriculum
    if isinstance(asked, Fusion) and asked.train == "adapters" and exp.adapters.on != "both":
        yield (
            "curriculum.train: adapters puts one on every stack, and "
            f"adapters.on={exp.adapters.on}; set adapters.on=both"
        )


def _frozen(exp: Experiment) -> Iterator[str]:
    if packing(exp.precision) is None:
        frozen = exp.precision.frozen or "empty"
        for line in unread(exp.precision, "master", f"frozen {frozen}, which loses nothing"):
            yield f"precision.{line}"


def _preserve(exp: Experiment) -> Iterator[str]:
    if not exp.preserve.distill:
        for line in unread(exp.preserve, "temperature", "distill=0"):
            yield f"preserve.{line}"


UNREAD = {"lion8bit": ("eps",), "adafactor": ("beta1", "beta2", "eps")}  # keys, by optimizer

RULES: tuple[tuple[str, Callable[[Experiment], Iterable[str]]], ...] = (
    ("rack attention", _attention),
    ("objective masking rack", _masking),
    ("masking", _bell),
    ("objective masking rack data", _served),
    ("masking curriculum", _bands),
    ("curriculum", _started),
    ("rack curriculum", _curriculum),
    ("rack data", _vocabulary),
    ("rack data", _lengths),
    ("data", _mixture),
    ("optim", _schedule),
    ("optim", _optimizer),
    ("precision", _precision),
    ("objective eval", _draws),
    ("precision", _frozen),
    ("rack objective", _time),
    ("rack attention objective", _blocks),
    ("rack precision", _spectral),
    ("rack adapters", knob_problems),
    ("curriculum adapters", _adapted),
    ("preserve", _preserve),
)
