"""What stands in a mirror: files named by their content, and an index that commits them.

    files/s0-1f3a....safetensors     a part of a checkpoint, as in the run's folder
    files/piece-77b1....             4 MiB or less of a record: events, metrics, experiment, ...
    index-00000012.json              which files make which folder, whole manifests, a hash of all

An index has a number of its own and replaces none: the one before goes when the new one has been
read back, and files that no index lists go after that. So an address needs no atomic writes, and at
any moment the newest whole index lists files that are all there. Whatever it says may be a
stranger's: names are compared with these patterns before any is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from stackwise.jsontext import dumps, loads
from stackwise.mirrors.errors import MirrorError
from stackwise.mirrors.store import PIECE_BYTES, Store
from stackwise.own_code import NAME
from stackwise.runs.listing import ID
from stackwise.seals import sealed

FORMAT, LARGEST = 1, 64 << 20
FILES = "files"
INDEX = re.compile(r"index-([0-9]{8,12})\.json")
PIECE = re.compile(r"piece-[0-9a-f]{64}")
CHECKPOINT = re.compile(
    r"rack|best|stages/[0-9]{4,8}/rack|earlier/[0-9]{8,16}/rack|bests/[0-9]{8,16}/best"
)
RECORDS = (
    "experiment.yaml", "placement.yaml", "plan.json", "provenance.json", "tokenizer.json",
    "labels.json", "events.jsonl", "status.json", "exit.json", "log.txt", "metrics.parquet",
    "pruned.json", "pace.json", "drift.safetensors", "stages.json",
)  # fmt: skip
FOLDERS = {
    "code": NAME,
    "metrics": re.compile(r"[0-9]{4,8}\.arrows"),
    "start": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
}


def is_record(name: str) -> bool:
    """Whether a name is that of a record of a run, and so cannot lead out of its folder."""
    folder, slash, file = name.rpartition("/")
    if not slash:
        return name in RECORDS
    return folder in FOLDERS and FOLDERS[folder].fullmatch(file) is not None


def named(number: int) -> str:
    """The file of an index."""
    return f"index-{number:08d}.json"


def numbers_in(store: Store) -> list[int]:
    """The numbers of the indexes in a store, the newest first."""
    found = (INDEX.fullmatch(name) for name, size in store.names().items() if size is not None)
    return sorted((int(match[1]) for match in found if match), reverse=True)


def newest_index(store: Store) -> tuple[int, dict[str, Any]] | None:
    """The newest whole index and its number; None where there is none at all.

    Raises:
        MirrorError: If there are some, and none is whole.
    """
    trouble: MirrorError | None = None
    for number in numbers_in(store):
        try:
            return number, read_index(store.read(named(number), LARGEST), store.shown)
        except MirrorError as error:
            trouble = trouble or error
    if trouble is not None:
        raise trouble
    return None


def written(facts: Mapping[str, Any]) -> bytes:
    """An index as it stands in its file."""
    return dumps(sealed({"format": FORMAT, **facts})).encode()


def read_index(data: bytes, where: str) -> dict[str, Any]:
    """What an index says, its names and numbers compared with what they can be.

    Raises:
        MirrorError: If it is not as `written` wrote it.
    """
    if len(data) > LARGEST:
        raise MirrorError(f"{where}: its index is over {LARGEST} bytes; it is not ours")
    try:
        index: dict[str, Any] = loads(data.decode("utf-8"))
        if index["format"] != FORMAT:
            raise MirrorError(f"{where}: has format {index['format']!r}; this version reads 1")
        whole = sealed(index)["sha256"] == index["sha256"] and _is_ours(index)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise MirrorError(f"{where}: its index is damaged, or not ours")
    return index


def _is_ours(index: Mapping[str, Any]) -> bool:
    return bool(
        ID.fullmatch(index["run"])
        and "stages.json" in index["records"]
        and all(CHECKPOINT.fullmatch(name) for name in index["checkpoints"])
        and all(isinstance(manifest, dict) for manifest in index["checkpoints"].values())
        and all(map(is_record, index["records"]))
        and all(_is_piece(piece) for pieces in index["records"].values() for piece in pieces)
    )


def _is_piece(piece: Mapping[str, Any]) -> bool:
    size, digest = piece["bytes"], piece["sha256"]
    whole = not isinstance(size, bool) and isinstance(size, int) and 0 <= size <= PIECE_BYTES
    return whole and PIECE.fullmatch(f"piece-{digest}") is not None


def bytes_of(index: Mapping[str, Any]) -> int:
    """What a run's folder takes: each file of a checkpoint once, records as often as they come."""
    records = (piece["bytes"] for pieces in index["records"].values() for piece in pieces)
    return sum(max(0, size) for size in parts_of(index).values()) + sum(records)


def parts_of(index: Mapping[str, Any]) -> dict[str, int]:
    """The files of checkpoints that an index lists, by name, with their sizes."""
    return {
        entry["file"]: int(entry["bytes"])
        for manifest in index["checkpoints"].values()
        for entry in manifest["parts"].values()
    }


def listed(index: Mapping[str, Any]) -> dict[str, int]:
    """The files that an index lists, by name, with their sizes."""
    found = parts_of(index)
    for pieces in index["records"].values():
        found |= {f"piece-{piece['sha256']}": piece["bytes"] for piece in pieces}
    return found
