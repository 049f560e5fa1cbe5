"""Commands that move models in and out: `import`, `export`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stackwise.printing import say

UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}


def import_command(options: argparse.Namespace) -> int:
    """Make a model folder of a Llama's."""
    from shlex import quote

    from stackwise.interop.importing import import_model
    from stackwise.interop.model_folder import read_model
    from stackwise.model.count import count_parameters
    from stackwise.report import count_text, program

    with bar() as moved:
        path = import_model(
            options.model,
            options.target,
            blocks_per_stack=options.blocks_per_stack,
            seed=options.seed,
            on_bytes=moved.update,
        )
    model = read_model(path)
    shape = model.rack
    count = count_parameters(shape, model.attention, model.vocab)
    say(
        f"{path}: {shape.stacks} stacks of {shape.blocks_per_stack}, width {shape.d_model}, "
        f"{model.attention.choice}, {count_text(count)} parameters, {model.dtype}"
    )
    for note in model.source.notes:
        say(f"note: {note}")
    say(f"train it a stack at a time with: {program()} run {quote(str(path))}")
    say(f"give it back with: {program()} export {quote(str(path))} TARGET")
    return 0


def export_command(options: argparse.Namespace) -> int:
    """Write a folder that transformers loads."""
    from stackwise.interop.export_plan import prepared
    from stackwise.interop.exporting import written

    shard_bytes = size(options.shard_size)
    export = prepared(
        options.source,
        runs_dir=options.runs_dir,
        raw=options.raw,
        best=options.best,
        trust=options.trust,
    )
    with bar() as moved:
        path = written(export, options.target, shard_bytes=shard_bytes, on_bytes=moved.update)
    say(f"{path}: {export.weights}")
    for note in export.notes:
        say(f"note: {note}")
    say(f"load it with: transformers.AutoModelForCausalLM.from_pretrained({str(path)!r})")
    return 0


def size(text: str, option: str = "--shard-size", what: str = "a file") -> int:
    """Bytes of a size as people write it: `5GB`, `500 MB`, `2GiB`.

    Raises:
        ValueError: If it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    scale = UNITS[match[2]] if match else 0
    if match and match[3]:
        scale = 1024 ** list(UNITS).index(match[2])
    count = int(float(match[1]) * scale) if match else 0
    if count < 1:
        raise ValueError(f"{option}: {text!r} is no size of {what}; write it as 5GB or 500MB")
    return count


@contextmanager
def bar() -> Iterator[Any]:
    """A bar over bytes on standard error; none where that is a file."""
    from tqdm import tqdm

    with tqdm(unit="B", unit_scale=True, disable=None, leave=False) as made:
        yield made
