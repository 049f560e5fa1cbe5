"""From an experiment to a run folder that holds all that it takes to carry it out.

And what a run folder, a placement and this machine amount to together: device, threads, data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from stackwise.choice import Params
from stackwise.config import Experiment, Placement
from stackwise.curriculum import stages
from stackwise.data.batches import samples_per_epoch
from stackwise.data.dataset import Dataset, open_dataset
from stackwise.data.tokenizer import load_tokenizer
from stackwise.determinism import promised_here
from stackwise.errors import ExperimentError, said_in
from stackwise.memory.bytes import plan_rows
from stackwise.memory.disk_rows import with_disk
from stackwise.memory.flops import vocab_size
from stackwise.memory.room import check_room
from stackwise.probing import as_probed
from stackwise.rules import check_placement
from stackwise.runs import Run, make_run
from stackwise.runs.pace import PACED, pace_text
from stackwise.runs.records import is_run
from stackwise.stage import Stage
from stackwise.training.placing import check_disk, check_trunk, without_effect

if TYPE_CHECKING:
    from stackwise.interop.kept import Beginning
    from stackwise.own_code import CodeFile


MEMBERS = "data.corpus.corpora["


class TrainingError(RuntimeError):
    """Training that cannot go on."""


class NotFinite(TrainingError):
    """A loss, a gradient or a weight that is no number."""


class NoMemory(TrainingError):
    """Memory ran out."""


class Changed(TrainingError):
    """What a run reads is not what it began with, or is gone."""


def create_run(
    exp: Experiment,
    placement: Placement,
    *,
    rerun: bool = False,
    code: Sequence[CodeFile] = (),
) -> Run:
    """Make the folder of a run, or find the one that is there.

    It carries the files of code that bring its kinds, if it is given any. Nothing in the folder is
    an absolute path: the corpus is named relative to `placement.data_dir`, and that folder relative
    to the run's own.

    Raises:
        ExperimentError: If stages, rack, data and budget do not go together, or the placement
            names a device that is not here, or it cannot be carried out so.
        DataError: If the corpus cannot be read.
    """
    asked, placement = settled(exp, placement)
    device = device_of(placement)
    check_placement(asked, placement)
    exp = asked if asked.budget.seconds is None else _in_tokens(asked, placement)
    made = stages(exp)
    plan = plan_rows(exp, placement, made)
    check_room(plan, placement)
    check_trunk(exp, placement, made)
    dataset = dataset_of(exp, placement.data_dir)
    epoch_samples = samples_per_epoch(dataset, exp.optim.batch)
    model = model_of(exp, placement.data_dir, verify=True)
    facts: dict[str, Any] = {
        "seed": exp.seed,
        "experiment": asked.hash,
        "data": dataset.provenance(),
        "notes": list(without_effect(exp, placement, made)),
    }
    pace, known = None, made
    if asked.budget.seconds is not None:
        from stackwise.training.timing import pace_here, said_of, without_lengths

        pace, known = pace_here(asked, exp, placement, dataset, made), without_lengths(made)
        facts |= {PACED: True, "notes": [*facts["notes"], said_of(pace, made)]}
    if model is not None:
        from stackwise.interop.finished import FinishedRun, check_tokenizer

        of = "run" if isinstance(model, FinishedRun) else "model"
        if isinstance(model, FinishedRun):
            check_tokenizer(model, dataset.tokenizer)
        facts["start"] = {"model": model.name, "weights": model.weights_hash, "of": of}
    run_id = run_id_of(asked, known, dataset, model, code)
    if rerun or not is_run(Path(placement.runs_dir, run_id)):  # else asked as it goes on
        check_disk(as_probed(exp, made), placement, made, epoch_samples)
    with threads_of(placement):
        facts["determinism"] = promised_here(exp, placement, device.type)
        return make_run(
            placement.runs_dir,
            run_id,
            experiment=asked.to_yaml(),
            placement=seen_from(Path(placement.runs_dir, run_id), placement).to_yaml(),
            stages=[stage.model_dump(mode="json") for stage in made],
            plan=with_disk(plan, as_probed(exp, made), placement, made, epoch_samples),
            facts=facts,
            pace=None if pace is None else pace_text(pace),
            beside=partial(keep_beside, dataset, model),
            rerun=rerun,
            code=code,
        )


def keep_beside(dataset: Dataset, model: Beginning | None, folder: Path) -> None:
    """Write into a run's folder its tokenizer, and what it keeps of the model it starts from."""
    dataset.tokenizer.save(folder / "tokenizer.json")
    if model is not None:
        from stackwise.interop.kept import keep

        keep(model, dataset.tokenizer, folder)


