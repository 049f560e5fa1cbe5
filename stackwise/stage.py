"""A stage: one step of a curriculum, as a small frozen value that can be written down.

Which stacks exist, which train, under which noise, and for how long. Planner, trainer, pictures
and run folders all consume a list of these; the functions that make them are in `curriculum.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from stackwise.adapters import SUFFIX, Adapter
from stackwise.choice import Section
from stackwise.errors import ExperimentError, short
from stackwise.model.shape import RackShape, stack_ids

Init = Literal["random", "copy", "copy+noise", "interpolate", "zero_output"]
FROM_OTHERS = ("copy", "copy+noise", "interpolate")  # starts that need a stack that is there
Moments = Literal["reset", "keep", "copy"]
Role = Literal["trunk", "active", "suffix"]
FULL_BAND = (0.0, 1.0)
LEAST_SHARE = 1e-12  # a weight that the others do not lose in rounding


def _is_none(value: object) -> bool:
    """Keys that came later are written where they say something: older values keep their hash."""
    return value is None


class NewStack(Section):
    """A stack that a stage adds, and what it starts from."""

    stack: str = Field(description="its id")
    init: Init = Field(
        "random",
        description="fresh; a copy, with noise or without; the mean of two stacks; or fresh with "
        "output weights at zero",
    )
    source: str | None = Field(None, description="the stack that a copy is taken from")
    other: str | None = Field(
        None, exclude_if=_is_none, description="the stack whose weights `source` is averaged with"
    )
    noise: float | None = Field(
        None,
        gt=0,
        le=10,
        exclude_if=_is_none,
        description="of copy+noise: standard deviation over each matrix's root mean square",
    )

    @property
    def sources(self) -> tuple[str, ...]:
        """The stacks that it starts from: none, one or two."""
        return tuple(stack for stack in (self.source, self.other) if stack is not None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.init in FROM_OTHERS and self.source is None:
            raise ValueError(f"source: is empty with init={self.init}; name the stack to copy")
        if self.init == "interpolate" and self.other is None:
            raise ValueError("other: is empty with init=interpolate; name a second stack, or copy")
        if self.init == "copy+noise" and self.noise is None:
            raise ValueError("noise: is empty with init=copy+noise; 0.01 is little")
        if self.init not in FROM_OTHERS and self.source is not None:
            raise ValueError(f"source: {self.source!r} is not read with init={self.init}; use copy")
        if self.init != "interpolate" and self.other is not None:
            raise ValueError(
                f"other: {self.other!r} is not read with init={self.init}; use interpolate"
            )
        if self.init != "copy+noise" and self.noise is not None:
            raise ValueError(f"noise: {self.noise} is not read with init={self.init}; leave it out")
        return self


class Preserve(Section):
    """What stages that go on with a rack are held to beside their loss (`preserving.py`)."""

    consistency: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="weight of how far stacks grown at the left put out another thing than the "
        "frozen suffix was trained on, which is the embedding's output",
    )
    distill: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="weight of KL(before || now) of predictions, before: the rack as the stage "
        "before left it",
    )
    temperature: float = Field(
        1.0, ge=0.01, le=100, description="of both predictions in that divergence"
    )

    @property
    def asks(self) -> bool:
        """Whether any term has a weight."""
        return bool(self.consistency or self.distill)


class Leg(Section):
    """A part of a stage's learning-rate schedule, of which the clock changed the length."""

    step: int = Field(ge=0, le=10**15, description="of the stage, from which it holds")
    steps: int = Field(ge=1, le=10**15, description="of the stage, at which it would end")
    begin: float = Field(ge=0, le=1, description="where the schedule stands at its first step")
    end: float = Field(ge=0, le=1, description="where it would stand at the stage's end")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not (self.step < self.steps and self.begin <= self.end):
            raise ValueError(
                f"steps {self.step} to {self.steps} and positions {self.begin} to {self.end} "
                "must rise"
            )
        return self


