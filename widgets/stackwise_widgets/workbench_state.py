"""What a workbench opens with, as a file: what is designed, what is shown, what is hidden.

    preset: toy
    experiment: {curriculum: right_to_left}
    placement: {micro_batch: 8}
    hardware: h200
    text: In the beginning
    panel: Design
    run: toy-end_to_end-9e1f9b5c
    hide: [Compare, optim, run.sample]

Under `preset` a shipped experiment's name, which `experiment` and `placement` then change; without
it they change what the schema has for every key. A teacher saves one and gives it to a class.
Reading it builds values and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator

import stackwise as sw
from stackwise.atomic import write_text
from stackwise.choice import Section
from stackwise.errors import closest, said_in
from stackwise.shipped import preset_values
from stackwise.yaml_text import read_mapping, read_text

PANELS = ("Design", "Run", "Compare", "Inspect", "Teach")


def panel_called(name: str) -> str | None:
    """The panel of that name, capital letters aside; None if there is none."""
    return next((panel for panel in PANELS if panel.lower() == name.lower()), None)


class State(Section):
    """What a workbench opens with."""

    preset: str | None = Field(None, description="the shipped experiment that it begins with")
    experiment: dict[str, Any] = Field(default_factory=dict, description="what is designed of it")
    placement: dict[str, Any] = Field(default_factory=dict, description="how it is carried out")
    hardware: str = Field("this", description="the machine that is planned for")
    text: str | None = Field(None, description="the text that is masked; empty: the usual one")
    panel: str = Field("Design", description="the panel that is open")
    run: str | None = Field(None, description="id or folder of the run that is shown")
    hide: tuple[str, ...] = Field((), description="panels and controls that are not shown")

    @field_validator("preset")
    @classmethod
    def _is_shipped(cls, name: str | None) -> str | None:
        if name is not None:
            preset_values(name)  # raises, and lists them
        return name

    @field_validator("panel")
    @classmethod
    def _is_a_panel(cls, name: str) -> str:
        whole = panel_called(name)
        if whole is None:
            raise ValueError(f"unknown panel {name!r}{closest(name, PANELS)}")
        return whole


def read_state(path: str | Path) -> State:
    """A state from its file.

    Raises:
        ExperimentError: If the file cannot be read, or a key of it is wrong.
    """
    with said_in(str(path)):
        state = State(**read_mapping(read_text(path), str(path), "a workbench's state"))
        opened(state)  # what is wrong with them is said with the file's name, too
        return state


def write_state(path: str | Path, state: State) -> None:
    """Write a state into a file."""
    values = state.model_dump(mode="json", exclude_none=True)
    write_text(Path(path), yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def opened(state: State) -> tuple[sw.Experiment, sw.Placement]:
    """The experiment and placement that a state names.

    Raises:
        ExperimentError: If a key of them is wrong.
    """
    if state.preset is None:
        return sw.Experiment(**state.experiment), sw.Placement(**state.placement)
    experiment = sw.Experiment.preset(state.preset).replace(**state.experiment)
    return experiment, sw.Placement.preset(state.preset).replace(**state.placement)