def _in_tokens(exp: Experiment, placement: Placement) -> Experiment:
    """An experiment whose budget is a time, with what this machine reads in it."""
    from stackwise.training.timing import in_tokens_here

    return in_tokens_here(exp, placement, dataset_of(exp, placement.data_dir))


def seen_from(folder: Path, placement: Placement) -> Placement:
    """A placement with its folders named from a run's own folder."""
    data_dir, caches = os.path.relpath(placement.data_dir, folder), placement.cache_dir
    cache_dir = None if caches is None else os.path.relpath(caches, folder)
    return placement.replace(data_dir=data_dir, cache_dir=cache_dir, runs_dir="..")


def seen_from_here(folder: Path, placement: Placement) -> Placement:
    """A run's placement with its folders named from where this process works."""
    cache_dir = None if placement.cache_dir is None else str(folder / placement.cache_dir)
    return placement.replace(runs_dir=str(folder.parent), cache_dir=cache_dir)


def device_of(placement: Placement) -> torch.device:
    """The device that a placement means on this machine.

    Raises:
        ExperimentError: If it names one that is not here.
    """
    if placement.device == "cuda" and not torch.cuda.is_available():
        raise ExperimentError(
            "placement.device: 'cuda', but torch sees no CUDA card here; use auto or cpu"
        )
    return meant_device(placement)


def meant_device(placement: Placement) -> torch.device:
    """The device that a placement means here, whether one that it names is here or not."""
    here = torch.cuda.is_available() and placement.device == "auto"
    return torch.device("cuda" if here or placement.device == "cuda" else "cpu")


def lent_from(placement: Placement) -> Literal["disk", "host"] | None:
    """Where the matrices of frozen stacks are read from; None where they are in memory."""
    return None if placement.trunk == "recompute" else placement.stream_from


