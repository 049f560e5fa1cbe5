"""The registry of curricula, and the stages of an experiment.

`stages(exp)` runs the experiment's curriculum, fills in what it left open, and turns the budget
into tokens. To add a curriculum, write a function from an experiment to stages, as those in
`curricula/`, and put it into `CURRICULA`. What a stage is stands in `stage.py`, what is filled in
and refused in `completion.py`, how the budget is split in `budget.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stackwise.budget import with_spans, with_tokens
from stackwise.choice import Choice, Params, find, unread
from stackwise.completion import complete, keeps_no_function
from stackwise.curricula import freezing, growing, subnetwork, thawing, visiting
from stackwise.errors import ExperimentError, Problem, short
from stackwise.model.shape import RackShape
from stackwise.stage import Stage

if TYPE_CHECKING:
    from stackwise.config import Experiment

MOST_STAGES = 10_000


def no_problems(shape: RackShape, options: Any) -> Iterator[str]:
    """The check of a curriculum that goes with every rack."""
    yield from ()


@dataclass(frozen=True, kw_only=True)
class Curriculum(Choice):
    """An entry of `CURRICULA`: a function from an experiment to stages, and its parameters.

    A plain function does as well; then its stages alone say what is wrong.

    Attributes:
        check: What is wrong with the parameters on a rack of a shape, one line per problem.
        bands: Whether its stacks can, or must, have noise bands of their own.
        starts: Whether it takes the weights of a model (`start`) to begin with.
    """

    check: Callable[[RackShape, Any], Iterable[str]] = no_problems
    bands: Literal["never", "may", "must"] = "never"
    starts: Literal["may", "must"] = "may"


CURRICULA: dict[str, Choice | Callable[[Any], Iterable[Stage]]] = {
    "end_to_end": Curriculum(thawing.end_to_end, thawing.EndToEnd),
    "left_to_right": Curriculum(
        freezing.left_to_right, freezing.LeftToRight, check=freezing.frozen_problems, bands="may"
    ),
    "right_to_left": Curriculum(
        freezing.right_to_left, freezing.RightToLeft, check=freezing.frozen_problems, bands="may"
    ),
    "freeze_thaw": Curriculum(freezing.freeze_thaw, freezing.FreezeThaw),
    "grow": Curriculum(growing.grow, growing.Grow, check=growing.growing_problems),
    "one_hop": Curriculum(growing.one_hop, growing.OneHop, check=growing.growing_problems),
    "block_coordinate": Curriculum(visiting.block_coordinate, visiting.BlockCoordinate),
    "diffusion_blocks": Curriculum(
        visiting.diffusion_blocks, visiting.DiffusionBlocks, bands="must"
    ),
    "independent": Curriculum(visiting.independent, visiting.Independent),
    "subnetwork": Curriculum(
        subnetwork.subnetwork, subnetwork.Subnetwork, check=subnetwork.subnetwork_problems
    ),
    "gradual_unfreezing": Curriculum(
        thawing.gradual_unfreezing, thawing.GradualUnfreezing, check=thawing.thawing_problems
    ),
    "fusion": Curriculum(
        thawing.fusion, thawing.Fusion, check=thawing.thawing_problems, starts="must"
    ),
}


def curriculum_problems(shape: RackShape, options: Params) -> Iterator[str]:
    """What is wrong with the parameters of a curriculum on a rack of this shape."""
    entry, given = CURRICULA.get(options.choice), options.model_dump()
    if given.get("init") == "zero_output":
        yield from (f"curriculum.init: {problem}" for problem in keeps_no_function(shape))
    known = {"init", "noise"} <= type(options).model_fields.keys()  # not of a cell's curriculum
    if known and given["init"] != "copy+noise":
        yield from (f"curriculum.{x}" for x in unread(options, "noise", f"init={given['init']}"))
    if isinstance(entry, Curriculum):
        yield from _checked(entry, shape, options)


def _checked(entry: Curriculum, shape: RackShape, options: Params) -> Iterator[str]:
    """The lines of a curriculum's check; what is wrong with the check itself is one, too."""
    which = f"curriculum: the check of {options.choice!r}"
    asked = "yield a line of text for each problem, and nothing if there is none"
    try:
        made: Any = entry.check(shape, options)
        if isinstance(made, str) or not isinstance(made, Iterable):
            yield f"{which} returned {short(made)}; {asked}"
            return
        for line in made:
            yield line if isinstance(line, str) else f"{which} gave {short(line)}; {asked}"
    except Exception as error:
        yield (
            f"{which} raised {type(error).__name__}: {error}; it is called with a rack's shape and "
            "the curriculum's parameters"
        )


