"""The demo: the same small rack trained five ways on the King James text, at equal FLOPs.

What `make demo` and `stackwise demo` run. It prints a table, samples, the path of a figure, and
the commands to go on with.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from stackwise.config import Experiment, Placement
from stackwise.data.baselines import baselines
from stackwise.memory.bytes import training_bytes
from stackwise.report import bytes_text, table
from stackwise.runs import Run
from stackwise.sampling import sample
from stackwise.study import Arm, Study, StudyResult, shrunk_to, spent
from stackwise.training.run import OnStep
from stackwise.training.start import dataset_of
from stackwise.training.step import StepNumbers
from stackwise.training.work import Work

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
    return Study(first, more=arms, seeds=(base.seed,), placement=placement, name="end_to_end")


def run_demo(base: Experiment, placement: Placement, out: TextIO = sys.stdout) -> StudyResult:
    """Run the study, show what came of it, and return it."""
    study = demo_study(base, placement)
    print(f"{base}", file=out)
    print(f"{len(study.arms)} arms, {spent(study.arms[0].experiment)['flops']:.3g} FLOPs each", file=out)
    result = study.run(**_progress(study, out))
    print(_results(result), file=out)
    print(file=out)
    print(_baselines(base, placement), file=out)
    print(f"\n{result.verdict()}\n", file=out)
    for arm, _, run in result.runs:
        print(f"{arm.name:>24}: {_sample(run)}", file=out)
    from stackwise_widgets.paper import study_figure

    figure = Path(placement.runs_dir) / "demo.png"
    study_figure(result).savefig(figure, dpi=150)
    print(f"\nFigure: {figure}", file=out)
    print(_next(result), file=out)
    return result


def _progress(study: Study, out: TextIO) -> dict[str, OnStep]:
    """A bar over the FLOPs of the whole study that shows arm, stage and loss."""
    total = sum(spent(arm.experiment)["flops"] for arm in study.arms) * len(study.seeds)
    bar = tqdm(
        total=total,
        unit="FLOP",
        unit_scale=True,
        dynamic_ncols=True,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left{postfix}",
    )
    done = {"before": 0.0}

    def on_arm(arm: Arm, seed: int) -> None:
        bar.set_description_str(f"{arm.name:<24}")
        done["before"] = 0.0

    def on_step(work: Work, numbers: StepNumbers) -> None:
        bar.update(work.at.flops - done["before"])
        done["before"] = work.at.flops
        stage = work.stages[min(work.at.stage, len(work.stages) - 1)]
        bar.set_postfix_str(
            f"stage {work.at.stage + 1}/{len(work.stages)} {stage.name}, loss {numbers.loss:.2f}"
        )
        if work.at.stage == len(work.stages) - 1 and work.at.step == work.steps_of(work.at.stage):
            bar.refresh()

    return {"on_step": on_step, "on_arm": on_arm}
