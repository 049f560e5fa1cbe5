"""What a preset, file or model folder and `key=value` pairs say: an experiment, a placement."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_settings(command: argparse.ArgumentParser, changes: str = "changes, as for run") -> None:
    """The arguments of a command whose experiment `settings` reads."""
    command.add_argument(
        "experiment",
        metavar="EXPERIMENT",
        help="a name that `stackwise presets` lists, a YAML file, or a folder of `import`",
    )
    command.add_argument("changes", nargs="*", default=[], metavar="key=value", help=changes)
    add_code(command)


def add_code(command: argparse.ArgumentParser) -> None:
    """The option by which a user names files of their own."""
    command.add_argument(
        "--code",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file of yours that brings kinds; it is imported first, and a run carries "
        "it; may be given again",
    )


def add_trust(command: argparse.ArgumentParser) -> None:
    """The option by which a user trusts what came with a run."""
    command.add_argument(
        "--trust",
        action="store_true",
        help="import the code that it carries: it runs as you, so read it first",
    )


def settings(source: str, changes: Sequence[str]) -> tuple[Any, Any]:
    """The experiment and placement that a preset, file or model folder and `key=value` pairs say.

    A file may hold a section `placement` beside those of the experiment. The placement's
    `model_fields_set` are the keys that were said, in it or as pairs; a preset says none, it only
    has other defaults.

    Raises:
        ExperimentError: If anything of it is wrong.
        ModelError: If it is a folder of Hugging Face's, with the command that imports it, or a
            damaged model folder.
    """
    from stackwise.changes import merged, nested
    from stackwise.choice import unfolded
    from stackwise.config import Experiment, Placement, presets
    from stackwise.errors import ExperimentError, closest, said_in
    from stackwise.yaml_text import read_mapping, read_text

    science = nested(said(changes))
    asked, section, usual = science.pop("placement", {}), {}, None
    if source in presets():
        exp, usual = Experiment.preset(source), Placement.preset(source)
    elif any(os.path.isfile(Path(source, name)) for name in ("model.yaml", "config.json")):
        from stackwise.interop.beginning import experiment_from

        exp = experiment_from(source)
    elif Path(source).suffix in (".yaml", ".yml") or (source and Path(source).exists()):
        values = read_mapping(read_text(source), source)
        section = values.pop("placement", {})
        with said_in(source):
            exp = Experiment(**values)
    elif re.match(r"[\w.]+=", source):
        raise ExperimentError(
            f"{source!r} is a change; name what it changes first, as: toy {source}"
        )
    else:
        raise ExperimentError(
            f"{source!r} is neither a YAML file, a model folder nor a preset"
            f"{closest(source, presets())}"
        )
    with said_in(source):
        placement = Placement.model_validate(section)
    whole = Placement.model_validate(merged(usual or placement, asked))
    named = placement.model_fields_set | unfolded(Placement, asked).keys()
    return exp.replace(**science), Placement.model_construct(set(named), **whole.model_dump())


def said(changes: Sequence[str]) -> dict[str, Any]:
    """Keys and values of `key=value` pairs.

    Raises:
        ExperimentError: If one is no such pair.
    """
    from stackwise.errors import ExperimentError

    found: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise ExperimentError(f"{change!r}: not of the form key=value, as in optim.lr=1e-3")
        found.pop(key, None)  # of a key given twice the later one counts, also for its place
        found[key] = parsed(text, key)
    return found


def placement_keys(changes: Sequence[str]) -> dict[str, Any] | None:
    """What `placement.key=value` pairs change of a run; None for nothing.

    Raises:
        ExperimentError: If one is no such pair, or would change what decides the numbers.
    """
    from stackwise.changes import nested
    from stackwise.errors import ExperimentError

    found = nested(said(changes))
    wrong = [key for key in found if key != "placement"]
    if wrong:
        raise ExperimentError(
            f"{wrong[0]}: decides the numbers, which a run that is there does not change; only "
            "placement.key=value is read here"
        )
    keys = found.get("placement")
    return {"device": keys} if isinstance(keys, str) else keys


def parsed(text: str, key: str) -> Any:
    """A value as YAML reads it; what is not YAML is text, unless it begins a mapping or a list.

    Raises:
        ExperimentError: If it does, and is not YAML.
    """
    import yaml

    from stackwise.errors import ExperimentError, short
    from stackwise.yaml_text import marked, read_value

    if re.fullmatch(r"\w+:", text):  # as data=text: and no mapping to nothing
        return text
    try:
        return read_value(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if not text.lstrip().startswith(("{", "[")):
            return text
        why = marked(error) if isinstance(error, yaml.MarkedYAMLError) else "is nested too deeply"
        raise ExperimentError(f"{key}: {short(text)} is not YAML: {why}") from None
