"""An experiment as people take it away: Python, a command line, YAML; all three say the same."""

from __future__ import annotations

import json
from shlex import quote
from typing import Any

import yaml
from pydantic import BaseModel

import stackwise as sw

PLACED = "placement"


def changes_from_preset(exp: sw.Experiment) -> tuple[str | None, dict[str, Any]]:
    """The preset that an experiment is a change of, and what it changes: key with dots to value.

    The preset is the one of its title; None if there is none, and what differs from the defaults
    then.
    """
    name = exp.title if exp.title in sw.presets() else None
    return name, differing(sw.Experiment.preset(name) if name else sw.Experiment(), exp)


def changes_of_placement(placement: sw.Placement, preset: str | None) -> dict[str, Any]:
    """What a placement has otherwise than the usual one of a preset."""
    usual = sw.Placement.preset(preset) if preset else sw.Placement()
    return differing(usual, placement)


def differing(old: BaseModel, new: BaseModel, before: str = "") -> dict[str, Any]:
    """The keys that make the one value of the other, with dots, as `replace` reads them."""
    out: dict[str, Any] = {}
    for name in type(new).model_fields:
        was, value, path = getattr(old, name), getattr(new, name), f"{before}{name}"
        if value == was:
            continue
        if isinstance(value, sw.Params) and type(was) is not type(value):
            out |= {path: value.choice, **_given(value, f"{path}.")}
        elif isinstance(value, BaseModel) and getattr(value, "merges", True):
            out |= differing(was, value, f"{path}.")
        elif isinstance(value, BaseModel):
            found = value.model_dump(mode="json", exclude_none=True)
            out |= {f"{path}.{key}": item for key, item in found.items()}
        else:
            out[path] = list(value) if isinstance(value, tuple) else value
    return out


def _given(params: sw.Params, before: str) -> dict[str, Any]:
    """The parameters of a kind that are not at their defaults."""
    usual = {name: field.default for name, field in type(params).model_fields.items()}
    found = {name: getattr(params, name) for name in usual if name != params.selector()}
    return {
        f"{before}{name}": list(value) if isinstance(value, tuple) else value
        for name, value in found.items()
        if value != usual[name]
    }


def as_python(exp: sw.Experiment, placement: sw.Placement) -> str:
    """Lines that launch the same."""
    preset, changes = changes_from_preset(exp)
    placed = changes_of_placement(placement, preset)
    first = f'sw.Experiment.preset("{preset}")' if preset else "sw.Experiment()"
    lines = ["import stackwise as sw", ""]
    if changes:
        inside = "".join(f"    {key!r}: {value!r},\n" for key, value in changes.items())
        lines.append(f"exp = {first}.replace(**{{\n{inside}}})")
    else:
        lines.append(f"exp = {first}")
    usual = f'sw.Placement.preset("{preset}")' if preset else "sw.Placement()"
    words = ", ".join(f"{key}={value!r}" for key, value in placed.items())
    lines.append(f"placement = {usual}" + (f".replace({words})" if placed else ""))
    return "\n".join([*lines, "run = sw.launch(exp, placement)"]) + "\n"


def as_command(exp: sw.Experiment, placement: sw.Placement) -> str:
    """The same as a command; of an experiment without a preset it names a file of its YAML."""
    preset, changes = changes_from_preset(exp)
    placed = changes_of_placement(placement, preset)
    words = {} if preset is None else dict(changes)
    words |= {f"{PLACED}.{key}": value for key, value in placed.items()}
    said = [quote(f"{key}={in_yaml(value)}") for key, value in words.items()]
    return " ".join(["stackwise", "launch", preset or f"{exp.title}.yaml", *said])


def as_yaml(exp: sw.Experiment, placement: sw.Placement) -> str:
    """The same as a file: the whole experiment, and how it is carried out."""
    values = {**exp.model_dump(mode="json"), PLACED: placement.model_dump(mode="json")}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def in_yaml(value: Any) -> str:
    """A value as YAML reads it on one line."""
    if isinstance(value, str):
        text = yaml.safe_dump(value, width=10**9, allow_unicode=value.isprintable()).strip()
        return text.removesuffix("\n...").strip()
    return json.dumps(value)
