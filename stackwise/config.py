"""What decides the numbers.

An `Experiment` is one frozen value, validated whole, that holds every knob which decides the
numbers; its hash names a run. How it is carried out on a machine is a `Placement`
(`placement.py`). The same keys work in YAML, as `key=value`, in Python and in the form.
How its stages follow from it is in `curriculum.py`; the text of its errors in `errors.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from stackwise.adapters import Adapters
from stackwise.bell import Bell
from stackwise.changes import merged as merged
from stackwise.changes import nested as nested
from stackwise.choice import Checked, Params, Section, Unknown, params_of, parse
from stackwise.curriculum import CURRICULA
from stackwise.data.corpora import CORPORA
from stackwise.data.tokenizer import TOKENIZERS
from stackwise.elsewhere import pointed
from stackwise.errors import ExperimentError, older_read, said_in
from stackwise.model.attention import ATTENTION
from stackwise.model.shape import RackShape
from stackwise.objective import OBJECTIVES
from stackwise.placement import Placement as Placement
from stackwise.rules import problems_of
from stackwise.schedules import SCHEDULES
from stackwise.shipped import preset_values
from stackwise.shipped import presets as presets
from stackwise.stage import Preserve
from stackwise.versions import EXPERIMENT
from stackwise.yaml_text import read_mapping as read_mapping
from stackwise.yaml_text import read_text


class _Kinds:
    """The schema of a choice: any of the kinds that its registry holds by now."""

    def __init__(self, registry: Mapping[str, Any], selector: str) -> None:
        self.registry, self.selector = registry, selector

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        kinds = [params_of(self.registry, name, "", self.selector) for name in self.registry]
        return {"anyOf": [kind.model_json_schema() for kind in kinds]}


def _chosen(registry: Mapping[str, Any], selector: str = "kind") -> Any:
    def read(value: Any) -> Any:
        return parse(registry, value, selector, selector)

    kinds = _Kinds(registry, selector)
    return Annotated[SerializeAsAny[Params], BeforeValidator(read), kinds]


class Masking(Section):
    """How much is masked, and where in the rack."""

    newer = frozenset({"bell_center", "bell_width"})

    schedule: _chosen(SCHEDULES, "name") | None = Field(  # type: ignore[valid-type]
        None, description="noise over diffusion time or training progress; empty: the objective's"
    )
    bands: Literal["equal_mass", "linear", "exponential"] | tuple[float, ...] | None = Field(
        None,
        description="noise bands by depth (time-as-depth), heaviest at the left; a list gives "
        "the inner edges as masked fractions, rising; empty: every stack sees all noise",
    )
    sampling: Literal["antithetic", "iid", "stratified_k", "bell"] = Field(
        "antithetic", description="how diffusion times are drawn over a batch"
    )
    bell_center: float = Field(
        0.5, ge=0, le=1, description="part of a band's time that a bell draws most often"
    )
    bell_width: float = Field(
        0.25, ge=0.2, le=10, description="standard deviation of the bell, in parts of that time"
    )

    @property
    def bell(self) -> Bell:
        """What `sampling=bell` draws times from."""
        return Bell(self.bell_center, self.bell_width)


class Data(Section):
    """What is read, and how it is cut."""

    newer = frozenset({"seq_len_by_stage", "weights_by_stage"})

    corpus: _chosen(CORPORA) = Field(  # type: ignore[valid-type]
        "kjv", validate_default=True, description="the text"
    )
    tokenizer: _chosen(TOKENIZERS) = Field(  # type: ignore[valid-type]
        "bytes", validate_default=True, description="how text becomes ids"
    )
    seq_len: int = Field(128, ge=2, le=1 << 20, description="tokens per sample")
    heldout_frac: float = Field(
        0.05, gt=0, lt=1, description="last part of the text, by bytes, that is never trained on"
    )
    restart: bool = Field(
        False, description="every stage begins at the first sample again, under the same masks"
    )
    distinct_epochs: int | None = Field(
        None,
        ge=1,
        le=1 << 20,
        description="epochs after which order and masks repeat; empty: never",
    )
    seq_len_by_stage: tuple[Annotated[int, Field(ge=2)], ...] | None = Field(
        None,
        min_length=1,
        description="tokens per sample in each stage, data.seq_len at most; held-out text keeps "
        "that; empty: all alike",
    )
    weights_by_stage: tuple[tuple[Annotated[float, Field(ge=0)], ...], ...] | None = Field(
        None,
        min_length=1,
        description="weights of the corpora of data.corpus=mix in each stage, a list for each; "
        "empty: the mixture's own",
    )


class Optim(Section):
    """How weights move."""

    name: Literal["adamw", "adamw8bit", "paged_adamw8bit", "lion8bit", "adafactor", "muon"] = Field(
        "adamw",
        description="the optimizer; 8bit: state in bytes, through bitsandbytes; muon: matrices in "
        "stacks, and AdamW for all else",
    )
    lr: float = Field(2e-3, gt=0, le=10, description="peak learning rate")
    schedule: Literal["wsd", "cosine", "linear", "constant"] = Field(
        "wsd", description="learning rate over a schedule's span; all but constant end at zero"
    )
    warmup_frac: float = Field(0.02, ge=0, lt=1, description="first part that rises linearly")
    decay_frac: float = Field(
        0.3, gt=0, le=1, description="last part that falls linearly to zero (wsd)"
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
    grads: Literal["whole", "in_backward"] = Field(
        "whole",
        description="step after backward, or each tensor in backward as soon as its gradient is "
        "there, so that no others are held",
    )


SECONDS = {"days": 86_400.0, "hours": 3_600.0, "minutes": 60.0}  # of the units of a time


class Budget(Section):
    """How much is spent: tokens, FLOPs, or time; exactly one of them.

    A time is that in which the run's process is at work, all attempts together. `sw.timed` turns it
    into tokens by the speed of a machine; while the run trains, its stages follow the clock.
    """

    merges: ClassVar[bool] = False
    newer = frozenset({"days", "hours", "minutes"})

    tokens: int | None = Field(None, ge=1, le=10**15, description="tokens read, over all stages")
    flops: float | None = Field(
        None, gt=0, le=1e30, description="FLOPs spent, head included, all stages"
    )
    days: float | None = Field(
        None, gt=0, le=10_000, description="of work on this machine, looks and saving included"
    )
    hours: float | None = Field(None, gt=0, le=240_000, description="the same in hours")
    minutes: float | None = Field(None, gt=0, le=14_400_000, description="the same in minutes")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [key for key in type(self).model_fields if getattr(self, key) is not None]
        if len(given) > 1:
            both = "both " if len(given) == 2 else ""
            raise ValueError(
                f"{both}{', '.join(given[:-1])} and {given[-1]} are given; give exactly one"
            )
        if not given:
            raise ValueError(
                "neither tokens nor flops is given, and no days, hours or minutes; give exactly one"
            )
        return self

    @property
    def unit(self) -> str:
        """The key that is given."""
        return next(key for key in type(self).model_fields if getattr(self, key) is not None)

    @property
    def seconds(self) -> float | None:
        """The time that is given; None where none is."""
        size = SECONDS.get(self.unit)
        return None if size is None else float(getattr(self, self.unit)) * size


class Precision(Section):
    """In which numbers it is computed."""

    compute: Literal["float32", "bfloat16"] = Field(
        "float32", description="matrix products; residuals, norms and losses stay in float32"
    )
    weights: Literal["float32", "bfloat16"] = Field(
        "float32", description="matrices that train; vectors (norms, biases) stay in float32"
    )
    rounding: Literal["master", "stochastic"] = Field(
        "master",
        description="how a bfloat16 weight takes a small update: by an exact float32 master in "
        "memory, or rounded up or down by chance",
    )
    border: Literal["float32", "bfloat16", "fp8"] | None = Field(
        None,
        description="what each frozen stack of a trunk rounds its output to; empty: as compute",
    )
    frozen: Literal["fp16", "bf16", "fp8", "int8", "nf4", "fp4"] | None = Field(
        None, description="what stacks are frozen to; empty: as they trained"
    )
    master: Literal["none", "bf16", "fp32"] = Field(
        "none",
        description="kept on disk of each stack that is frozen to less: it trains on from there, "
        "and is exported from there",
    )


class Eval(Section):
    """What is measured on held-out text while training; it chooses the best checkpoint."""

    newer = frozenset({"statistics", "drift", "probe_frac"})

    points: int = Field(8, ge=1, le=10_000, description="evaluations over the whole run")
    windows: int = Field(48, ge=1, le=1_000_000, description="held-out windows in each of them")
    depths: Literal["all", "last"] = Field(
        "all",
        description="whether each of them goes by every depth or by the stage's own end alone, "
        "which is far cheaper for deep racks",
    )
    draws: int = Field(
        1, ge=1, le=1024, description="masks per window, at the end of the run; clm draws none"
    )
    final: int | None = Field(
        None,
        ge=1,
        description="held-out windows that are scored at the end, evenly spread; empty: all",
    )
    statistics: bool = Field(
        True,
        description="whether each look tells the size of activations, gradients and updates by "
        "block",
    )
    drift: bool = Field(
        True,
        description="whether each stage after the first tells how far predictions and stack "
        "outputs moved in it",
    )
    probe_frac: float | None = Field(
        None,
        gt=0,
        le=100,
        description="most that looks and drift take, over the FLOPs of training; evaluations that "
        "are over it are left out, but never the one at a stage's end; empty: 0.05, from ten "
        "billion FLOPs on",
    )


class Experiment(Checked):
    """Everything that decides the numbers, with its seed.

    Raises:
        ExperimentError: With every problem at once, each with its path, value, rule and way out.
    """

    newer = frozenset({"preserve"})

    schema_version: Literal[1] = Field(1, description="of these keys")
    title: str = Field(
        "experiment",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="name of the runs: letters, digits, '.', '_' and '-'",
    )
    rack: RackShape = Field(RackShape(), description="sizes and options of the whole model")
    start: str | None = Field(
        None,
        description="model folder (stackwise import), or a finished run's, whose weights new parts "
        "begin with; empty: at random",
    )
    attention: _chosen(ATTENTION) = Field(  # type: ignore[valid-type]
        "mha", validate_default=True, description="how positions look at each other"
    )
    objective: _chosen(OBJECTIVES) = Field(  # type: ignore[valid-type]
        "diffusion", validate_default=True, description="what is predicted from what"
    )
    masking: Masking = Field(Masking(), description="how much is masked, and where in the rack")
    curriculum: _chosen(CURRICULA, "name") = Field(  # type: ignore[valid-type]
        "end_to_end", validate_default=True, description="which stacks train when"
    )
    adapters: Adapters = Field(
        Adapters(),
        exclude_if=lambda value: value == Adapters(),
        description="low-rank adapters (LoRA) on frozen stacks",
    )
    data: Data = Field(Data(), description="what is read, and how it is cut")
    optim: Optim = Field(Optim(), description="how weights move")
    budget: Budget = Field(Budget(tokens=1_000_000), description="how much is spent in all")
    precision: Precision = Field(Precision(), description="in which numbers it is computed")
    preserve: Preserve = Field(
        Preserve(), description="what growing a rack is held to, beside its loss"
    )
    eval: Eval = Field(Eval(), description="what is measured on held-out text")
    seed: int = Field(0, ge=0, lt=1 << 31, description="of every random draw")

    def __init__(self, /, **values: Any) -> None:
        values = older_read(EXPERIMENT, values)
        try:
            super().__init__(**values)
        except ExperimentError as error:
            broken = {problem.path.split(".")[0].split("[")[0] for problem in error.problems}
            if not broken <= set(type(self).model_fields):  # a misspelt section left its default
                raise
            super().__init__(**{key: v for key, v in values.items() if key not in broken})
            raise ExperimentError([*error.problems, *problems_of(self, broken)]) from None
        problems = problems_of(self)
        if problems:
            raise ExperimentError(problems)

    @classmethod
    def _said(cls, error: ValidationError) -> ExperimentError:
        return ExperimentError([pointed(problem) for problem in super()._said(error).problems])

    def identity(self) -> dict[str, Any]:
        """What its hash is made of; how it is written down is no part of that."""
        return {**super().identity(), "schema_version": 1}

    @classmethod
    def preset(cls, name: str) -> Experiment:
        """The shipped experiment called `name`; `stackwise presets` lists them.

        How it is carried out if nothing else is said is `Placement.preset(name)`.
        """
        values = preset_values(name)
        values.pop("placement", None)
        with said_in(f"preset {name}"):
            return cls(**values)

    @classmethod
    def load(cls, path: str | Path, *, opening_run: bool = False) -> Experiment:
        """Read a YAML file. With `opening_run`, an unknown curriculum's name is let through."""
        text = read_text(path, links=not opening_run)
        return cls.from_yaml(text, source=str(path), opening_run=opening_run)

    @classmethod
    def from_yaml(cls, text: str, *, source: str = "YAML", opening_run: bool = False) -> Experiment:
        """Read YAML text; `source` names it in errors."""
        values = read_mapping(text, source)
        if "placement" in values:
            raise ExperimentError(
                f"{source}: placement: changes no number, so that an experiment holds none; take "
                "it out and give sw.Placement(...) beside it, or use the file as it is: "
                "stackwise run FILE"
            )
        if opening_run:
            values["curriculum"] = _known_by_name(values.get("curriculum"))
        with said_in(source):
            return cls(**values)

    def to_yaml(self) -> str:
        """The whole experiment, defaults included; reading it back gives an equal value."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def replace(self, **changes: Any) -> Experiment:
        """A copy with some keys changed, validated again.

        A bare value selects a kind or sets a section's first field; a mapping changes only the
        keys it names; `replace(**{"optim.lr": 1e-3})` reaches inside.
        """
        return type(self)(**merged(self, nested(changes)))

    @property
    def hash(self) -> str:
        """Eight hex digits that name this value: equal experiments, equal hashes."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def __str__(self) -> str:
        parts = [self.title, self.curriculum.choice, self.objective.choice, self.attention.choice]
        return " · ".join([*parts, f"seed {self.seed}", self.hash])


def _known_by_name(curriculum: Any) -> Any:
    """The curriculum of a run, whose function may have lived in a notebook cell."""
    foreign = isinstance(curriculum, Mapping) and curriculum.get("name") not in CURRICULA
    return Unknown(**curriculum) if foreign else curriculum