def stages(
    exp: Experiment | str, build: Callable[[Any], Iterable[Stage]] | None = None
) -> tuple[Stage, ...]:
    """The stages of an experiment, complete: what is written into a run and executed.

    Args:
        exp: The experiment, or a preset's name.
        build: The function that makes them; None for that of the experiment's curriculum.

    Raises:
        ExperimentError: If the stages contradict each other, the rack or the budget.
    """
    from stackwise.asked import an_experiment

    exp = an_experiment(exp)
    if exp.budget.seconds is not None:
        unit = exp.budget.unit
        raise ExperimentError(
            f"budget.{unit}: {getattr(exp.budget, unit):g} is a time, and how much is read in it "
            "depends on the machine: sw.plan shows its stages, sw.timed gives it in tokens"
        )
    made = _made(exp, build or find(CURRICULA, exp.curriculum.choice, "curriculum").build)
    return tuple(with_spans(with_tokens(exp, complete(exp, made))))


def _called(name: str, build: Any, exp: Experiment) -> Any:
    """What a curriculum's function gives for an experiment."""
    if not callable(build):
        raise ExperimentError(f"{name!r} is {short(build)}; put a function of an experiment there")
    try:
        inspect.signature(build).bind(exp)
    except TypeError as error:
        raise ExperimentError(
            f"{name!r} cannot be called with an experiment: {error}; begin it as: def f(exp):"
        ) from None
    except ValueError:  # one that does not say what it takes
        pass
    return build(exp)


def own_tokens(exp: Experiment) -> tuple[int, int] | None:
    """The first stage to which the curriculum gives tokens of its own, and how many; else None."""
    made = _made(exp, find(CURRICULA, exp.curriculum.choice, "curriculum").build)
    lengths = enumerate(stage.tokens or 0 for stage in made)
    return next(((number, tokens) for number, tokens in lengths if tokens), None)


def _made(exp: Experiment, build: Callable[[Any], Any]) -> list[Stage]:
    """What the curriculum yields or returns, and nothing but stages."""
    name, where, made = exp.curriculum.choice, "curriculum.stages", list[Stage]()
    try:
        found = _called(name, build, exp)
        if isinstance(found, Stage) or not isinstance(found, Iterable):
            raise ExperimentError(
                f"{name!r} returned {short(found)}; yield stages or return a list"
            )
        where = "curriculum.stages[0]" if isinstance(found, Iterator) else where
        for stage in found:
            where = f"curriculum.stages[{len(made)}]"
            if not isinstance(stage, Stage):
                raise ExperimentError(f"{short(stage)} is not a Stage")
            if len(made) == MOST_STAGES:
                raise ExperimentError(f"{name!r} makes over {MOST_STAGES} stages; end it")
            made.append(stage)
            where = f"curriculum.stages[{len(made)}]"
    except ExperimentError as error:
        raise error.under(where) from None
    except Exception as error:
        said = f"{name!r} raised {type(error).__name__}: {error}"
        raise ExperimentError([Problem(where, said)]) from error
    if not made:
        raise ExperimentError(f"curriculum.stages: {name!r} makes none; yield one or more")
    if len({stage.share_of for stage in made if stage.tokens is None}) > 1:
        raise ExperimentError(
            "curriculum.stages: some share tokens and some FLOPs; give all of them one share_of"
        )
    return made
