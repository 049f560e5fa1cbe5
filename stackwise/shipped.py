"""The presets: experiments that ship, a YAML file each, with how they are carried out."""

from __future__ import annotations

from importlib import resources
from typing import Any

from stackwise.errors import ExperimentError, closest
from stackwise.yaml_text import read_mapping


def presets() -> list[str]:
    """Names of the shipped experiments."""
    folder = resources.files("stackwise").joinpath("presets")
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def preset_values(name: str) -> dict[str, Any]:
    """What the file of a preset says.

    Raises:
        ExperimentError: If there is none of that name.
    """
    known = presets()
    if name not in known:
        raise ExperimentError(f"unknown preset {name!r}{closest(str(name), known)}")
    text = resources.files("stackwise").joinpath("presets", f"{name}.yaml").read_text("utf-8")
    return read_mapping(text, f"preset {name}")
