"""What an export will write, looked at and refused before anything is written.

Which racks a Llama can be is in `llama_rules.py`, what is paired with what in `llama.py`; how it is
written in `exporting.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stackwise.adapters import carried_after
from stackwise.bounded import is_plain_file
from stackwise.interop.errors import ModelError
from stackwise.interop.importing import main_dtype, size_bytes
from stackwise.interop.kept import config_kept, files_kept
from stackwise.interop.llama import HEAD, TABLE, llama_from
from stackwise.interop.llama_config import BOS, LENGTH, bos_of, config_of
from stackwise.interop.llama_rules import refuse_what_is_no_llama
from stackwise.interop.model_file import KEPT, TOKENIZER
from stackwise.interop.model_folder import is_model, part_shapes, read_model
from stackwise.interop.stored import cut, same
from stackwise.interop.unpacking import weights_of, with_adapter
from stackwise.memory.flops import vocab_size
from stackwise.model.shape import RackShape, stack_ids
from stackwise.runs import Run, RunError, attach
from stackwise.runs.carried import check_trusted
from stackwise.stage import paths_so_far
from stackwise.training.manifest import verify_part, weights_hash
from stackwise.training.ownership import BEST, RACK, own_manifest
from stackwise.training.part_names import AVERAGE, MASTER
from stackwise.training.start import stages_of
from stackwise.training.tensorfile import LazyTensor

NO_START = "the vector of [START], which every text began with in training, has no row in a Llama"


@dataclass(frozen=True)
class Export:
    """What an export will write.

    Attributes:
        folder: Where it is read from.
        config: The config.json.
        tensors: By the names that a Llama gives them, in the order they run.
        copied: Small files that go along, by the name that they get.
        weights: Which weights they are, as a sentence.
        notes: What stays behind.
        origin: Where they come from: a name and a hash.
    """

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, LazyTensor]
    copied: Mapping[str, Path]
    weights: str
    notes: tuple[str, ...]
    origin: Mapping[str, str]

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return sum(size_bytes(tensor) for tensor in self.tensors.values())


def prepared(
    source: str | Path | Run,
    *,
    runs_dir: str | Path = "runs",
    raw: bool = False,
    best: bool = False,
    trust: bool = False,
) -> Export:
    """Look at what is to be exported, and refuse what cannot be; files are read once, for hashes.

    Args:
        source: A model folder, a run, its folder or its id.
        runs_dir: Folder in which an id is looked up.
        raw: Of a run that is not finished, the weights themselves and not their average.
        best: Of a run, the weights of the lowest held-out loss in its last stage.
        trust: Import the code that a run carries, if it does.

    Raises:
        TrustError: If a run carries code that is neither known here nor trusted.
        ModelError: If it is no model and no run, damaged, or no Llama, with every reason.
        RunError: If there is no such run.
        CheckpointError: If a run's weights are damaged, or there are none yet.
    """
    if isinstance(source, Run):
        check_trusted(source, trust)
        return of_run(source, raw=raw, best=best)
    folder = Path(source)
    if not is_model(folder):
        return prepared(run_of(folder, runs_dir), raw=raw, best=best, trust=trust)
    for name, asked in (("raw", raw), ("best", best)):
        if asked:
            raise ModelError(f"{name}: a model folder has one set of weights; leave it out")
    return of_model(folder)


def run_of(folder: Path, runs_dir: str | Path) -> Run:
    """A run by its folder or id."""
    try:
        return attach(folder, runs_dir)
    except RunError:
        if not os.path.isdir(folder):  # False where the system will not say
            raise
        raise ModelError(
            f"{folder}: is neither a model folder (it has no model.yaml) nor a run (it has no "
            "stages.json); name one, or a run's id"
        ) from None


def of_model(folder: Path) -> Export:
    """The export of a model folder: what was imported, bit for bit."""
    model = read_model(folder, verify=True)
    path = stack_ids(model.rack)
    shapes = part_shapes(model.rack, model.attention)
    parts = {
        part: weights_of(model.checkpoint, model.manifest, part, shapes[part])
        for part in ("embedding", *path, "head")
    }
    tensors = llama_from(parts, path, model.rack, model.vocab)
    if HEAD in model.source.repeated:
        tensors[HEAD] = tensors[TABLE]
    refuse_what_is_no_llama(model.rack, model.attention, model.objective, str(folder))
    return Export(
        folder=folder,
        config=config_of(model.rack, model.vocab, model.source.config, length=LENGTH, dtype=None),
        tensors=tensors,
        copied={name: folder / name for name in KEPT if is_plain_file(folder / name)},
        weights=f"the weights of {folder.name}, as they were imported from {model.source.name}",
        notes=mixed(tensors),
        origin={"model": model.source.name, "checkpoint": model.weights_hash},
    )


def of_run(run: Run, *, raw: bool, best: bool) -> Export:
    """The export of a run's last checkpoint, on the path that it runs."""
    exp, folder = run.experiment, run.path / RACK
    if run.state == "running":
        raise ModelError(
            f"run {run.id}: is training, and its files change; stop it with Ctrl-C, export, and "
            "resume it"
        )
    refuse_what_is_no_llama(exp.rack, exp.attention, exp.objective.choice, f"run {run.id}")
    manifest, length = own_manifest(run, RACK), exp.data.seq_len
    counters = manifest["counters"]
    stages = stages_of(run)
    begun = stages[: counters["stage"] + (counters["step"] > 0)]
    if not begun:
        raise ModelError(f"run {run.id}: no stage of it has begun; it is {run.state}")
    path = paths_so_far(begun)[0][2]
    names, carried = ("embedding", *path, "head"), carried_after(begun)
    places = {part: (folder, manifest) for part in names}
    better = own_manifest(run, BEST) if best else {"parts": {}}
    if best:
        places |= {part: (run.path / BEST, better) for part in names if part in better["parts"]}
    vocab = vocab_size(exp)
    weights = getattr(torch, exp.precision.weights)
    shapes = part_shapes(exp.rack.model_copy(update={"vocab": vocab}), exp.attention)
    parts = {}
    for part, (place, listed) in places.items():
        for name in (part, f"{part}.{MASTER}", *([] if raw else [f"{part}.{AVERAGE}"])):
            if name == part or name in listed["parts"]:
                verify_part(place, listed, name)
        parts[part] = weights_of(place, listed, part, shapes[part], averages=not raw, dtype=weights)
        if part in carried:
            name = carried[part].part
            place, listed = (
                (run.path / BEST, better) if name in better["parts"] else (folder, manifest)
            )
            verify_part(place, listed, name)
            parts[part] = with_adapter(parts[part], place, listed, carried[part], averages=not raw)
    tied = "weight" not in parts["head"]
    shape = RackShape(**{**exp.rack.model_dump(), "stacks": len(path), "tied": tied})
    tensors = llama_from(parts, path, shape, vocab)
    dtype = main_dtype(tensors.values())
    left = [part for part in stack_ids(exp.rack) if part in manifest["parts"] and part not in path]
    copied, notes = tokenizer_of(run)
    base = config_kept(run, length)
    merged = [part for part in path if part in carried]
    if merged:
        notes += (f"the adapters of {', '.join(merged)} are merged into their weights",)
    if left:
        notes += (f"{', '.join(left)} are not on the path that it runs, and stay behind",)
    config = config_of(shape, vocab, base, length=length, dtype=dtype)
    return Export(
        folder=run.path,
        config=config,
        tensors=tensors,
        copied=copied,
        weights=which_weights(run, manifest, raw=raw, best=best),
        notes=(*notes, *mixed(tensors), of_start(parts["embedding"]["table"], vocab, config)),
        origin={"run": run.id, "checkpoint": weights_hash(folder)},
    )