class Stage(Section):
    """One step of a curriculum.

    A curriculum may leave `name`, `active`, `new` and `tokens` open: `stages` fills them in.
    """

    name: str = Field("", max_length=80, description="for people; empty: the active stacks")
    path: tuple[str, ...] = Field(
        description="stack ids, in the order they run; none: embedding and head alone"
    )
    active: tuple[str, ...] | None = Field(None, description="those that train; empty: all")
    new: tuple[NewStack, ...] | None = Field(
        None, description="those added now; empty: the ones not seen before, at random"
    )
    embedding: bool = Field(True, description="whether the embedding trains")
    head: bool = Field(True, description="whether final norm and head train")
    band: tuple[float, float] = Field(FULL_BAND, description="masked fractions (low, high]")
    share: float = Field(1.0, gt=0, le=1e12, description="weight in the split of the budget")
    share_of: Literal["tokens", "flops"] = Field("tokens", description="what is split by shares")
    tokens: int | None = Field(
        None, ge=1, le=10**15, description="tokens read; empty: from budget and share"
    )
    lr: Literal["per_stage", "continue", "rewarm"] = Field(
        "per_stage",
        description="a schedule of its own, or one schedule over all stages that continue it",
    )
    lr_span: tuple[float, float] = Field(
        FULL_BAND, description="part of that schedule which this stage covers; filled in"
    )
    progress: tuple[float, float] = Field(
        FULL_BAND, description="part of all training, by tokens, that this stage is; filled in"
    )
    optimizer_state: Moments = Field(
        "reset",
        description="what tensors that trained before begin with; copy: kept, and what is copied "
        "gets its source's",
    )
    pick: int | None = Field(
        None,
        ge=1,
        exclude_if=_is_none,
        description="stacks that each step runs, drawn anew for it: the first, the last and "
        "others; empty: the whole path",
    )
    seq_len: int | None = Field(
        None,
        ge=2,
        exclude_if=_is_none,
        description="tokens per sample, of which those of data.seq_len are cut; empty: as those",
    )
    weights: tuple[float, ...] | None = Field(
        None,
        exclude_if=_is_none,
        description="weights of the corpora of a mixture; empty: the mixture's own",
    )
    block: int | None = Field(
        None,
        ge=1,
        exclude_if=_is_none,
        description="tokens per block with objective=block_diffusion; empty: the objective's",
    )
    adapters: tuple[Adapter, ...] | None = Field(
        None,
        exclude_if=_is_none,
        description="low-rank adapters that train on frozen stacks; empty: as the experiment says",
    )
    preserve: Preserve | None = Field(
        None,
        exclude_if=_is_none,
        description="what it is held to beside its loss; empty: what the experiment says",
    )
    before: tuple[str, ...] | None = Field(
        None, exclude_if=_is_none, description="path that it is held to; filled in"
    )
    legs: tuple[Leg, ...] | None = Field(
        None,
        min_length=2,
        exclude_if=_is_none,
        description="its schedule as begun, and as changed on the way (`pacing.py`); filled in",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = list(_problems(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _problems(stage: Stage) -> Iterator[str]:
    """What is wrong with a stage by itself, whatever the rack and the stages before it."""
    active = stage.path if stage.active is None else stage.active
    if len(set(stage.path)) < len(stage.path):
        yield f"path: {', '.join(stage.path)} names a stack twice"
    for stack in sorted(set(active) - set(stage.path)):
        path = ", ".join(stage.path) or "with no stack"
        yield f"active: {stack!r} is not on the path {path}; put it there, or leave it out"
    yield from _adapter_problems(stage, active)
    if not (active or stage.embedding or stage.head or stage.adapters):
        yield "active: nothing trains; name a stack, the embedding or the head"
    if stage.pick is not None:
        if stage.pick > len(stage.path):
            yield f"pick: {stage.pick} > {len(stage.path)} stacks of the path; lower it"
        frozen = [stack for stack in stage.path if stack not in active]
        if frozen:
            yield (
                f"pick: {stage.pick} draws from stacks that all train, and {', '.join(frozen)} "
                "is frozen; leave active or pick empty"
            )
    if stage.weights is not None and not (min(stage.weights, default=0) >= 0 < sum(stage.weights)):
        yield f"weights: {list(stage.weights)} must be 0 or more, and one of them over 0"
    if stage.share < LEAST_SHARE:
        yield f"share: {stage.share} must be {LEAST_SHARE} or more"
    if not stage.name.isprintable():
        yield f"name: {short(stage.name)} holds characters that do not print; leave them out"
    for key in ("band", "lr_span", "progress"):
        low, high = getattr(stage, key)
        if said := not_rising(key, low, high):
            yield said


def not_rising(key: str, low: float, high: float) -> str | None:
    """What is wrong with a part of 0 to 1, or None."""
    if 0 <= low < high <= 1:
        return None
    return f"{key}: ({low}, {high}) must rise within 0 and 1, as (0.25, 0.5) does"


def _adapter_problems(stage: Stage, active: Sequence[str]) -> Iterator[str]:
    """What is wrong with the adapters of a stage by itself."""
    named = [adapter.stack for adapter in stage.adapters or ()]
    for stack in sorted({stack for stack in named if named.count(stack) > 1}):
        yield f"adapters: {stack!r} is named twice; a stack carries one adapter"
    for stack in sorted(set(named) - set(stage.path)):
        yield f"adapters: {stack!r} is not on the path {', '.join(stage.path)}; leave it out"
    for stack in sorted(set(named) & set(active) & set(stage.path)):
        yield (
            f"adapters: {stack!r} is active, and trains whole; an adapter is for a frozen stack, "
            "so take it out of active or of adapters"
        )


def roles(stage: Stage) -> dict[str, Role]:
    """What each stack of the path is in this stage.

    Trunk: frozen, and no gradient reaches it. Suffix: frozen, and gradient passes through it to
    something that trains: later stacks of the path, all of it when the embedding trains, and what
    carries an adapter together with all that comes after it.
    """
    active = (*(stage.active or ()), *(adapter.stack for adapter in stage.adapters or ()))
    first = 0 if stage.embedding else min((stage.path.index(a) for a in active), default=0)
    if not stage.embedding and not active:
        first = len(stage.path)
    return {
        stack: "active" if stack in (stage.active or ()) else "trunk" if i < first else "suffix"
        for i, stack in enumerate(stage.path)
    }


def trunk_of(stage: Stage) -> tuple[str, ...]:
    """The frozen stacks before the first that trains, or carries an adapter."""
    return tuple(stack for stack, role in roles(stage).items() if role == "trunk")


def parts_trained(stage: Stage) -> set[str]:
    """Names of the parts that a stage trains."""
    ends = {"embedding"} if stage.embedding else set()
    ends |= {"head"} if stage.head else set()
    return ends | set(stage.active or ()) | {adapter.part for adapter in stage.adapters or ()}


def trains(stage: Stage, part: str) -> bool:
    """Whether a stage trains a part: a stack by its id, `s1.adapter`, `embedding` or `head`."""
    if part.endswith(SUFFIX):
        return any(adapter.part == part for adapter in stage.adapters or ())
    ends = {"embedding": stage.embedding, "head": stage.head}
    return ends.get(part, part in (stage.active or ()))


def trained_next(made: Sequence[Stage], number: int, part: str) -> int | None:
    """The first stage after stage `number` that trains a part; None if none does."""
    later = range(number + 1, len(made))
    return next((n for n in later if trains(made[n], part)), None)


def keeps_state(made: Sequence[Stage], number: int, part: str) -> bool:
    """Whether the stage that trains a part next begins with its moments of after `number`.

    Or one before it, or that one, gives them to a copy.
    """
    later = trained_next(made, number, part)
    last = len(made) - 1 if later is None else later
    given = any(part in copied_from(made[n]).values() for n in range(number + 1, last + 1))
    return given or (later is not None and made[later].optimizer_state != "reset")


def copied_from(stage: Stage) -> dict[str, str]:
    """The new stacks that begin with the moments of another one, which a stage copies."""
    if stage.optimizer_state != "copy":
        return {}
    copies = [n for n in stage.new or () if n.source and n.init in ("copy", "copy+noise")]
    return {entry.stack: entry.source for entry in copies if entry.source}


def run_share(stage: Stage, stack: str) -> float:
    """In what part of a stage's steps one of its stacks runs.

    With `pick` of n: the first and the last always, each other in (pick - 2) of (n - 2); a single
    one is any of them.
    """
    if stage.pick is None or stage.pick == len(stage.path):
        return 1.0
    if stage.pick == 1:
        return 1 / len(stage.path)
    inside = stack not in (stage.path[0], stage.path[-1])
    return (stage.pick - 2) / (len(stage.path) - 2) if inside else 1.0


def as_run(stage: Stage) -> Stage:
    """A stage as one of its steps runs it: as many stacks as it picks."""
    if stage.pick is None:
        return stage
    path = (*stage.path[: stage.pick - 1], stage.path[-1])
    return stage.model_copy(update={"path": path, "active": path, "pick": None})


def thaws(made: Sequence[Stage]) -> Iterator[tuple[str, int, int]]:
    """Each stack that is frozen and trains later: its id, a stage where it is frozen, the other."""
    held: set[str] = set()
    for number, stage in enumerate(made):
        held |= {entry.stack for entry in stage.new or ()}
        for stack in sorted(held - set(stage.active or ())):
            later = trained_next(made, number, stack)
            if later is not None:
                yield stack, number, later


def untied_from(rack: RackShape, made: Sequence[Stage]) -> int | None:
    """From which stage on a tied head has a table of its own; None for never.

    The first stage that trains only one of head and embedding parts them, for good.
    """
    parting = (number for number, stage in enumerate(made) if stage.head != stage.embedding)
    return next(parting, None) if rack.tied else None


BandPaths = list[tuple[float, float, tuple[str, ...]]]


def band_paths(made: Sequence[Stage]) -> BandPaths:
    """Which stacks the finished rack runs for which masked fraction: `(low, high, path)`.

    A later stage takes over what its band covers.

    Raises:
        ExperimentError: If the bands of the stages do not tile (0, 1].
    """
    found = _laid(made)
    edges = [0.0, *(high for _, high, _ in found)]
    if [low for low, _, _ in found] != edges[:-1] or edges[-1] != 1.0:
        bands = ", ".join(f"({low}, {high}]" for low, high, _ in found) or "none"
        raise ExperimentError(
            f"curriculum.stages: the noise bands {bands} do not tile (0, 1]; "
            "let the band of a stage cover the rest"
        )
    return found


def left_out(rack: RackShape, made: Sequence[Stage]) -> tuple[str, ...]:
    """Stacks of the rack's shape that the finished rack runs for no masked fraction."""
    runs = {stack for _, _, path in _laid(made) for stack in path}
    return tuple(stack for stack in stack_ids(rack) if stack not in runs)


def not_run(stacks: Sequence[str]) -> str:
    """What is said of stacks that were left out."""
    are = "are" if len(stacks) > 1 else "is"
    return (
        f"{', '.join(stacks)} {are} on no last path, and no part of the finished rack; let the "
        "curriculum's last stages run all stacks, or ask for fewer"
    )


def paths_so_far(begun: Sequence[Stage]) -> BandPaths:
    """The same for a rack of which only some stages have begun, one or more.

    Noise that none of them has met goes to the path of the next lighter band, or of the lightest.
    """
    found = _laid(begun)
    lows = [0.0, *(low for low, _, _ in found[1:])]
    return [
        (low, high, path)
        for low, high, (_, _, path) in zip(lows, [*lows[1:], 1.0], found, strict=True)
    ]


def _laid(made: Sequence[Stage]) -> BandPaths:
    """The bands of stages laid over each other, by rising noise; where none lies there is a gap."""
    found: BandPaths = []
    for stage in made:
        low, high = stage.band
        left = [(a, min(b, low), path) for a, b, path in found if a < low]
        right = [(max(a, high), b, path) for a, b, path in found if b > high]
        found = sorted([*left, (low, high, stage.path), *right])
    return found
