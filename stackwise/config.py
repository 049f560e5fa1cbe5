"""What decides the numbers, and what carries it out.

An `Experiment` is one frozen value, validated whole, that holds every knob which decides the
numbers; its hash names a run. A `Placement` says how it is carried out on a machine and changes
no number. The same keys work in YAML, as `key=value`, in Python and in the form.
How its stages follow from it is in `curriculum.py`; the text of its errors in `errors.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)

from stackwise.choice import Params, Section, parse
from stackwise.curriculum import CURRICULA
from stackwise.data.corpora import CORPORA
from stackwise.data.tokenizer import TOKENIZERS
from stackwise.errors import ExperimentError, explain
from stackwise.masking import SCHEDULES
from stackwise.model.attention import ATTENTION
from stackwise.model.shape import RackShape
from stackwise.objective import OBJECTIVES
from stackwise.rules import problems_of

SCHEMA_VERSION = 1


def _chosen(registry: Mapping[str, Any], what: str, selector: str = "kind") -> Any:
    def read(value: Any) -> Any:
        return parse(registry, value, what, selector)

    return Annotated[SerializeAsAny[Params], BeforeValidator(read)]


def _curriculum(value: Any, info: ValidationInfo) -> Params:
    """The curriculum's parameters. A finished run may name one that lived in a notebook cell."""
    opening_run = bool(info.context and info.context.get("opening_run"))
    if opening_run and isinstance(value, Mapping) and value.get("name") not in CURRICULA:
        name = str(value["name"])
        fields: Any = {key: (Any, item) for key, item in value.items()}
        return create_model(f"{name}_params", __base__=Params, **fields)()
    return parse(CURRICULA, value, "curriculum", "name")


class Masking(Section):
    """How much is masked, and where in the rack."""

    schedule: _chosen(SCHEDULES, "masking.schedule", "name") | None = Field(  # type: ignore[valid-type]
        None, description="noise over diffusion time or training progress; empty: the objective's"
    )
    bands: Literal["equal_mass", "linear", "exponential"] | tuple[float, ...] | None = Field(
        None,
        description="noise bands by depth (time-as-depth), heaviest at the left; a list gives "
        "the inner edges as masked fractions, rising; empty: every stack sees all noise",
    )
    sampling: Literal["antithetic", "iid", "stratified_k"] = Field(
        "antithetic", description="how diffusion times are drawn over a batch"
    )


class Data(Section):
    """What is read, and how it is cut."""

    corpus: _chosen(CORPORA, "data.corpus") = Field("kjv", validate_default=True)  # type: ignore[valid-type]
    tokenizer: _chosen(TOKENIZERS, "data.tokenizer") = Field("bytes", validate_default=True)  # type: ignore[valid-type]
    seq_len: int = Field(128, ge=2, le=1 << 20, description="tokens per sample")
    heldout_frac: float = Field(
        0.05, gt=0, lt=1, description="last part of the text, by bytes, that is never trained on"
    )


class Optim(Section):
    """How weights move."""

    name: Literal["adamw"] = Field("adamw", description="the optimizer")
    lr: float = Field(2e-3, gt=0, le=10, description="peak learning rate")
    schedule: Literal["wsd", "cosine", "linear", "constant"] = Field(
        "wsd", description="learning rate over a schedule's span; all but constant end at zero"
    )
    warmup_frac: float = Field(0.02, ge=0, lt=1, description="first part that rises linearly")
    decay_frac: float = Field(
        0.3, ge=0, le=1, description="last part that falls linearly to zero (wsd)"
    )
    batch: int = Field(32, ge=1, le=1 << 20, description="samples per optimizer step")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the gradient's mean")
    beta2: float = Field(0.95, ge=0, lt=1, description="decay of the gradient's square")
    eps: float = Field(1e-8, gt=0, lt=1, description="added to the root of the second moment")
    weight_decay: float = Field(0.1, ge=0, lt=10, description="on matrices, decoupled")
    clip: float | None = Field(1.0, gt=0, description="bound on the gradient norm; empty: none")
    ema: float | None = Field(
        0.99, gt=0, lt=1, description="decay of the weights' moving average; empty: none"
    )


class Budget(Section):
    """How much is spent: exactly one of the two."""

    merges: ClassVar[bool] = False

    tokens: int | None = Field(None, ge=1, description="tokens read, over all stages")
    flops: float | None = Field(None, gt=0, description="FLOPs spent, head included, all stages")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.tokens is None) == (self.flops is None):
            both = "both are" if self.tokens is not None else "neither is"
            raise ValueError(f"tokens, flops: {both} given; give exactly one")
        return self


class Precision(Section):
    """In which numbers it is computed."""

    compute: Literal["float32", "bfloat16"] = Field(
        "float32", description="matrix products; weights and losses stay in float32"
    )


class Eval(Section):
    """What is measured on held-out text while training; it chooses the best checkpoint."""

    points: int = Field(8, ge=1, le=10_000, description="evaluations over the whole run")
    windows: int = Field(48, ge=1, description="held-out windows in each of them")
    draws: int = Field(2, ge=1, le=1024, description="masks per window, at the end of the run")


