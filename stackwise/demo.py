"""The demo: the same small rack trained five ways on the King James text, at equal FLOPs.

What `make demo` and `stackwise demo` run. It prints a table, samples, the path of a figure, and
the commands to go on with.
"""

from __future__ import annotations

import sys
from itertools import accumulate
from pathlib import Path
from shlex import quote
from typing import TextIO

from stackwise.config import Experiment, Placement
from stackwise.data.baselines import baselines
from stackwise.data.errors import missing_package
from stackwise.memory.bytes import training_bytes
from stackwise.printing import printable
from stackwise.progress import bar_over
from stackwise.report import called, number, program, results_table, table
from stackwise.runs import Run
from stackwise.sampling import sample
from stackwise.study import Study, StudyResult, shrunk_to, spent
from stackwise.training.run import Stopped
from stackwise.training.start import dataset_of, settled

PROMPT = "And the LORD said"


def demo_arms(base: Experiment) -> dict[str, Experiment]:
    """The five arms: name to experiment."""
    frozen = base.replace(curriculum="left_to_right")
    limit = training_bytes(frozen, Placement())
    return {
        "end_to_end": base.replace(curriculum="end_to_end"),
        "left_to_right": frozen,
        "right_to_left, banded": base.replace(
            curriculum={"name": "right_to_left", "embedding": "first"},
            masking={"bands": "equal_mass"},
        ),
        "grow": base.replace(curriculum="grow"),
        "end_to_end, same bytes": shrunk_to(base, limit),
    }


def demo_study(base: Experiment, placement: Placement) -> Study:
    """The study that the demo runs."""
    arms = demo_arms(base)
    first = arms.pop("end_to_end")
    return Study(
        first,
        more=arms,
        seeds=(base.seed,),
        placement=placement,
        name="end_to_end",
        lr_grid=None,  # a demo is to be short
        same_bytes=False,  # that is its fifth arm already
    )


def run_demo(base: Experiment, placement: Placement, out: TextIO | None = None) -> StudyResult:
    """Run the study, show what came of it, and return it.

    Args:
        base: What all arms have alike.
        placement: How they are carried out.
        out: Where it is shown; None for what `sys.stdout` is by then.

    Raises:
        DataError: If there is nothing to draw the figure with; before anything is trained.
        Stopped: If the user stopped an arm; it is saved, and the same call goes on.
    """
    try:
        from stackwise_widgets.paper import study_figure
    except ImportError:
        raise missing_package("the figure of the demo", "matplotlib") from None
    out = sys.stdout if out is None else out
    study = demo_study(base, placement)
    found, where = settled(base, placement)
    dataset_of(found, where.data_dir)  # what is wrong with the text is said before the bar
    planned = [spent(arm.experiment)["flops"] for arm in study.arms]
    names = [arm.name for arm in study.arms]
    before = dict(zip(names, accumulate(planned[:-1], initial=0.0), strict=True))
    print(f"{base}\n{len(study.arms)} arms, {planned[0]:.3g} FLOPs each", file=out)
    with bar_over(sum(planned)) as bar:
        try:
            result = study.run(
                on_step=bar.on_step, on_arm=lambda arm, seed: bar.enter(arm.name, before[arm.name])
            )
        except Stopped as stopped:
            raise Stopped(f"{stopped}: {program()} demo") from None
        bar.enter("finished", sum(planned))
    print(results_table(result), file=out)
    print(file=out)
    print(_baselines(base, placement), file=out)
    print(f"\n{result.verdict()}\n", file=out)
    for arm, _, run in result.runs:
        print(f"{arm.name:>24}: {_sample(run)}", file=out)
    figure = Path(placement.runs_dir) / "demo.png"
    study_figure(result).savefig(figure, dpi=150)
    print(f"\nFigure: {figure}", file=out)
    print(_next(result, placement), file=out)
    return result


def _baselines(base: Experiment, placement: Placement) -> str:
    """What simple models and compressors get on the same held-out text."""
    rows = [
        [row.name, number(row.bits_per_byte), row.note]
        for row in baselines(dataset_of(base, placement.data_dir))
    ]
    return table(["on the same held-out text", "bits per byte", ""], rows)


def _sample(run: Run) -> str:
    """A short denoised continuation."""
    text = sample(run.rack(), PROMPT, tokenizer=run.tokenizer(), length=32, seed=0)
    return printable(" ".join(text.split()))


def _next(result: StudyResult, placement: Placement) -> str:
    """Commands to go on with, as they can be pasted."""
    run, folder = result.runs[0][2], placement.runs_dir
    usual = folder == Placement().runs_dir
    commands = [
        "runs" if usual else f"runs --runs-dir {quote(folder)}",
        f'sample {called(run)} "In the beginning" --length 64',
        f"eval {called(run)} --draws 4",
        "run toy curriculum=grow curriculum.by=one seed=1"
        + ("" if usual else f" {quote(f'placement.runs_dir={folder}')}"),
        "lab",
    ]
    return "\n".join(["\nGo on with:", *(f"  {program()} {command}" for command in commands)])
