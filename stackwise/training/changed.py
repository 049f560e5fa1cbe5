"""What a run reads is what it began with, or it does not go on: which file is another one, by name.

Text and ids are read from the cache of prepared data, where they never change: a run that trains
meets nothing of what happens to the user's files meanwhile. Those are looked at as it is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise.data.errors import DataError
from stackwise.interop.errors import ModelError
from stackwise.runs import Run, RunError
from stackwise.runs.damage import blamed_on
from stackwise.training.start import Changed, dataset_of, model_of, paths_named

if TYPE_CHECKING:
    from stackwise.config import Placement
    from stackwise.data.dataset import Dataset
    from stackwise.interop.kept import Beginning

Facts = Mapping[str, Any]


def data_of(run: Run, placement: Placement) -> Dataset:
    """Open the data that a run was made with.

    Args:
        run: The run.
        placement: Says where the data lies, seen from the run's folder.

    Raises:
        DataError: If the corpus cannot be read, and is no file of the user's.
        Changed: If it is no longer the one that the run began with.
    """
    folder = run.path / placement.data_dir
    with blamed_on(run, "provenance.json"):
        facts = run.provenance()["data"]
        began_with = str(facts["fingerprint"])
    check_is_there(run, folder, began_with)
    try:
        dataset = dataset_of(run.experiment, folder)
    except DataError as error:
        if isinstance(error.__cause__, OSError) or not files_of(run, folder):
            raise
        raise Changed(
            f"run {run.id}: {error}. It could be read when the run began (fingerprint "
            f"{began_with[:12]}); put the old file back, or start a new run"
        ) from error
    if dataset.fingerprint != began_with:
        raise Changed(
            f"run {run.id}: {what_changed(run, folder, dataset, facts)}, fingerprint "
            f"{dataset.fingerprint[:12]}, was {began_with[:12]}); put the old file back, "
            "or start a new run"
        )
    return dataset


def check_is_there(run: Run, folder: Path, began_with: str) -> None:
    """Raise if the files of a run's data are not where it looks for them: one of both was moved.

    Raises:
        Changed: With the way out.
    """
    named = paths_named(run.experiment)
    gone = [
        f"{key}={named[key]}" for key, path in files_of(run, folder).items() if not path.exists()
    ]
    if gone:
        raise Changed(
            f"run {run.id}: {', '.join(gone)}: is not in {folder.resolve()}. It could be read when "
            f"the run began (fingerprint {began_with[:12]}); put it there, or go on with "
            "placement.data_dir=FOLDER, the folder that it is named from"
        )


def files_of(run: Run, folder: Path) -> dict[str, Path]:
    """The user's own files that a run's data are read from, by the keys that name them."""
    named = paths_named(run.experiment)
    return {key: folder / name for key, name in named.items() if key.startswith("data.")}


def what_changed(run: Run, folder: Path, dataset: Dataset, began: Facts) -> str:
    """Which of a run's data are others than it began with, up to an open parenthesis."""
    files = files_of(run, folder)
    if dataset.text.sha256 == began["text_sha256"]:
        path = files.get("data.tokenizer.path", "")
        return f"the tokenizer has changed since the run began:{f' {path}' if path else ''} ("
    sizes = (
        f"{len(dataset.text.mapped())} bytes, was {began['train_bytes'] + began['heldout_bytes']}"
    )
    names = list(members_changed(files, dataset, began)) or [
        str(next((p for k, p in files.items() if k.startswith("data.corpus")), dataset.name))
    ]
    return f"the corpus has changed since the run began: {', '.join(names)} ({sizes}"


def members_changed(files: Mapping[str, Path], dataset: Dataset, began: Facts) -> Iterator[str]:
    """The corpora of a mixture that are others than it began with."""
    for number, (part, before) in enumerate(
        zip(dataset.parts, began.get("corpora", ()), strict=False)
    ):
        if part.text.sha256 != before["text_sha256"]:
            named = (p for k, p in files.items() if k.startswith(f"data.corpus.corpora[{number}]"))
            yield str(next(named, part.text.name))


def begun_with(run: Run, placement: Placement) -> Beginning | None:
    """The model, or the finished run, that a run begins with, if it does.

    Raises:
        Changed: If it is no longer the one that the run began with, is gone or none any more.
        CheckpointError: If it is damaged.
        ExperimentError: As `model_of`.
    """
    start, facts = run.experiment.start, run.provenance().get("start", {})
    if start is None:
        return None
    began, again = (
        facts.get("weights"),
        f"put the old {facts.get('of', 'model')} back, or start a new run",
    )
    try:
        model = model_of(run.experiment, run.path / placement.data_dir)
    except (ModelError, RunError) as error:
        raise Changed(
            f"run {run.id}: start: {error}. It was whole when the run began; {again}"
        ) from error
    if model is not None and model.weights_hash != began:
        raise Changed(
            f"run {run.id}: {start} holds other weights than when the run began "
            f"({model.weights_hash[:12]}, was {str(began)[:12]}); {again}"
        )
    return model
