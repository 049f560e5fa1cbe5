"""What a checkpoint holds, read and compared with its manifest; nothing here writes.

The manifest has a hash of itself, and one of each file that it lists, so that what was edited, cut
or put in a file's place is refused. Only safetensors and JSON are read: no pickle. How a checkpoint
is written is in `checkpoint.py`; which run one is of, in `ownership.py`.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from stackwise.atomic import sha256_of
from stackwise.bounded import read_text
from stackwise.jsontext import loads
from stackwise.pulse import beat
from stackwise.runs.damage import RESTORE
from stackwise.runs.records import MANIFEST
from stackwise.seals import sealed
from stackwise.training.part_names import NAME, holds_weights, home_of
from stackwise.versions import MANIFEST as MANIFEST_KIND
from stackwise.versions import VersionError, upgraded, version_of

LOST = (errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO))
LARGEST_MANIFEST = 16 << 20


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, or not one of ours."""


class NoCheckpoint(CheckpointError):
    """A run that has none yet."""


class CheckpointReplaced(CheckpointError):
    """A newer checkpoint took the place of the one that was being read; read that one."""


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
    except OSError as error:
        raise _unread(error, where) from error
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
    except OSError as error:
        raise _unread(error, where) from error
    beat()
    return path


def verify_all(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compare every file of a checkpoint with its hash, which reads all of them.

    Raises:
        CheckpointReplaced, CheckpointError: As `read_part`.
    """
    for name in manifest["parts"]:
        verify_part(folder, manifest, name)


def _gone(folder: Path, manifest: Mapping[str, Any], where: str) -> CheckpointError:
    """Why a file is missing: another checkpoint took its place, or it was lost."""
    try:
        same = read_manifest(folder) == manifest
    except NoCheckpoint:  # an earlier one, of which there are so many at most
        same = False
    if not same:
        return CheckpointReplaced(
            f"{folder.name}: a newer checkpoint was written while it was read; read it again"
        )
    return CheckpointError(f"{where}: is missing; {RESTORE}")


def _unread(error: OSError, where: str) -> Exception:
    """What a file that cannot be read comes to: damage, if the disk has lost it."""
    if error.errno not in LOST:
        return error
    return CheckpointError(f"{where}: cannot be read: {error.strerror}; {RESTORE}")


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
