"""Where a run's numbers come from: code, versions, machine, command. No absolute path."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "stackwise",
    "torch",
    "numpy",
    "pydantic",
    "safetensors",
    "tokenizers",
    "pyarrow",
    "pandas",
    "datasets",
)
LARGEST_DIFF = 1 << 18


def provenance_of(folder: Path) -> dict[str, Any]:
    """What can be known of this process: versions, machine, commit, command.

    Args:
        folder: The run's; paths on the command line are written relative to it.
    """
    import torch

    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *(without_paths(a, folder) for a in sys.argv[1:])],
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": {
            "build": torch.version.git_version,
            "cuda": torch.version.cuda,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        },
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "code": _code(),
    }


def without_paths(argument: str, folder: Path) -> str:
    """A command-line argument with each absolute path in it seen from the run's folder.

    A path that shares nothing with the folder but the root is cut to its last name. `key=PATH` and
    `text:PATH` are understood.
    """

    def seen(found: re.Match[str]) -> str:
        path, base = os.path.expanduser(found[2]), str(folder.resolve())
        shared = os.path.commonpath([base, path]) if os.path.isabs(path) else os.sep
        name = os.path.basename(path.rstrip(os.sep)) or "root"
        return found[1] + (name if shared == os.sep else os.path.relpath(path, base))

    return re.sub(r"(^|[=:,])((?:/(?!/)|~).*)$", seen, argument)


@cache
def _version(name: str) -> str | None:
    """Of an installed package, which stays for as long as this process lives."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str | None:
    """What the machine's processor is called; None where the system does not say."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or None
    lines = info.read_text("utf-8", errors="replace").splitlines()
    names = [line for line in lines if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else None


def _code() -> dict[str, Any] | None:
    """The commit this code was run from and what differed from it; None outside a checkout."""
    home = Path(__file__).resolve().parents[2]
    if not (home / ".git").exists():
        return None
    diff = _git(home, "diff", "--no-ext-diff", "HEAD", "--", "stackwise") or ""
    new = _git(home, "ls-files", "--others", "--exclude-standard", "--", "stackwise") or ""
    return {
        "commit": _git(home, "rev-parse", "HEAD"),
        "diff": diff if len(diff) <= LARGEST_DIFF else f"{diff[:LARGEST_DIFF]}\n(cut)",
        "untracked": new.splitlines(),
    }


def _git(home: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=home,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
