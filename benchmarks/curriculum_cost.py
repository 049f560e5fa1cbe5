"""Whether stages cost what the ledger says, at the `small` preset.

    python benchmarks/curriculum_cost.py      prints a table and exits 1 if a bound is missed

Steps of every stage of `left_to_right`, of `right_to_left` and of `end_to_end` are taken in turn.
A stage's seconds over those of a step of `end_to_end` are divided by the same ratio of their FLOPs:
1 is what the ledger says. Bound: within 15 % for every stage of `left_to_right`. The suffix of
`right_to_left` is shown beside it.
"""

from __future__ import annotations

import statistics
import time

import torch
from step import noisy_batch

import stackwise as sw
from stackwise.memory.flops import stage_flops_per_token, vocab_size
from stackwise.objective import is_causal
from stackwise.report import table
from stackwise.training.optim import Optimizer
from stackwise.training.step import Setting, Trainee, setting_of, training_step
from stackwise.training.trained import freeze_all_but

ROUNDS, BOUND = 5, 0.15


def stages_of() -> list[tuple[str, sw.Experiment, sw.Stage]]:
    """Every stage that is timed, `end_to_end` first."""
    small = sw.Experiment.preset("small")
    found = []
    for name in ("end_to_end", "left_to_right", "right_to_left"):
        exp = small.replace(curriculum=name)
        found += [(name, exp, stage) for stage in sw.stages(exp)]
    return found


def made(rack: sw.Rack, exp: sw.Experiment, stage: sw.Stage) -> tuple[Setting, Trainee]:
    """What a step of a stage needs."""
    named = freeze_all_but(rack.parts(), stage)
    setting = setting_of(
        rack,
        stage,
        causal=is_causal(exp.objective),
        micro_batch=None,
        checkpointing=False,
        compute=torch.float32,
        device=torch.device("cpu"),
        clip=exp.optim.clip,
    )
    return setting, Trainee(0, stage, named, Optimizer(exp.optim, named), None)


def main() -> int:
    """Take the steps, print the table, and say whether the bound holds."""
    timed = stages_of()
    exp = timed[0][1]
    rack, noisy = sw.Rack(exp.rack, exp.attention, vocab_size(exp)), noisy_batch(exp)
    seconds: list[list[float]] = [[] for _ in timed]
    for turn in range(ROUNDS + 1):  # the first one warms up
        for number, (_, each, stage) in enumerate(timed):
            setting, trainee = made(rack, each, stage)
            training_step(rack, noisy, setting, trainee, 1e-4)  # gradients and state are made
            began = time.perf_counter()
            training_step(rack, noisy, setting, trainee, 1e-4)
            if turn:
                seconds[number].append(time.perf_counter() - began)
    flops = [stage_flops_per_token(each, stage).total for _, each, stage in timed]
    rows, missed = [], False
    for number, (name, _, stage) in enumerate(timed):
        ratio = statistics.median(a / b for a, b in zip(seconds[number], seconds[0], strict=True))
        expected = flops[number] / flops[0]
        off = ratio / expected
        missed |= name == "left_to_right" and abs(off - 1) > BOUND
        median = statistics.median(seconds[number])
        rows.append([name, stage.name, median, f"{expected:.3f}", f"{ratio:.3f}", f"{off:.3f}"])
    shown = [[*row[:2], f"{row[2]:.2f}", *row[3:]] for row in rows]
    print(table(["curriculum", "stage", "s a step", "ledger", "measured", "ratio"], shown))
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
