"""What is measured on held-out text while a run trains, and at its end.

Held-out windows and their noise are the same at every look and for every arm, so curves can be
compared. What looking costs is counted apart from training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import torch

from stackwise.adapters import carried_after
from stackwise.by_stage import in_blocks
from stackwise.data.heldout import chosen, rows_at_once, some_windows
from stackwise.memory.flops import (
    entry_flops,
    evaluation_flops,
    exit_flops,
)
from stackwise.memory.lowrank import adapters_of
from stackwise.model.frozen import numbers_in
from stackwise.model.rack import Rack
from stackwise.objective import is_causal
from stackwise.probe import entry_losses, exit_losses, fixed_draws
from stackwise.stage import FULL_BAND, band_paths
from stackwise.training.bests import keep_if_best
from stackwise.training.block_statistics import Moves, of_step, watching, weight_norms
from stackwise.training.looks import loss_now
from stackwise.training.score import score
from stackwise.training.stage_drift import timed
from stackwise.training.step import StepNumbers, Trainee, autocast
from stackwise.training.work import AT_THE_END, Work


def watch(
    work: Work, trainee: Trainee, numbers: StepNumbers | None = None, moves: Moves | None = None
) -> None:
    """Look at held-out text if it is time to, with the averaged weights where there are any.

    Args:
        work: The run.
        trainee: What trains.
        numbers: Of the step that was taken.
        moves: Of `moves_of`, before it.
    """
    if not look_now(work, trainee.number):
        return
    with timed(work):  # looking is not training: its memory does not count
        with (
            trainee.average.applied() if trainee.average is not None else nullcontext(),
            watched_blocks(work, trainee) as found,
        ):
            look(work, trainee)
        if numbers is not None and numbers.preserved:
            work.writer.event(
                "preserved",
                stage=trainee.number,
                step=work.at.total_steps,
                loss=numbers.loss,
                **numbers.preserved,
            )
        if numbers is not None and moves is not None:
            tell_statistics(work, trainee, found(), numbers, moves)
    if work.pacer is not None:
        work.pacer.laps.look()


def look_now(work: Work, number: int, ahead: int = 0) -> bool:
    """Whether a step ends a stage or is one of the evenly spread looks of the run.

    Args:
        work: The run.
        number: The stage in hand.
        ahead: 0 for the step that was taken, 1 for the next one.
    """
    steps, done = work.total_steps, work.at.total_steps + ahead
    points = work.exp.eval.points
    spread = done * points // steps > (done - 1) * points // steps
    return spread or work.at.step + ahead == work.steps_of(number)


def moves_of(work: Work, trainee: Trainee) -> Moves | None:
    """Some of the weights that train, before a step that ends in a look with statistics."""
    if not work.exp.eval.statistics or not look_now(work, trainee.number, ahead=1):
        return None
    began = time.perf_counter()
    moves = Moves(trainee.named, trainee.optimizer)
    work.at.probe_seconds += time.perf_counter() - began
    return moves


@contextmanager
def watched_blocks(
    work: Work, trainee: Trainee
) -> Iterator[Callable[[], dict[str, dict[str, Any]]]]:
    """Inside, blocks are watched while they read held-out text, if the experiment asks for it."""
    if not work.exp.eval.statistics:
        yield dict
        return
    tokens = len(chosen(work.dataset, work.exp.eval.windows)) * work.exp.data.seq_len
    with watching(work.rack, trainee.stage.path, tokens) as found:
        yield found


def tell_statistics(
    work: Work,
    trainee: Trainee,
    blocks: dict[str, dict[str, Any]],
    numbers: StepNumbers,
    moves: Moves,
) -> None:
    """Write down what was watched, and what the step before the look did to each block."""
    step = of_step(numbers.block_norms, weight_norms(trainee.named), moves.ratios())
    names = [*blocks, *(name for name in step if name not in blocks)]
    work.writer.event(
        "statistics",
        stage=trainee.number,
        step=work.at.total_steps,
        blocks={name: {**blocks.get(name, {}), **step.get(name, {})} for name in names},
    )


def look(work: Work, trainee: Trainee) -> None:
    """Measure the loss at every depth on the held-out windows, and keep the best weights.

    The windows get the stage's own noise band, so the loss is the stage's share of the bound; over
    the full band it is the whole bound, and bits per byte follow from it. With `eval.depths=last`
    only the end of the stage's path is looked at.
    """
    exp, stage = work.exp, trainee.stage
    exits = losses_by_exit(work, trainee.number) if exp.eval.depths == "all" else []
    loss = exits[-1] if exits else loss_now(work, trainee.number)
    whole = stage.band == FULL_BAND and exp.objective.choice != "mlm"
    numbers = chosen(work.dataset, exp.eval.windows)
    tokens, size = len(numbers) * exp.data.seq_len, int(work.dataset.heldout_bytes(numbers).sum())
    bits = loss * tokens / size / math.log(2) if whole else None
    work.writer.event(
        "eval",
        stage=trainee.number,
        step=work.at.total_steps,
        tokens=work.at.tokens,
        flops=work.at.flops,
        seconds=work.at.seconds,
        loss=loss,
        bits_per_byte=bits,
        exit_losses=exits,
    )
    if not math.isfinite(loss):
        work.writer.event(
            "not_finite",
            stage=trainee.number,
            step=work.at.total_steps,
            name=stage.name,
            what=f"the held-out loss is {loss}",
            where="a look at held-out text, which moves nothing",
        )
    elif trainee.number == len(work.stages) - 1:
        keep_if_best(work, trainee, loss)


def losses_by_exit(work: Work, number: int) -> list[float]:
    """The loss of a stage's path at every depth, on its held-out windows."""
    exp, path, noisy = work.exp, work.stages[number].path, work.heldout(number)
    counted = int(noisy.counted_BT.sum())
    work.at.probe_flops += exit_flops(
        in_blocks(exp, work.stages[number]),
        path,
        noisy.positions,
        counted,
        adapters_of(work.stages[number]),
    )
    causal, size = is_causal(exp.objective), rows_at_once(exp)
    with autocast(work.device, getattr(torch, exp.precision.compute)):
        return exit_losses(work.rack, noisy, causal=causal, path=path, batch=size)


