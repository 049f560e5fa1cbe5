"""The demo: the same small rack trained five ways on the King James text, at equal FLOPs.

What `make demo` and `stackwise demo` run. It prints a table, samples, the path of a figure, and
the commands to go on with.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from stackwise.config import Experiment, Placement
from stackwise.data.baselines import baselines
from stackwise.memory.bytes import training_bytes
from stackwise.progress import bar_over
from stackwise.report import bytes_text, count_text, number, table
from stackwise.runs import Run
from stackwise.sampling import sample
from stackwise.study import Study, StudyResult, shrunk_to, spent
from stackwise.training.start import dataset_of

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
    each = spent(study.arms[0].experiment)["flops"]
    print(f"{base}\n{len(study.arms)} arms, {each:.3g} FLOPs each", file=out)
    with bar_over(sum(spent(arm.experiment)["flops"] for arm in study.arms)) as bar:
        result = study.run(on_step=bar.on_step, on_arm=lambda arm, seed: bar.name(arm.name))
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


def _results(result: StudyResult) -> str:
    """The table of arms."""
    rows = [
        [
            row["arm"],
            f"{row['bits_per_byte']:.3f} ± {row['stderr']:.3f}",
            count_text(row["parameters"]),
            count_text(row["tokens"]),
            f"{row['flops']:.3g}",
            bytes_text(row["peak_bytes"]),
            f"{row['seconds']:.0f}",
        ]
        for row in result.to_frame().to_dict("records")
    ]
    head = ["arm", "bits per byte", "parameters", "tokens", "FLOPs", "peak memory", "seconds"]
    return table(head, rows)


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
    return " ".join(text.split())


def _next(result: StudyResult) -> str:
    """Commands to go on with."""
    run = result.runs[0][2]
    return f"""
Go on with:
  stackwise runs
  stackwise sample {run.id} "In the beginning" --length 64
  stackwise eval {run.id} --draws 4
  stackwise run toy curriculum=grow curriculum.by=one seed=1
  make lab"""
