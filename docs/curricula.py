"""Writes docs/curricula.md: `python docs/curricula.py`. All its tables come from the code.

`tests/unit/test_the_curricula_page_is_current.py` makes the page again and compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import stackwise as sw
from stackwise.choice import Params, params_of
from stackwise.curriculum import CURRICULA, Curriculum
from stackwise.memory.flops import stage_flops_per_token
from stackwise.stage import FULL_BAND, roles

STACKS, TOKENS = 4, 8_000_000
BANDED = {"bands": "equal_mass"}
MARKS = {"active": "**{}**", "trunk": "{}", "suffix": "{}"}

PAGE = """\
# Curricula

Written by `python docs/curricula.py`; a test makes it again and compares.

A curriculum is a function from an experiment to its stages. Those that ship are shown here on a
rack of {stacks} stacks at their defaults, with {tokens:,} tokens: stacks in bold train, the others
on the path are frozen. `cost` is FLOPs per token over those of `end_to_end`, head included.
`stackwise plan` shows the same for your own rack, with bytes and time.

A stack that is added starts at random (`init=random`), as a copy of another (`copy`), as a copy
whose matrices are moved a little (`copy+noise`), as the mean of its neighbours (`interpolate`), or
with its output weights at zero, so that the rack computes what it computed before (`zero_output`).
What trained before begins a stage with new moments (`optimizer_state=reset`), with its own
(`keep`), or with its own while copies begin with their source's (`copy`). The learning rate goes
through one schedule for all stages (`lr=continue`), the same with a new warm-up in each
(`rewarm`), or a schedule in each (`per_stage`).

{curricula}
## One of your own

A function of an experiment that yields stages; `CONTRIBUTING.md` shows one. It works from a
notebook cell, planner and pictures know it, and a run executes the stages, not the function.
"""


def page() -> str:
    """The whole text."""
    return PAGE.format(
        stacks=STACKS, tokens=TOKENS, curricula="\n".join(section(name) for name in CURRICULA)
    )


def example(name: str) -> sw.Experiment:
    """A small experiment with that curriculum."""
    entry = CURRICULA[name]
    banded = isinstance(entry, Curriculum) and entry.bands == "must"
    starts = isinstance(entry, Curriculum) and entry.starts == "must"
    return sw.Experiment(
        rack={"stacks": STACKS, "blocks_per_stack": 2},
        curriculum=name,
        masking=BANDED if banded else {},
        budget={"tokens": TOKENS},
        start="runs/finished" if starts else None,
    )


def section(name: str) -> str:
    """A curriculum: what it is, its stages, its options."""
    params = params_of(CURRICULA, name, "curriculum", "name")
    said = " ".join((params.__doc__ or "").split())
    options = "\n".join(option_lines(params))
    parts = [f"## `{name}`", said, stages_table(example(name)), options]
    return "\n\n".join(part for part in parts if part) + "\n"


def stages_table(exp: sw.Experiment) -> str:
    """The stages of an experiment, a line each; of many the first and the last few."""
    whole = exp.replace(curriculum="end_to_end", masking={"bands": None}, start=None)
    full = stage_flops_per_token(whole, sw.stages(whole)[0]).total
    lines = ["| stage | path | starts | ends that train | noise | tokens | cost |"]
    lines += ["| --- | --- | --- | --- | --- | ---: | ---: |"]
    for stage in sw.stages(exp):
        cost = stage_flops_per_token(exp, stage).total / full
        cells = [stage.name, path_of(stage), starts_of(stage), ends_of(stage), noise_of(stage)]
        lines.append(f"| {' | '.join(cells)} | {stage.tokens:,} | {cost:.2f} |")
    return "\n".join(lines)


def path_of(stage: sw.Stage) -> str:
    """The stacks that run, those that train in bold."""
    shown = " ".join(MARKS[role].format(stack) for stack, role in roles(stage).items())
    return shown + (f", {stage.pick} at each step" if stage.pick else "") or "none"


def starts_of(stage: sw.Stage) -> str:
    """What the new stacks that do not start at random start from."""
    found = [
        f"{new.stack}: {new.init} {' and '.join(new.sources)}".strip()
        for new in stage.new or ()
        if new.init != "random"
    ]
    return ", ".join(found)


def ends_of(stage: sw.Stage) -> str:
    """Embedding and head, where they train."""
    ends = {"embedding": stage.embedding, "head": stage.head}
    return ", ".join(end for end, trains in ends.items() if trains)


def noise_of(stage: sw.Stage) -> str:
    """The noise band."""
    low, high = stage.band
    return "all" if stage.band == FULL_BAND else f"{low:g} to {high:g}"


def option_lines(params: type[Params]) -> Iterator[str]:
    """The options, with their defaults."""
    for name, field in list(params.model_fields.items())[1:]:
        default = "empty" if field.default is None else field.default
        yield f"- `{name}` ({default}): {field.description}"


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), "utf-8")
