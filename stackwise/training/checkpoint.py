"""Checkpoints: one safetensors file per part, one manifest that commits them all.

    rack/manifest.json                       what is valid: files, hashes, counters
    rack/s0-1f3a....safetensors              weights of a part
    rack/s0.adapter-9c04....safetensors      its adapter, if it carries one
    state/s0.optimizer-77b1....safetensors   what resuming needs

Files are named by part and content, written and flushed before the manifest that lists them takes
the old one's place, and removed after it; so a kill at any moment leaves the old checkpoint or the
new one. A part that did not change is not written again. The manifest holds a hash of itself, so an
edited one is refused. Only safetensors and JSON are read: no pickle. The bytes of one file are in
`tensorfile.py`; which run a checkpoint is of, in `ownership.py`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from stackwise.adapters import SUFFIX
from stackwise.atomic import PART, flush, sha256_of, write_text
from stackwise.bounded import read_text
from stackwise.disk_errors import disk_named
from stackwise.jsontext import dumps, loads
from stackwise.pulse import beat
from stackwise.runs.folder import MANIFEST as MANIFEST
from stackwise.runs.folder import RESTORE as RESTORE
from stackwise.seals import sealed as sealed
from stackwise.training.tensorfile import Tensors, holds, save_file
from stackwise.versions import MANIFEST as MANIFEST_KIND
from stackwise.versions import VersionError, upgraded, version_of

LARGEST_MANIFEST = 16 << 20
INTACT = "the last whole one is intact"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
FILE = re.compile(NAME.pattern + r"-[0-9a-f]{16}\.safetensors")


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, or not one of ours."""


class NoCheckpoint(CheckpointError):
    """A run that has none yet."""


class CheckpointReplaced(CheckpointError):
    """A newer checkpoint took the place of the one that was being read; read that one."""


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
        CheckpointError: If the present one is damaged.
        ValueError: If a part's name cannot be a file's, or `unchanged` names an unknown part.
    """
    old = read_manifest(folder)["parts"] if (folder / MANIFEST).exists() else {}
    _check_names(parts, unchanged, old)
    with disk_named(f"{folder.name}: the checkpoint cannot be written", INTACT):
        folder.mkdir(exist_ok=True)
        entries = {}
        for name in dict.fromkeys([*parts, *unchanged]):
            before = old.get(name)
            still = name in unchanged and before is not None and _is_there(folder, name, before)
            if before is not None and (still or name not in parts):
                entries[name] = before
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


def home_of(folder: Path, part: str) -> Path:
    """The folder of a part's file: what resuming needs lies beside `rack`, the rest in `folder`."""
    return folder if holds_weights(part) or folder.name != "rack" else folder.with_name("state")


def holds_weights(part: str) -> bool:
    """Whether a part is weights: `embedding`, a stack, its adapter (`s1.adapter`), `head`."""
    return "." not in part.removesuffix(SUFFIX)


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


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint: `parts`, and the facts that `save` was given.

    Raises:
        CheckpointError: If there is none, or it is not as `save` wrote it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise NoCheckpoint(f"{folder.name}: holds no {MANIFEST}; the run has no checkpoint yet")
    where = f"{folder.name}/{MANIFEST}"
    if path.stat().st_size > LARGEST_MANIFEST:
        raise CheckpointError(f"{where}: is over {LARGEST_MANIFEST} bytes; it is not ours")
    try:
        found = loads(read_text(path, LARGEST_MANIFEST))
        version = 0 if _is_unsealed(found) else version_of(MANIFEST_KIND, found)
        whole = version == 0 or sealed(found)["sha256"] == found.get("sha256")
        manifest = upgraded(MANIFEST_KIND, found, version)
        manifest = manifest if version == MANIFEST_KIND.now else sealed(manifest)
        ours = all(_is_ours(name, entry) for name, entry in manifest["parts"].items())
    except VersionError as error:
        raise CheckpointError(f"{where}: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{where}: is damaged; {RESTORE}") from None
    if not ours:
        raise CheckpointError(f"{where}: names a file that cannot be ours; {RESTORE}")
    if not whole:
        raise CheckpointError(
            f"{where}: is not what was written (its hash is missing or differs); {RESTORE}"
        )
    formats = (entry.get("format") for entry in manifest["parts"].values())
    if not all(isinstance(name, str | None) for name in formats):
        raise CheckpointError(f"{where}: a part is in a format that is none; {RESTORE}")
    return manifest


