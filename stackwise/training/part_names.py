"""What the parts of a checkpoint are called, and where the file of each lies.

Weights have the name of the part (`embedding`, `s0`, `head`, and `s1.adapter` for what a stack
carries); what else is held of a part has that name and its kind (`s0.optimizer`).
"""

from __future__ import annotations

import re
from pathlib import Path

from stackwise.adapters import SUFFIX

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
FILE = re.compile(NAME.pattern + r"-[0-9a-f]{16}\.safetensors")
MOMENTS, AVERAGE, MASTER, BEFORE = "optimizer", "average", "master", "before"


def holds_weights(part: str) -> bool:
    """Whether a part is weights: `embedding`, a stack, its adapter (`s1.adapter`), `head`."""
    return "." not in part.removesuffix(SUFFIX)


def split(name: str) -> tuple[str, str]:
    """A part and what a file has of it: `s1.adapter.optimizer` is `optimizer` of `s1.adapter`."""
    part, _, kind = name.rpartition(".")
    return (name, "") if holds_weights(name) else (part, kind)


def home_of(folder: Path, part: str) -> Path:
    """The folder of a part's file: what resuming needs lies beside `rack`, the rest in `folder`."""
    return folder if holds_weights(part) or folder.name != "rack" else folder.with_name("state")