def of_start(table: LazyTensor, vocab: int, config: Mapping[str, Any]) -> str:
    """What a prompt begins with, as a sentence: [START] is row V + 1, which stays behind."""
    bos = bos_of(config, vocab)
    if bos is None:
        return f"{NO_START}: a prompt begins with its own first token"
    if same(cut(table, bos, bos + 1), cut(table, vocab + 1, vocab + 2)):
        return (
            f"every text began in training with the vector of token {bos} ({BOS}): let a prompt "
            "begin with that token, as a Llama's own tokenizer does"
        )
    return f"{NO_START}; that of token {bos} ({BOS}), which a prompt may begin with, is another"


def mixed(tensors: Mapping[str, LazyTensor]) -> tuple[str, ...]:
    """A note where some weights have another dtype than most."""
    most = main_dtype(tensors.values())
    others = {str(t.dtype).removeprefix("torch.") for t in tensors.values()} - {most}
    if not others:
        return ()
    return (
        f"some weights are {' or '.join(sorted(others))}; from_pretrained makes all of them {most} "
        "unless it is given another dtype",
    )


def which_weights(run: Run, manifest: Mapping[str, Any], *, raw: bool, best: bool) -> str:
    """Which weights of a run are given, as a sentence."""
    ema, parts = run.experiment.optim.ema, manifest["parts"]
    kind = "the weights as they are" if ema is None else f"the moving average (optim.ema={ema:g})"
    if best:
        return f"{kind} of run {run.id}, where the last stage's held-out loss was lowest"
    training = sorted({name.partition(".")[0] for name in parts if name.endswith(f".{AVERAGE}")})
    if raw and training:
        return f"the raw weights of run {run.id}, without averaging in {', '.join(training)}"
    packed = {part for part, entry in parts.items() if entry.get("format")}
    masters = {part for part in packed if f"{part}.{MASTER}" in parts}
    said = [f"{kind} of run {run.id}"]
    if masters:
        low = run.experiment.precision.weights == "bfloat16"
        rounded = low and run.experiment.precision.master == "fp32"
        said.append(
            f"of {len(masters)} frozen stacks their masters" + ", rounded to bfloat16" * rounded
        )
    if packed - masters:
        said.append(f"of {len(packed - masters)} stacks what freezing to less has left")
    if raw and ema is not None:
        said.append("it is not in the middle of a stage, and has no others")
    return "; ".join(said)


def tokenizer_of(run: Run) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The files of the run's tokenizer, and a note where there are none."""
    path = run.path / TOKENIZER
    if found := files_kept(run):
        return found, ()
    if path.is_file():
        return {TOKENIZER: path}, ()
    return {}, (f"it has no {TOKENIZER}, so that none goes along",)