def finish(work: Work) -> None:
    """Measure the finished rack on all held-out text, and write what the run came to."""
    exp = in_blocks(work.exp, work.stages[-1])
    work.rack.paths = band_paths(work.stages)
    found = score(work.rack, work.dataset, exp, work.device)
    with autocast(work.device, getattr(torch, exp.precision.compute)):
        depths = depth_losses(work)
    work.at.probe_flops += evaluation_flops(
        exp, work.rack, len(chosen(work.dataset, exp.eval.final)), carried_after(work.stages)
    )
    corpora = corpora_read(work)
    epoch_tokens = work.dataset.n_samples * exp.data.seq_len
    epochs = max((each["epochs"] for each in corpora), default=work.at.tokens / epoch_tokens)
    work.writer.event(
        "result",
        **asdict(found),
        parameters=parameters_of(work.rack),
        trained_tokens=work.at.tokens,
        epochs=epochs,
        **({"corpora": corpora} if corpora else {}),
        flops=work.at.flops,
        probe_flops=work.at.probe_flops,
        probe_seconds=work.at.probe_seconds,
        probe_frac=work.at.probe_seconds / (work.at.seconds + work.at.probe_seconds),
        peak_bytes=work.at.peak_bytes,
        seconds=work.at.seconds,
        **time_spent(work),
        entropy_bits_per_byte=work.dataset.entropy_bits_per_byte,
        depth_losses=depths,
        grows_left=grows_left(work),
    )


def time_spent(work: Work) -> dict[str, float]:
    """Where the budget is a time: that, and how long the run has been at work."""
    pacer = work.pacer
    if pacer is None:
        return {}
    return {"budget_seconds": pacer.pace.seconds, "worked_seconds": pacer.clock.seconds()}


def corpora_read(work: Work) -> list[dict[str, Any]]:
    """What was read of each corpus of a mixture: samples of `data.seq_len` tokens, and epochs."""
    read = work.read_before(len(work.stages))
    return [
        {
            "corpus": part.text.name,
            "samples": read[number],
            "epochs": read[number] / len(work.dataset.part_rows(number)),
        }
        for number, part in enumerate(work.dataset.parts)
    ]


def parameters_of(rack: Rack) -> int:
    """Weights of the parts that are there or lent, as publications count: without [MASK]."""
    return numbers_in(rack) - rack.embedding.special.numel()


def grows_left(work: Work) -> bool:
    """Whether the rack grew to the left alone, so that its depths are entries and not exits."""
    last = work.stages[-1].path
    paths = [stage.path for stage in work.stages]
    ends = all(path == last[len(last) - len(path) :] for path in paths)
    return ends and any(path != last[: len(path)] for path in paths)


def depth_losses(work: Work) -> list[float]:
    """Loss by depth of the finished rack: by exit, or by entry if it grew to the left.

    Whatever its bands, it is measured on its longest path under all noise.
    """
    exp = in_blocks(work.exp, work.stages[-1])
    windows_NT, _ = some_windows(work.dataset, exp.eval.windows)
    rule = work.corruption(len(work.stages) - 1, band=FULL_BAND)
    noisy = fixed_draws(rule, windows_NT, progress=AT_THE_END)
    path = work.stages[-1].path
    left = grows_left(work)
    cost, measure = (entry_flops, entry_losses) if left else (exit_flops, exit_losses)
    counted = int(noisy.counted_BT.sum())
    work.at.probe_flops += cost(exp, path, noisy.positions, counted, carried_after(work.stages))
    return measure(
        work.rack, noisy, causal=is_causal(exp.objective), path=path, batch=rows_at_once(exp)
    )