def _is_unsealed(manifest: Mapping[str, Any]) -> bool:
    """Whether it is of before manifests held their hash, which run they are of, and formats."""
    newer = any("format" in entry for entry in manifest["parts"].values())
    return manifest["format"] == 1 and not newer and not {"sha256", "run"} & manifest.keys()


def _is_ours(name: str, entry: Any) -> bool:
    """Whether a part's entry is as `save` writes it, so that its file cannot lie elsewhere."""
    file, size, digest = entry["file"], entry["bytes"], entry["sha256"]
    whole = isinstance(size, int) and re.fullmatch(r"[0-9a-f]{64}", digest)
    return bool(NAME.fullmatch(name) and whole and file == f"{name}-{digest[:16]}.safetensors")


def read_part(
    folder: Path, manifest: Mapping[str, Any], name: str, *, verify: bool = True
) -> dict[str, Tensor]:
    """The tensors of one part, mapped from its file.

    Args:
        folder: The checkpoint's.
        manifest: What `read_manifest` gave.
        name: The part's.
        verify: Compare the file's hash, which reads all of it; its size is always compared.

    Raises:
        CheckpointReplaced: If a newer checkpoint has been written meanwhile.
        CheckpointError: If the part is not listed, or its file is missing, cut or altered.
    """
    path = verify_part(folder, manifest, name, whole=verify)
    where = f"{path.parent.name}/{path.name}"
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise _gone(folder, manifest, where) from None
    except SafetensorError as error:
        raise CheckpointError(f"{where}: {error}; {RESTORE}") from None


def verify_part(
    folder: Path, manifest: Mapping[str, Any], name: str, *, whole: bool = True
) -> Path:
    """The file of a part, compared with what the manifest says of it.

    Args:
        folder: The checkpoint's.
        manifest: What `read_manifest` gave.
        name: The part's.
        whole: Compare the hash, which reads all of the file, and not only its size.

    Raises:
        CheckpointReplaced, CheckpointError: As `read_part`.
    """
    if name not in manifest["parts"]:
        raise CheckpointError(
            f"{folder.name}: no part {name!r}; it has {', '.join(manifest['parts'])}"
        )
    entry = manifest["parts"][name]
    path = home_of(folder, name) / entry["file"]
    where = f"{path.parent.name}/{path.name}"
    try:
        right = path.stat().st_size == entry["bytes"]
        if not right or (whole and sha256_of(path) != entry["sha256"]):
            raise CheckpointError(
                f"{where}: is not what was written (its bytes or hash differ); {RESTORE}"
            )
    except FileNotFoundError:
        raise _gone(folder, manifest, where) from None
    beat()
    return path


def _gone(folder: Path, manifest: Mapping[str, Any], where: str) -> CheckpointError:
    """Why a file is missing: another checkpoint took its place, or it was lost."""
    if read_manifest(folder) != manifest:
        return CheckpointReplaced(
            f"{folder.name}: a newer checkpoint was written while it was read; read it again"
        )
    return CheckpointError(f"{where}: is missing; {RESTORE}")


def weights_hash(folder: Path, parts: Collection[str] | None = None) -> str:
    """One hash over the weights of a checkpoint: equal weights, equal hashes.

    Args:
        folder: The checkpoint's.
        parts: Only these; None for all weights, without what resuming needs.
    """
    listed = read_manifest(folder)["parts"]
    chosen = sorted(filter(holds_weights, listed)) if parts is None else parts
    lines = [f"{name} {listed[name]['sha256']}" for name in chosen]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
