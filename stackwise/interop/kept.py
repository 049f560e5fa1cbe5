"""What a run keeps of the model that it started from, so that its export is that model again.

In the run's folder, `start/`: model.yaml, which holds the config.json; and, if the run reads text
with the model's own tokenizer, its files as they were.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackwise.bounded import check_no_links, is_plain_file
from stackwise.data.tokenizer import Tokenizer, read_tokenizer
from stackwise.errors import ExperimentError
from stackwise.interop.errors import ModelError
from stackwise.interop.finished import FinishedRun
from stackwise.interop.llama_config import LENGTH, LONGEST
from stackwise.interop.model_file import KEPT, MODEL, TOKENIZER, ModelFile
from stackwise.interop.model_folder import ModelFolder
from stackwise.runs import Run
from stackwise.runs.damage import RESTORE
from stackwise.yaml_text import read_mapping, read_text

START = "start"


Beginning = ModelFolder | FinishedRun  # what a run may start from


def keep(model: Beginning, tokenizer: Tokenizer, run: Path) -> None:
    """Copy into a run's folder what its export will want.

    Args:
        model: What it starts from.
        tokenizer: What it reads text with.
        run: Its folder.
    """
    folder, own = run / START, model.path / TOKENIZER
    if isinstance(model, FinishedRun):
        if (model.path / START).is_dir():
            check_no_links(model.path / START)
            shutil.copytree(model.path / START, folder, dirs_exist_ok=True)
        return
    folder.mkdir(exist_ok=True)
    shutil.copyfile(model.path / MODEL, folder / MODEL)
    if own.is_file() and read_tokenizer(own).to_json() == tokenizer.to_json():
        for name in KEPT:
            if is_plain_file(model.path / name):
                shutil.copyfile(model.path / name, folder / name)


def config_kept(run: Run, length: int) -> Mapping[str, Any]:
    """The config.json of the model that a run started from; empty if it started from none.

    Args:
        run: The run.
        length: Of its samples, in tokens: the longest sequence is at least that.

    Raises:
        ModelError: If it is gone or damaged.
    """
    path = run.path / START / MODEL
    of_a_run = run.provenance().get("start", {}).get("of") == "run"
    if run.experiment.start is None or (of_a_run and not path.parent.is_dir()):
        return {}
    try:
        values = read_mapping(read_text(str(path)), str(path), "a model")
        config = dict(ModelFile.model_validate(values).source.config)
    except ExperimentError as error:
        raise ModelError(f"run {run.id}: {START}/{MODEL} is damaged: {error}; {RESTORE}") from None
    return {**config, LONGEST: max(config.get(LONGEST, LENGTH), length)}


def files_kept(run: Run) -> dict[str, Path]:
    """The model's tokenizer files, by name; none if the run reads text in another way."""
    folder = run.path / START
    return {name: folder / name for name in KEPT if is_plain_file(folder / name)}
