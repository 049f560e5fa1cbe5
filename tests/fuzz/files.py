"""Targets: files of others: texts, tokenizers, models, adapters, and figures of a machine."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import stackwise as sw
from stackwise.data.files import jsonl_texts, parquet_texts, text_pieces
from stackwise.data.tokenizer import read_tokenizer
from stackwise.interop.beginning import experiment_from
from stackwise.interop.model_folder import open_model, read_model
from stackwise.planner.calibration import Calibration
from stackwise.planner.doctor.record import read as read_record
from stackwise.planner.plan import plan
from stackwise.runs import Run

from .asked import written
from .workplace import place, tiny

TEXT = "In the beginning, ā\U0001d7d9\n\t  \x00 was \u202e the word"


def tokenizer(content: bytes) -> None:
    """A tokenizer.json: it encodes a text, counts its bytes, and decodes."""
    found = read_tokenizer(written("fuzzed.json", content))
    ids, counts = found.encode_counted(TEXT)
    assert len(ids) == len(counts)
    found.encode("")
    found.decode(ids)
    found.decode([0, 1, 2**40, -1])


def text(content: bytes) -> None:
    """A text file, by three encodings."""
    path = written("fuzzed.txt", content)
    first = None
    for encoding in ("utf-8", "utf-16", "shift_jis"):
        try:
            list(text_pieces(path, encoding))
        except sw.data.errors.DataError as error:
            first = first or error
    if first:
        raise first


def jsonl(content: bytes) -> None:
    """Lines of JSON."""
    list(jsonl_texts(written("fuzzed.jsonl", content), "text"))


def parquet(content: bytes) -> None:
    """A Parquet file."""
    list(parquet_texts(written("fuzzed.parquet", content), "text"))


@cache
def scratch(name: str) -> Path:
    """A copy of a folder of models, whose files are malformed."""
    return Path(shutil.copytree(place() / name, place() / "scratch" / name))


def model_file(folder: str, name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    """The target of one file of a model's folder."""

    def target(content: bytes) -> None:
        path = scratch(folder) / name
        whole = path.read_bytes()
        path.write_bytes(content)
        try:
            read(path.parent)
        finally:
            path.write_bytes(whole)
            shutil.rmtree(place() / "imported", ignore_errors=True)

    return target


def imported(folder: Path) -> None:
    """Import a folder of Hugging Face's."""
    sw.import_model(folder, place() / "imported")


def opened(folder: Path) -> None:
    """Look at a model folder, make an experiment of it, and open it."""
    read_model(folder)
    experiment_from(folder)
    open_model(folder)


def opened_up(folder: Path) -> None:
    """The same of the folder above."""
    opened(folder.parent)


@cache
def rack() -> sw.Rack:
    """The rack that adapters are put on."""
    return Run(place() / "runs" / "done").rack()


def adapted(folder: Path) -> None:
    """Load adapters."""
    sw.load_adapters(rack(), folder)


def calibration(content: bytes) -> None:
    """What was measured of this machine: shown, and planned with."""
    found = Calibration.read(written("fuzzed-calibration.json", content))
    str(found)
    machine = found.hardware()
    str(plan(tiny(), sw.Placement(device="cpu"), hardware=machine))


def doctor(content: bytes) -> None:
    """A record of the doctor's."""
    read_record(written("fuzzed-doctor.json", content))
