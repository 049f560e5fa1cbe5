"""Checkpoints: one safetensors file per part, one manifest that commits them.

Files are named by part and content, written and flushed before the manifest that lists them takes
the old one's place; a kill at any moment leaves the old checkpoint or the new one. Parts that did
not change are not written again. Only safetensors and JSON are read: no pickle.

    rack/manifest.json                   what is valid: files, hashes, counters, noise paths
    rack/s0-1f3a....safetensors          weights of a part
    rack/s0.optimizer-77b1....safetensors    what resuming needs
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stackwise.atomic import replacing, sha256_of, write_text

Tensors = Mapping[str, Tensor]
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 16 << 20
NAME = re.compile(r"[A-Za-z0-9_.-]{1,80}-[0-9a-f]{16}\.safetensors")


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, or not one of ours."""


def save(
    folder: Path,
    parts: Mapping[str, Tensors],
    *,
    unchanged: frozenset[str] | set[str] = frozenset(),
    **facts: Any,
) -> None:
    """Write a checkpoint; the last one stays valid until this one is.

    Args:
        folder: Where; made if it is not there.
        parts: Name of each part to its tensors; one at a time is copied to the CPU.
        unchanged: Parts whose file in the present manifest is still right.
        facts: What else the manifest holds, as JSON.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the last one is intact.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = read_manifest(folder)["parts"] if (folder / MANIFEST).exists() else {}
    entries = {
        name: old[name] if name in unchanged and name in old else _write(folder, name, tensors)
        for name, tensors in parts.items()
    }
    text = json.dumps({"format": 1, "parts": entries, **facts}, indent=1)
    write_text(folder / MANIFEST, text)
    kept = {entry["file"] for entry in entries.values()}
    for file in folder.iterdir():
        if file.name not in kept and (NAME.fullmatch(file.name) or file.name.endswith(".part")):
            file.unlink(missing_ok=True)


def _write(folder: Path, name: str, tensors: Tensors) -> dict[str, Any]:
    """Write one part, under a name that holds its content's hash."""
    ready = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    part = folder / f".{name}.part"
    save_file(ready, part)
    digest = sha256_of(part)
    target = folder / f"{name}-{digest[:16]}.safetensors"
    with replacing(target) as free:
        part.replace(free)
    return {"file": target.name, "bytes": target.stat().st_size, "sha256": digest}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint.

    Raises:
        CheckpointError: If there is none, or it is not one that `save` wrote.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise CheckpointError(f"{folder.name}: holds no {MANIFEST}; the run has no checkpoint yet")
    if path.stat().st_size > LARGEST_MANIFEST:
        raise CheckpointError(f"{path.name}: over {LARGEST_MANIFEST} bytes; it is not ours")
    try:
        manifest = json.loads(path.read_text("utf-8"))
        names = [entry["file"] for entry in manifest["parts"].values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{folder.name}/{MANIFEST}: is damaged; restore it from a copy of the run"
        ) from None
    if not all(isinstance(name, str) and NAME.fullmatch(name) for name in names):
        raise CheckpointError(f"{folder.name}/{MANIFEST}: names a file that cannot be ours")
    return dict(manifest)


def read_part(folder: Path, manifest: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The tensors of one part, checked against the manifest.

    Raises:
        CheckpointError: If the part is not listed, or its file is missing, cut or altered.
    """
    if name not in manifest["parts"]:
        raise CheckpointError(
            f"{folder.name}: no part {name!r}; it has {', '.join(manifest['parts'])}"
        )
    entry = manifest["parts"][name]
    path = folder / entry["file"]
    if not path.exists():
        raise CheckpointError(f"{folder.name}/{entry['file']}: is missing; restore it from a copy")
    if path.stat().st_size != entry["bytes"] or sha256_of(path) != entry["sha256"]:
        raise CheckpointError(
            f"{folder.name}/{entry['file']}: is not what was written (its bytes or hash differ); "
            "restore it from a copy"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{folder.name}/{entry['file']}: {error}") from None


def weights_hash(folder: Path, parts: list[str] | None = None) -> str:
    """One hash over the weights of a checkpoint: equal weights, equal hashes."""
    listed = read_manifest(folder)["parts"]
    chosen = sorted(name for name in listed if "." not in name) if parts is None else parts
    lines = [f"{name} {listed[name]['sha256']}" for name in chosen]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