@contextmanager
def threads_of(placement: Placement) -> Iterator[None]:
    """Inside, torch computes with the placement's threads; afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(placement.threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def settled(exp: Experiment, placement: Placement) -> tuple[Experiment, Placement]:
    """Settle what only this machine's files can tell: where the corpus lies, the vocabulary.

    Absolute paths are split into names (science) and the folder they share (placement).
    """
    values = paths_named(exp)
    if any(Path(value).is_absolute() for value in values.values()):
        named = {key: Path(placement.data_dir, value) for key, value in values.items()}
        base = os.path.commonpath([path.resolve().parent for path in named.values()])
        placement = placement.replace(data_dir=base)
        changes = {key: os.path.relpath(path.resolve(), base) for key, path in named.items()}
        exp = _renamed(exp, changes)
    if exp.data.tokenizer.choice == "json" and exp.rack.vocab is None:
        size = load_tokenizer(exp.data.tokenizer, Path(placement.data_dir)).size
        exp = exp.replace(rack={"vocab": size})
    return exp, placement


def _renamed(exp: Experiment, changes: Mapping[str, str]) -> Experiment:
    """The experiment with other names for its files; those in a mixture are set together."""
    inside = {key: name for key, name in changes.items() if key.startswith(MEMBERS)}
    exp = exp.replace(**{key: name for key, name in changes.items() if key not in inside})
    if not inside:
        return exp
    members = list(exp.data.corpus.corpora)
    for key, name in inside.items():
        number, _, field = key.removeprefix(MEMBERS).partition("].")
        members[int(number)] = members[int(number)].replace(**{field: name})
    return exp.replace(**{"data.corpus": exp.data.corpus.replace(corpora=tuple(members))})


def paths_named(exp: Experiment) -> dict[str, str]:
    """The keys of an experiment that name files or folders, with what they say."""
    found = {} if exp.start is None else {"start": exp.start}
    members = getattr(exp.data.corpus, "corpora", ())
    named = {f"{MEMBERS}{number}]": params for number, params in enumerate(members)}
    named |= {"data.corpus": exp.data.corpus, "data.tokenizer": exp.data.tokenizer}
    for key, params in named.items():
        if hasattr(params, "path"):
            found[f"{key}.path"] = params.path
        elif params.choice == "hf" and Path(params.dataset).is_absolute():
            found[f"{key}.dataset"] = params.dataset
    return found


def model_of(exp: Experiment, data_dir: str | Path, *, verify: bool = False) -> Beginning | None:
    """The model, or the finished run, that an experiment starts from, if it does.

    Raises:
        ModelError: If the folder is none, damaged or altered.
        ExperimentError: If the experiment's rack is another one.
    """
    if exp.start is None:
        return None
    from stackwise.interop.finished import finished_run
    from stackwise.interop.model_folder import read_model

    folder = Path(data_dir, exp.start)
    model = (
        finished_run(folder, verify=verify) if is_run(folder) else read_model(folder, verify=verify)
    )
    ours, theirs = exp.rack.model_dump(), model.rack.model_dump()
    ours["vocab"] = vocab_size(exp)
    problems = [
        f"rack.{key}: {ours[key]} is not {theirs[key]}, that of the model to start from"
        for key in ours
        if ours[key] != theirs[key] and key != "init_std"
    ]
    if exp.attention != model.attention:
        problems.append(
            f"attention: {attention_text(exp.attention)} is not {attention_text(model.attention)}, "
            "that of the model to start from"
        )
    if problems:
        named = "experiment.yaml" if is_run(folder) else "model.yaml"
        raise ExperimentError(
            "\n".join(f"{line}; take the sections of {exp.start}/{named}" for line in problems)
        )
    return model


def attention_text(params: Params) -> str:
    """`gqa`; with its parameters, where it has any: `mla (kv_rank=8)`."""
    rest = params.model_dump(exclude={"kind"})
    more = ", ".join(f"{key}={value}" for key, value in rest.items())
    return f"{params.choice} ({more})" if more else params.choice


def dataset_of(exp: Experiment, data_dir: str | Path) -> Dataset:
    """Open the data of an experiment."""
    return open_dataset(
        exp.data.corpus,
        exp.data.tokenizer,
        seq_len=exp.data.seq_len,
        heldout_frac=exp.data.heldout_frac,
        data_dir=Path(data_dir),
    )


def stages_of(run: Run) -> tuple[Stage, ...]:
    """What a run executes."""
    with said_in(f"run {run.id}: stages.json"):
        return tuple(Stage.model_validate(value) for value in run.stages())


def run_id_of(
    exp: Experiment,
    made: tuple[Stage, ...],
    dataset: Dataset,
    model: Beginning | None = None,
    code: Sequence[CodeFile] = (),
) -> str:
    """What a run that begins at its first stage is called."""
    names = [dataset.fingerprint, *([model.weights_hash] if model is not None else [])]
    names += [each.sha256 for each in code]
    return f"{exp.title}-{exp.curriculum.choice}-{run_hash(exp, made, *names)}"


def run_hash(exp: Experiment, made: tuple[Stage, ...], *read: str) -> str:
    """Eight hex digits of experiment, stages, and hashes of what they read: data, a model, code."""
    values = [
        exp.identity(),
        [stage.identity() for stage in made],
        *read,
    ]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
