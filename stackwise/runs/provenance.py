"""Where a run's numbers come from: code, versions, machine. No absolute path, no user name."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("stackwise", "torch", "numpy", "pydantic", "safetensors", "tokenizers", "pyarrow")


def provenance_of() -> dict[str, Any]:
    """What can be known of this process: versions, machine, commit, command."""
    return {
        "command": [Path(sys.argv[0]).name, *(Path(arg).name for arg in sys.argv[1:])],
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "code": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str | None:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or None
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else None


def _commit() -> dict[str, Any] | None:
    """The commit this code was run from and what differed from it; None outside a checkout."""
    home = Path(__file__).resolve().parents[2]
    if not (home / ".git").exists():
        return None
    commit = _git(home, "rev-parse", "HEAD")
    return {"commit": commit, "diff": _git(home, "diff", "HEAD", "--", "stackwise") or ""}


def _git(home: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=home, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
