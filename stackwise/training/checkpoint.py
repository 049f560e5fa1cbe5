"""Checkpoints: one safetensors file per part, one manifest that commits them all.

    rack/manifest.json                       what is valid: files, hashes, counters
    rack/s0-1f3a....safetensors              weights of a part
    rack/s0.adapter-9c04....safetensors      its adapter, if it carries one
    state/s0.optimizer-77b1....safetensors   what resuming needs

Files are named by part and content, written and flushed before the manifest that lists them takes
the old one's place, and removed after it; so a kill at any moment leaves the old checkpoint or the
new one. A part that did not change is not written again.

How they are read and compared with what was written is in `manifest.py`, what parts are called in
`part_names.py`, the bytes of one file in `tensorfile.py`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stackwise.atomic import PART, flush, write_text
from stackwise.disk_errors import disk_named
from stackwise.jsontext import dumps
from stackwise.runs.damage import RESTORE
from stackwise.runs.records import MANIFEST
from stackwise.seals import sealed
from stackwise.training.manifest import CheckpointError, read_manifest
from stackwise.training.part_names import FILE, NAME, home_of
from stackwise.training.tensorfile import Tensors, holds, save_file
from stackwise.versions import MANIFEST as MANIFEST_KIND

INTACT = "the last whole one is intact"


@dataclass(frozen=True)
class Written:
    """A part whose file is there, and that no manifest lists yet.

    Attributes:
        entry: What the manifest will say of it.
    """

    entry: dict[str, Any]


Part = Tensors | Written


def save(
    folder: Path,
    parts: Mapping[str, Part],
    *,
    unchanged: Collection[str] = (),
    written_in: int | None = None,
    formats: Mapping[str, str] = MappingProxyType({}),
    **facts: Any,
) -> None:
    """Write a checkpoint; the last one stays valid until this one is.

    Args:
        folder: Where; made if it is not there.
        parts: Name of each part to its tensors, or to what `write_ahead` gave. They are taken one
            part after the other, and one tensor at a time is copied to the CPU.
        unchanged: Parts whose file in the present checkpoint is still right; they are neither
            read nor hashed, and may be missing from `parts`.
        written_in: The stage; the manifest says it of each part that did change.
        formats: Of the parts that are frozen to one of `FORMATS`, which.
        facts: What else the manifest holds, as JSON: counters.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the last one is intact.
        CheckpointError: If the present one is damaged, or lacks a file that is still wanted.
        ValueError: If a part's name cannot be a file's, or `unchanged` names an unknown part.
    """
    old = read_manifest(folder)["parts"] if (folder / MANIFEST).exists() else {}
    _check_names(parts, unchanged, old)
    with disk_named(f"{folder.name}: the checkpoint cannot be written", INTACT):
        folder.mkdir(exist_ok=True)
        entries = {}
        for name in dict.fromkeys([*parts, *unchanged]):
            before = old.get(name)
            if name in unchanged and before is not None and _is_there(folder, name, before):
                entries[name] = before
            elif name not in parts:
                raise CheckpointError(f"{folder.name}: the file of {name} is missing; {RESTORE}")
            else:
                part = parts[name]
                if not isinstance(part, Written):
                    part = Written(_write(folder, name, part, before, written_in))
                entries[name] = {**part.entry, "format": formats.get(name)}
        for home in {folder.parent, folder, *(home_of(folder, name) for name in entries)}:
            flush(home)
        manifest = sealed({"format": MANIFEST_KIND.now, "parts": entries, **facts})
        write_text(folder / MANIFEST, dumps(manifest, indent=1))
    _remove_stale(folder, entries)


def write_ahead(folder: Path, name: str, tensors: Tensors, *, written_in: int) -> Written:
    """Write one part of the next checkpoint now, so that its tensors can go before the others come.

    The next `save` has to be given it, or removes it.

    Raises:
        OSError: As `save`.
    """
    old = read_manifest(folder)["parts"] if (folder / MANIFEST).exists() else {}
    with disk_named(f"{folder.name}: the checkpoint cannot be written", INTACT):
        folder.mkdir(exist_ok=True)
        return Written(_write(folder, name, tensors, old.get(name), written_in))


def _check_names(
    parts: Mapping[str, Part], unchanged: Collection[str], old: Mapping[str, Any]
) -> None:
    for name in parts:
        if not NAME.fullmatch(name):
            raise ValueError(f"part {name!r}: only letters, digits, '.', '_' and '-' are allowed")
    for name in unchanged:
        if name not in parts and name not in old:
            raise ValueError(f"unchanged part {name!r}: was never saved; give its tensors")


def _is_there(folder: Path, name: str, entry: Mapping[str, Any]) -> bool:
    path = home_of(folder, name) / entry["file"]
    return path.is_file() and path.stat().st_size == entry["bytes"]


def _write(
    folder: Path, name: str, tensors: Tensors, before: dict[str, Any] | None, written_in: int | None
) -> dict[str, Any]:
    """Write one part under a name that holds its content's hash, unless it is there already."""
    home = home_of(folder, name)
    home.mkdir(exist_ok=True)
    if before is not None and holds(home / before["file"], tensors):
        return before
    part = home / f".{name}{PART}"
    try:
        digest = save_file(tensors, part)
        flush(part)
        file = f"{name}-{digest[:16]}.safetensors"
        os.replace(part, home / file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return {
        "file": file,
        "bytes": (home / file).stat().st_size,
        "sha256": digest,
        "dtype": " ".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()})),
        "stage": written_in,
    }


def _remove_stale(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Remove the files that no manifest lists any more, and what a kill left half-written."""
    kept = {entry["file"] for entry in entries.values()}
    for home in (folder, home_of(folder, "any.state")):
        for file in home.iterdir() if home.is_dir() else ():
            if file.name not in kept and (FILE.fullmatch(file.name) or file.name.endswith(PART)):
                with suppress(OSError):  # it is in nobody's way; the next save tries again
                    file.unlink(missing_ok=True)


def tidy(folder: Path) -> None:
    """Remove what a kill left beside a checkpoint: parts of another one that is not valid.

    Raises:
        CheckpointError: If its manifest is damaged.
    """
    if (folder / MANIFEST).exists():
        _remove_stale(folder, read_manifest(folder)["parts"])
