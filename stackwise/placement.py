"""How an experiment is carried out on a machine: where, in how large pieces, from which folders.

It changes bytes and seconds and no number, so that an experiment holds none and its hash knows
nothing of it. What decides the numbers is in `config.py`.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from stackwise.choice import Section
from stackwise.errors import ExperimentError, older_read, said_in
from stackwise.shipped import preset_values
from stackwise.versions import PLACEMENT
from stackwise.yaml_text import read_mapping, read_text


class Placement(Section):
    """How an experiment is carried out on a machine. Changes bytes and seconds, no number."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it computes")
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="CPU threads; empty: as many as torch had where the run was made (recorded)",
    )
    deterministic: bool = Field(
        False,
        description="only kernels that add in a fixed order, so that a card gives the same bits "
        "again; slower there; a step that has none ends the run",
    )
    micro_batch: int | None = Field(
        None, ge=1, description="samples per forward pass; empty: the whole batch"
    )
    checkpointing: bool = Field(
        False, description="recompute each block in backward instead of keeping its activations"
    )
    compile: bool = Field(False, description="torch.compile the blocks, up to eight at a time")
    trunk: Literal["recompute", "streamed", "cached"] = Field(
        "recompute",
        description="where a stage's input comes from: frozen stacks in memory, block by block "
        "from where they lie, or their outputs kept on disk",
    )
    stream_from: Literal["disk", "host"] = Field(
        "disk", description="where streamed stacks lie: in the run's folder, or in host memory"
    )
    cache_dir: str | None = Field(
        None, description="folder for cached outputs; empty: in the run's own"
    )
    cache_gb: float | None = Field(
        None, gt=0, description="most that cached outputs may take, 10^9 bytes; empty: the disk"
    )
    data_workers: int = Field(
        1, ge=0, le=16, description="threads that make batches ahead of the step; 0: its own does"
    )
    runs_dir: str = Field("runs", description="folder that holds the run folders")
    data_dir: str = Field(".", description="folder in which relative corpus paths are looked up")
    checkpoint_seconds: float = Field(
        60.0, gt=0, description="at most this long between checkpoints inside a stage"
    )
    keep_stages: bool = Field(
        True, description="keep the rack as each stage left it, so that a run can be forked there"
    )
    keep_last: int = Field(
        1,
        ge=1,
        le=1000,
        description="how many checkpoints are kept, the newest included, so that a run can go back "
        "to one before",
    )
    keep_best: int = Field(
        1,
        ge=0,
        le=1000,
        description="of how many looks in the last stage the weights are kept, those of the lowest "
        "held-out loss; 0: none",
    )

    @field_validator("runs_dir", "data_dir", "cache_dir", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return str(value) if isinstance(value, PurePath) else value

    @classmethod
    def _said(cls, error: ValidationError) -> ExperimentError:
        problems = super()._said(error).problems  # of a validated mapping: said already
        named = [p if p.path.startswith("placement") else p.under("placement") for p in problems]
        return ExperimentError(named)

    def replace(self, **changes: Any) -> Placement:
        """A copy with some keys changed, validated again."""
        return Placement(**{**self.model_dump(), **changes})

    def to_yaml(self) -> str:
        """All keys as YAML, and the version that writes them."""
        values = {PLACEMENT.key: PLACEMENT.now, **self.model_dump(mode="json")}
        return yaml.safe_dump(values, sort_keys=False)

    @classmethod
    def load(cls, path: str | Path) -> Placement:
        """Read a YAML file that `to_yaml` wrote."""
        values = read_mapping(read_text(path, links=False), str(path), "a placement")
        with said_in(str(path)):
            values = older_read(PLACEMENT, values)
            values.pop(PLACEMENT.key, None)
            return cls(**values)

    @classmethod
    def preset(cls, name: str) -> Placement:
        """How the shipped experiment called `name` is carried out if nothing else is said."""
        with said_in(f"preset {name}"):
            return cls(**preset_values(name).get("placement", {}))
