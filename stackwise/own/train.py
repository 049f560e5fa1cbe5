"""`train_stack_wise`: stages for a model and batches of the user's own.

No run folder, no corpus: a model, a dataloader and a curriculum go in, and what was measured comes
out. The loop is in `loop.py`; how a rack takes part is in `rack.py`, how any other module does in
`module.py`; how batches are read is in `batches.py`. Runs that can stop and go on are in
`stackwise/training/run.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from stackwise.choice import Params, find, parse, unread
from stackwise.config import Experiment, Placement, nested
from stackwise.curriculum import CURRICULA, stages
from stackwise.errors import ExperimentError, short
from stackwise.model.rack import Rack
from stackwise.own.batches import Batches, steps_of
from stackwise.own.loop import COLUMNS, OwnWork, left_whole, seeded, train_stage
from stackwise.own.module import Loss, OwnModule
from stackwise.own.rack import OwnRack
from stackwise.rules import check_placement
from stackwise.stage import Stage

MakeStages = Callable[[Experiment], Iterable[Stage]]
SHORT = {
    "float16": "give rack.float()",
    "bfloat16": 'give options={"precision": {"weights": "bfloat16", "compute": "bfloat16"}}, by '
    "which they are kept, or rack.float()",
}
PLENTY = 1000  # times the steps asked for: enough to see how they would be split


@dataclass(frozen=True, eq=False)
class TrainingResults:
    """What a training measured.

    Attributes:
        loss: Mean over the last tenth of the last stage's steps, at least one.
        metrics: One row per step: `step` from 1, `stage` from 0, the stage's `name`, `loss`, `lr`,
            `grad_norm` before clipping, `seconds` in training steps so far.
        stages: What was carried out.
        checkpoints: The safetensors files written: at every stage border one for each stack so
            far, and those of what lies outside the stacks. Empty without a folder.
    """

    loss: float
    metrics: pd.DataFrame
    stages: tuple[Stage, ...]
    checkpoints: tuple[Path, ...]


class OwnCurriculum(Params):
    """A curriculum given as a function."""

    name: str


def train_stack_wise(
    model: nn.Module,
    dataloader: Iterable[Any],
    *,
    curriculum: str | Mapping[str, Any] | Params | MakeStages = "left_to_right",
    blocks: str | None = None,
    stacks: int | None = None,
    steps: int | None = None,
    lr: float | None = None,
    loss: Loss | None = None,
    objective: str | Mapping[str, Any] | Params | None = None,
    options: Mapping[str, Any] | None = None,
    checkpoints: str | Path | None = None,
    seed: int = 0,
) -> TrainingResults:
    """Train a model of your own stage by stage, in place.

    A `Rack` trains on its objective. Any other module trains on `loss`; its blocks are the
    `nn.ModuleList` or `nn.Sequential` called `blocks`, through which its forward pass must go as it
    is, since it holds the blocks of the stage's path alone while a stage trains. What lies outside
    the blocks is the embedding where the first block's input depends on it, and the head otherwise
    (a tied table is embedding); each trains in the stages that say so. Frozen parts run in eval
    mode, so that their buffers stay as they are too. New stacks start with the weights that they
    have, unless the curriculum copies them. What has `requires_grad=False` is never trained.

    At the end, also after an error, the list of blocks, training modes and `requires_grad` are as
    they were, and gradients are gone.

    Args:
        model: A rack, or any torch module with a list of blocks.
        dataloader: Batches, read again from the start when they end: for a rack, token ids (B, T)
            or mappings with `input_ids`; otherwise whatever `loss` takes.
        curriculum: A name in `CURRICULA`, one with its parameters, or a function from an
            experiment to stages.
        blocks: Dotted name of the list of blocks, as `model.layers`; not for a rack.
        stacks: Stacks that the blocks make; None for one block each. Not for a rack.
        steps: Optimizer steps, one batch each, over all stages; None for one pass over the
            dataloader. They are split as a budget of tokens is; where that goes by FLOPs, those of
            a module that is no rack are counted from its matrices, without attention scores.
        lr: Peak learning rate; None for the default of `optim.lr`.
        loss: (model, batch) to a scalar; None for `model(**batch).loss`. Not for a rack.
        objective: `diffusion` (the default), `mlm` or `clm`; for a rack only.
        options: Other keys of an experiment, as `{"optim.schedule": "cosine"}`: of `optim`, and for
            a rack `masking` and `precision`. The moving average `optim.ema`, at which weights are
            frozen in the end, is off by default for other modules than racks.
        checkpoints: Folder for `stage-0/`, `stage-1/`, ...: each holds the model at that border.
        seed: Of the masks, and of torch's own generators while this runs: dropout, and the order of
            a shuffling DataLoader that has no generator of its own.

    Returns:
        Loss, metrics, stages and checkpoints.

    Raises:
        ValueError: If the curriculum is unknown (the message names those that are known), the
            dataloader is empty, or the arguments do not go together.
        RuntimeError: If training fails: a loss that is not finite, or an error in the model, the
            loss or the dataloader; it names stage and step.

    Source: the same stages and the same steps as a run's; held to the last bit by
    `tests/unit/test_train_stack_wise_equals_a_run.py`.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: {short(model)} is no torch module")
    for name, count in (("steps", steps), ("stacks", stacks)):
        if count is not None and (not isinstance(count, int) or isinstance(count, bool)):
            raise ValueError(f"{name}: {short(count)} is not a whole number")
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"options: {short(options)} is no mapping; give keys with values")
    own = own_of(model, blocks, stacks, loss, objective)
    build, params = curriculum_of(curriculum)
    with seeded(seed, own.device):  # opening a dataloader draws its order
        batches = Batches(dataloader)
        sections = {**own.experiment(batches.first), "seed": seed}
        # A function is in no registry: what is valid with `left_to_right` is valid with it.
        sections["curriculum"] = "left_to_right" if isinstance(params, OwnCurriculum) else params
        exp = experiment_of(own, sections, lr, options or {})
        check_placement(exp, Placement())
        exp, made = split(exp, build, params, steps_of(dataloader) if steps is None else steps)
        if any(stage.adapters for stage in made):
            raise ValueError(
                "adapters: are for the racks of runs; leave adapters.on at none, or train an "
                "experiment with sw.train"
            )
        own.check(made)
        folder = Path(checkpoints) if checkpoints is not None else None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        work = OwnWork(own, exp, made, batches, folder)
        with left_whole(work):
            for number in range(len(made)):
                train_stage(work, number)
            own.finish(made)
    metrics = pd.DataFrame(work.rows, columns=COLUMNS)
    last = metrics["loss"][metrics["stage"] == len(made) - 1]
    mean = float(last.tail(max(1, len(last) // 10)).mean())
    return TrainingResults(mean, metrics, made, tuple(work.files))


def own_of(
    model: nn.Module, blocks: str | None, stacks: int | None, loss: Loss | None, objective: Any
) -> OwnRack | OwnModule:
    """The model as embedding, stacks and head.

    Raises:
        ValueError: If an argument is for the other kind of model.
    """
    if isinstance(model, Rack):
        given = {"blocks": blocks, "stacks": stacks, "loss": loss}
        wrong = [name for name, value in given.items() if value is not None]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: not for a Rack, which has its own; leave it out")
        return OwnRack(model, "diffusion" if objective is None else objective)
    if objective is not None:
        raise ValueError(
            f"objective: only a Rack has one, and this is {type(model).__name__}; give loss, a "
            "function of model and batch"
        )
    return OwnModule(model, blocks, stacks, loss)


def curriculum_of(given: Any) -> tuple[MakeStages, Params]:
    """The function that makes the stages, and its parameters.

    Raises:
        ValueError: If the name is unknown.
    """
    builds = {name: find(CURRICULA, name, "curriculum").build for name in CURRICULA}
    if callable(given) and given not in builds.values():
        return given, OwnCurriculum(name=getattr(given, "__name__", type(given).__name__))
    if callable(given):
        given = next(name for name, build in builds.items() if build is given)
    params = parse(CURRICULA, given, "curriculum", "name")
    return builds[params.choice], params


def experiment_of(
    own: OwnRack | OwnModule, sections: dict[str, Any], lr: float | None, options: Mapping[str, Any]
) -> Experiment:
    """The experiment that this training amounts to, but for its corpus and its budget.

    Raises:
        ValueError: If the options are out of range, or set what is decided elsewhere.
    """
    wrong = sorted(set(nested(options)) - own.sections)
    if wrong:
        raise ValueError(
            f"options: {', '.join(wrong)} cannot be set here; known: {', '.join(own.sections)}"
        )
    sections["data"]["tokenizer"] = "json:own"  # whatever it is: it sets no size
    samples = sections["optim"]["batch"]
    if lr is not None:
        sections["optim"]["lr"] = lr
    exp = Experiment(**sections).replace(**options)
    if exp.optim.batch != samples:
        raise ValueError(
            f"options: optim.batch={exp.optim.batch}, but the dataloader gives {samples} samples "
            "per batch; leave it out"
        )
    for key in ("frozen", "master"):
        for line in unread(exp.precision, key, "a model of one's own, which stays as it is"):
            raise ValueError(f"options: precision.{line}, or train a run (sw.train)")
    dtype = str(next(own.model.parameters()).dtype).removeprefix("torch.")
    if isinstance(own, OwnRack) and dtype in SHORT and exp.precision.weights != dtype:
        raise ValueError(
            f"model: the rack is in {dtype}, in which small updates are lost; {SHORT[dtype]}"
        )
    if exp.precision.weights == "bfloat16" != dtype:
        raise ValueError(
            f"options: precision.weights=bfloat16, but the rack is in {dtype}; make it with "
            "bfloat16 matrices, or leave it out"
        )
    return exp


def _read_alike(made: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The same stages, none of which asks for samples other than the dataloader's.

    Raises:
        ValueError: If one does.
    """
    for number, stage in enumerate(made):
        if stage.seq_len is not None:
            raise ValueError(
                f"curriculum.stages[{number}].seq_len: {stage.seq_len} is not read here, where the "
                "dataloader cuts the samples; leave it out, or train a run (sw.train)"
            )
    return made


def split(
    exp: Experiment, build: MakeStages, params: Params, steps: int
) -> tuple[Experiment, tuple[Stage, ...]]:
    """Make the stages and give each its steps.

    Raises:
        ValueError: If there are not enough steps for every stage to have one.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps} must be 1 or more")

    def given(steps: int) -> Experiment:
        tokens = steps * exp.optim.batch * exp.data.seq_len
        return exp.replace(budget={"tokens": tokens}).model_copy(update={"curriculum": params})

    enough = given(steps)
    try:
        return enough, _read_alike(stages(enough, build))
    except ExperimentError:
        made = stages(given(PLENTY * steps), build)  # raises too if the steps are not to blame
    total = sum(stage.tokens or 0 for stage in made)
    need = math.ceil(total / min(stage.tokens or 1 for stage in made))
    raise ValueError(
        f"steps: {steps} do not give each of the {len(made)} stages of {params.choice} "
        f"one; give at least {need}"
    )
