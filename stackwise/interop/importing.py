"""`stackwise import`: a Hugging Face Llama folder into a model folder, some rows at a time.

Weights keep the dtype that they have there, bit for bit. What is paired with what is in
`llama.py`, what is left afterwards in `model_folder.py`; the way back is `exporting.py`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from stackwise.atomic import flush, write_text
from stackwise.interop.errors import ModelError, refuse
from stackwise.interop.llama import COMPUTED, HEAD, QKV, TABLE, layer, llama_shapes, parts_from
from stackwise.interop.llama_config import bos_of, rack_of
from stackwise.interop.model_file import (
    KEPT,
    MODEL,
    SENTENCEPIECE,
    TOKENIZER,
    ModelFile,
    Origin,
    check_config,
)
from stackwise.interop.new_folder import new_folder
from stackwise.interop.source import Source, read_source
from stackwise.interop.stored import same, told
from stackwise.model.shape import RackShape, total_blocks
from stackwise.training.checkpoint import save
from stackwise.training.manifest import weights_hash
from stackwise.training.ownership import RACK
from stackwise.training.tensorfile import LazyTensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
MODELS = "models"
OnBytes = Callable[[int], object]
Parts = dict[str, dict[str, LazyTensor]]


def import_model(
    source: str | Path,
    target: str | Path | None = None,
    *,
    blocks_per_stack: int = 1,
    seed: int = 0,
    on_bytes: OnBytes | None = None,
) -> Path:
    """Make a model folder of a Hugging Face Llama folder.

    It is read and written some rows at a time: 8 MiB of a tensor, however large the model is
    (`tests/integration/test_moving_a_model_takes_a_few_rows.py`).

    Args:
        source: Folder with config.json and safetensors files, one or several with their index.
        target: The new folder, not there yet or empty; None for `models/` and the source's name.
        blocks_per_stack: Layers in each stack; divides their number.
        seed: Of the vector of [MASK], and of that of [START] where config.json names no
            bos_token_id, whose vector it is otherwise.
        on_bytes: Called with the number of bytes, after each piece.

    Returns:
        The new folder.

    Raises:
        ModelError: If the source is damaged or no Llama that a rack can be, or the target cannot
            be had; nothing is left behind.
        OSError: If the target cannot be written; nothing is left behind.
    """
    for name, value, least in (("blocks_per_stack", blocks_per_stack, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ModelError(f"{name}: {value!r} must be a whole number of {least} or more")
    found = read_source(source)
    try:
        check_config(found.config)
        shape, attention = rack_of(found.config, blocks_per_stack)
    except ModelError as error:
        lines = str(error).splitlines()
        raise ModelError("\n".join(f"{found.path}: {line}" for line in lines)) from None
    vocab = shape.vocab or 0
    check_tensors(found, shape, vocab)
    whole = found.path.resolve()
    origin = Origin(
        name=whole.name,
        seed=seed,
        repeated=check_tied(found, shape),
        notes=notes_of(found),
        config=dict(found.config),
    )
    parts = parts_from(found.tensors, shape, vocab, seed, bos_of(found.config, vocab))
    kept = [found.path / name for name in KEPT if (found.path / name).is_file()]
    target = Path(MODELS, whole.name) if target is None else Path(target)
    need = sum(size_bytes(tensor) for tensor in all_of(parts))
    with new_folder(target, found.path, need + sum(path.stat().st_size for path in kept)) as folder:
        save(folder / RACK, parts if on_bytes is None else counted(parts, on_bytes))
        for path in kept:
            shutil.copyfile(path, folder / path.name)
            flush(folder / path.name)
        said = ModelFile(
            rack=shape,
            attention=attention.model_dump(),
            dtype=main_dtype(all_of(parts)),
            weights=weights_hash(folder / RACK),
            source=origin,
        )
        write_text(folder / MODEL, said.to_yaml())
    return target


def all_of(parts: Parts) -> Iterator[LazyTensor]:
    """The tensors of all parts."""
    return (tensor for part in parts.values() for tensor in part.values())


def counted(parts: Parts, on_bytes: OnBytes) -> Parts:
    """The same, which say how many bytes were made of them."""
    return {
        name: {key: told(tensor, on_bytes) for key, tensor in part.items()}
        for name, part in parts.items()
    }


def check_tensors(found: Source, shape: RackShape, vocab: int) -> None:
    """Refuse tensors that are missing, that nothing reads, or that have another shape or dtype.

    Raises:
        ModelError: With every tensor that is wrong, the first few by name.
    """
    wanted, there = llama_shapes(shape, vocab), found.tensors
    problems = [
        f"{found.path}: {name} is missing, and config.json says that there is one; fetch it again"
        for name in wanted
        if name not in there
    ]
    problems += [
        f"{found.path}: {name} is {there[name].shape}, and config.json says {wanted[name]}; fetch "
        "both again"
        for name in wanted
        if name in there and there[name].shape != wanted[name]
    ]
    extra = [name for name in there if name not in wanted and not name.endswith(COMPUTED)]
    problems += [
        f"{found.path}: {name} is no tensor of the Llama that config.json says; fetch both again"
        for name in extra
        if not (name == HEAD and shape.tied)
    ]
    problems += [
        f"{found.path}: {name} is {str(there[name].dtype).removeprefix('torch.')}; only float32, "
        "bfloat16 and float16 are read: save it in one of them with transformers"
        for name in wanted
        if name in there and there[name].dtype not in FLOATS
    ]
    refuse(problems)
    for number in range(total_blocks(shape)):
        for kind in ("weight", "bias") if shape.bias else ("weight",):
            names = [layer(number, f"{name}.{kind}") for name in QKV]
            if len({there[name].dtype for name in names}) > 1:
                problems.append(
                    f"{found.path}: {', '.join(names)} have several dtypes, and are one matrix in "
                    "a rack; save them in one with transformers"
                )
    refuse(problems)


def check_tied(found: Source, shape: RackShape) -> tuple[str, ...]:
    """The head's name where a tied model stores its table a second time, once that is checked.

    Raises:
        ModelError: If the two differ.
    """
    if not shape.tied or HEAD not in found.tensors:
        return ()
    if not same(found.tensors[HEAD], found.tensors[TABLE]):
        raise ModelError(
            f"{found.path}: {HEAD} differs from {TABLE}, but config.json says that they are one "
            "(tie_word_embeddings: true); say false to keep both"
        )
    return (HEAD,)


def notes_of(found: Source) -> tuple[str, ...]:
    """What of the source a rack does not read, or lacks."""
    notes = []
    computed = sum(name.endswith(COMPUTED) for name in found.tensors)
    if computed:
        notes.append(f"{computed} tensors {COMPUTED[1:]} are left out: config.json says the same")
    dropout = found.config.get("attention_dropout")
    if dropout:
        notes.append(f"attention_dropout: {dropout} is kept for export; nothing is dropped here")
    if not (found.path / TOKENIZER).is_file():
        lacks = f"it has no {TOKENIZER}"
        if (found.path / SENTENCEPIECE).is_file():
            lacks += f", and {SENTENCEPIECE} is not read"
        notes.append(
            f"{lacks}: text is read as bytes, which are not the tokens that it knows, unless "
            "data.tokenizer=json:PATH is given"
        )
    return tuple(notes)


def main_dtype(tensors: Iterable[LazyTensor]) -> str:
    """The dtype that most numbers have."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return counts.most_common(1)[0][0]


def size_bytes(tensor: LazyTensor) -> int:
    """What it takes in a file."""
    return tensor.numel() * tensor.itemsize