class Experiment(BaseModel):
    """Everything that decides the numbers, with its seed.

    Raises:
        ExperimentError: With every problem at once, each with its path, value, rule and way out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = Field(SCHEMA_VERSION, description="of these keys")
    title: str = Field("experiment", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    rack: RackShape = RackShape()
    attention: _chosen(ATTENTION, "attention") = Field("mha", validate_default=True)  # type: ignore[valid-type]
    objective: _chosen(OBJECTIVES, "objective") = Field("diffusion", validate_default=True)  # type: ignore[valid-type]
    masking: Masking = Masking()
    curriculum: Annotated[SerializeAsAny[Params], BeforeValidator(_curriculum)] = Field(
        "end_to_end",  # type: ignore[assignment]
        validate_default=True,
    )
    data: Data = Data()
    optim: Optim = Optim()
    budget: Budget = Budget(tokens=1_000_000)
    precision: Precision = Precision()
    eval: Eval = Eval()
    seed: int = Field(0, ge=0, lt=1 << 31, description="of every random draw")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ExperimentError(explain(error, type(self))) from None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = problems_of(self)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @classmethod
    def preset(cls, name: str) -> Experiment:
        """The shipped experiment called `name`; `stackwise presets` lists them."""
        known = presets()
        if name not in known:
            raise ExperimentError(f"unknown preset {name!r}; known: {', '.join(known)}")
        text = resources.files("stackwise").joinpath("presets", f"{name}.yaml").read_text("utf-8")
        return cls.from_yaml(text, source=f"preset {name}")

    @classmethod
    def load(cls, path: str | Path, *, opening_run: bool = False) -> Experiment:
        """Read a YAML file. With `opening_run`, an unknown curriculum's name is let through."""
        path = Path(path)
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ExperimentError(f"{path}: cannot be read as UTF-8 text: {error}") from None
        return cls.from_yaml(text, source=str(path), opening_run=opening_run)

    @classmethod
    def from_yaml(
        cls, text: str, *, source: str = "YAML", opening_run: bool = False
    ) -> Experiment:
        """Read YAML text; `source` names it in errors."""
        return _from_mapping(cls, read_mapping(text, source), opening_run)

    def to_yaml(self) -> str:
        """The whole experiment, defaults included; reading it back gives an equal value."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def replace(self, **changes: Any) -> Experiment:
        """A copy with some keys changed, validated again.

        A bare value selects a kind or sets a section's first field; a mapping changes only the
        keys it names; `replace(**{"optim.lr": 1e-3})` reaches inside.
        """
        return _from_mapping(type(self), merged(self, nested(changes)), opening_run=False)

    @property
    def hash(self) -> str:
        """Eight hex digits that name this value: equal experiments, equal hashes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def __str__(self) -> str:
        parts = [self.title, self.curriculum.choice, self.objective.choice, self.attention.choice]
        return " · ".join([*parts, f"seed {self.seed}", self.hash])


class Placement(Section):
    """How an experiment is carried out on a machine. Changes bytes and seconds, no number."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it computes")
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads; empty: torch's own choice (recorded)"
    )
    micro_batch: int | None = Field(
        None, ge=1, description="samples per forward pass; empty: the whole batch"
    )
    checkpointing: bool = Field(
        False, description="recompute each block in backward instead of keeping its activations"
    )
    compile: bool = Field(False, description="torch.compile each block")
    runs_dir: str = Field("runs", description="folder that holds the run folders")
    data_dir: str = Field(".", description="folder in which relative corpus paths are looked up")
    checkpoint_seconds: float = Field(
        60.0, gt=0, description="at most this long between checkpoints inside a stage"
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ExperimentError(explain(error, type(self), "placement")) from None

    def replace(self, **changes: Any) -> Placement:
        """A copy with some keys changed, validated again."""
        return Placement(**{**self.model_dump(), **changes})

    def to_yaml(self) -> str:
        """All keys as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @classmethod
    def load(cls, path: str | Path) -> Placement:
        """Read a YAML file that `to_yaml` wrote."""
        return cls(**read_mapping(Path(path).read_text("utf-8"), str(path)))


def presets() -> list[str]:
    """Names of the shipped experiments."""
    folder = resources.files("stackwise").joinpath("presets")
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def read_mapping(text: str, source: str) -> dict[str, Any]:
    """Parse YAML that must be one mapping.

    Raises:
        ExperimentError: If it is not YAML (with line and column) or not a mapping.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error)
        raise ExperimentError(f"{source}:{where} is not YAML: {what}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ExperimentError(f"{source}: holds {type(values).__name__}, not a mapping of keys")
    return values


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """`{"optim.lr": 1}` as `{"optim": {"lr": 1}}`; later keys win."""
    out: dict[str, Any] = {}
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        if not rest:
            out[head] = value
        else:
            old = out.get(head)
            inner = nested({rest: value})
            out[head] = _both(old, inner) if isinstance(old, Mapping) else inner
    return out


def _both(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(old)
    for key, value in new.items():
        inner = out.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        out[key] = _both(inner, value) if both else value
    return out


def merged(model: BaseModel, change: Any) -> Any:
    """`model` as input for validation, with `change` laid over it."""
    if isinstance(model, Params):
        if not isinstance(change, Mapping):
            return change
        if change.get(model.selector(), model.choice) != model.choice:
            return dict(change)
        return {**model.model_dump(), **change}
    fields = list(type(model).model_fields)
    if not isinstance(change, Mapping):
        change = {fields[0]: change}
    if not getattr(model, "merges", True):
        return dict(change)
    out: dict[str, Any] = {name: getattr(model, name) for name in fields}
    for key, value in change.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, BaseModel) else value
    return out


def _from_mapping(
    cls: type[Experiment], values: Mapping[str, Any], opening_run: bool
) -> Experiment:
    try:
        return cls.model_validate(dict(values), context={"opening_run": opening_run})
    except ValidationError as error:
        raise ExperimentError(explain(error, cls)) from None
