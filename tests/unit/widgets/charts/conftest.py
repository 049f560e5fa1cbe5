"""Run folders as the trainer writes them, with numbers that a test can foretell."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stackwise as sw
from stackwise.runs import RunWriter, make_run

RUNS = Path(__file__).parents[4] / "data" / "runs"
STEP_TOKENS = 16


@pytest.fixture
def shipped() -> dict[str, sw.Run]:
    """The runs of data/runs/ by their curriculum."""
    return {run.id.split("-")[1]: run for run in sw.runs_in(RUNS)}


def experiment(**change: Any) -> sw.Experiment:
    """Three stacks of two blocks, two steps between looks."""
    return sw.Experiment(
        title="made",
        rack={"stacks": 3, "blocks_per_stack": 2, "d_model": 8, "heads": 1},
        curriculum="right_to_left",
        data={"seq_len": 8},
        optim={"batch": 2},
        budget={"tokens": 10 * STEP_TOKENS},
        eval={"points": 5},
    ).replace(**change)


def stages_of(steps: tuple[int, ...], stacks: int = 3, left: bool = True) -> list[dict[str, Any]]:
    """Stages that grow to the left, or to the right."""
    ids = [f"s{n}" for n in range(stacks)]
    paths = [ids[-n:] if left else ids[:n] for n in range(1, len(steps) + 1)]
    return [
        {
            "name": f"stage{at}", "path": path, "active": [path[0] if left else path[-1]],
            "embedding": at == 0, "head": at == 0, "band": [0.0, 1.0], "tokens": n * STEP_TOKENS,
        }
        for at, (path, n) in enumerate(zip(paths, steps, strict=True))
    ]  # fmt: skip


def plan_of(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """1000 bytes of weights for each stack, and 1e9 FLOPs for each step."""
    return [
        {
            "stage": at, "name": stage["name"], "tokens": stage["tokens"],
            "flops": stage["tokens"] / STEP_TOKENS * 1e9,
            "bytes": {"weights": 1000 * len(stage["path"]), "gradients": 500,
                      "total": 1000 * len(stage["path"]) + 500},
        }
        for at, stage in enumerate(stages)
    ]  # fmt: skip


def row_of(stage: int, step: int, blocks: int = 6, **change: Any) -> dict[str, Any]:
    """The metrics of one step: tokens, FLOPs and seconds in proportion to the steps."""
    return {
        "step": step, "stage": stage, "stage_step": step, "tokens": step * STEP_TOKENS,
        "flops": step * 1e9, "loss": 1 + 1 / step, "lr": 1e-3, "grad_norm": 1.0,
        "masked_frac": 0.5, "seconds": step * 0.5, "embedding_grad_norm": 0.25,
        "head_grad_norm": 0.125, "block_grad_norms": [step + n / 100 for n in range(blocks)],
    } | change  # fmt: skip


def look_of(stage: int, step: int, exits: int, **change: Any) -> dict[str, Any]:
    """A look whose exit losses say at which step and depth they were taken."""
    losses = [1 + step / 100 + depth / 1000 for depth in range(exits)]
    return {
        "stage": stage, "step": step, "tokens": step * STEP_TOKENS, "flops": step * 1e9,
        "seconds": step * 0.5, "loss": losses[-1], "bits_per_byte": losses[-1] / math.log(2),
        "exit_losses": losses,
    } | change  # fmt: skip


def train(run: sw.Run, first: int, last: int, *, close: str | None = "finished",
          error: str | None = None, skip: tuple[int, ...] = (),
          change: Callable[[int], dict[str, Any]] = lambda step: {}) -> RunWriter:  # fmt: skip
    """One attempt: steps, looks every two steps and at the ends of stages."""
    writer = RunWriter(run.path)
    writer.__enter__()
    ends: list[int] = []
    for stage in run.stages():
        ends.append((ends[-1] if ends else 0) + stage["tokens"] // STEP_TOKENS)
    for step in range(first, last + 1):
        at = next(number for number, end in enumerate(ends) if step <= end)
        path, blocks = run.stages()[at]["path"], 2 * 3
        writer.metric(row_of(at, step, blocks, **change(step)))
        if (step % 2 == 0 or step in ends) and step not in skip:
            writer.event("eval", **look_of(at, step, 1 + 2 * len(path)))
        if step in ends:
            writer.event("memory", stage=at, weights=1000 * len(path), gradients=400, peak=9000)
    writer.status(stage=at, step=last, seconds_left=2.0)
    if close == "finished":
        result = {"bits_per_byte": 1.5, "tokens": 8, "bytes": 8, "flops": last * 1e9,
                  "seconds": last * 0.5, "peak_bytes": 9000, "trained_tokens": last * STEP_TOKENS,
                  "note": "upper bound", "depth_losses": [1.0]}  # fmt: skip
        writer.event("result", **result)
    if close is not None:
        writer.close(close, error=error)
    return writer


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., sw.Run]:
    """`made(steps=(6, 4))`: a run of so many steps in each stage, that nothing has trained yet."""

    def make(name: str = "made-1", steps: tuple[int, ...] = (6, 4), *, exp: Any = None,
             left: bool = True, data: dict[str, Any] | None = None) -> sw.Run:  # fmt: skip
        stages = stages_of(steps, left=left)
        facts = {"corpus": "kjv", "fingerprint": "ab" * 32, "heldout_bytes": 100,
                 "tokenizer_size": 256} | (data or {})  # fmt: skip
        return make_run(
            tmp_path / "runs",
            name,
            experiment=(exp or experiment()).to_yaml(),
            placement="device: cpu\n",
            stages=stages,
            plan=plan_of(stages),
            facts={"seed": 0, "data": facts},
        )

    return make


@pytest.fixture
def trained(made: Callable[..., sw.Run]) -> Callable[..., sw.Run]:
    """`trained(...)`: the same, trained from its first step to its last."""

    def make(name: str = "made-1", steps: tuple[int, ...] = (6, 4), **how: Any) -> sw.Run:
        asked = {key: how.pop(key) for key in ("exp", "left", "data") if key in how}
        run = made(name, steps, **asked)
        train(run, 1, sum(steps), **how)
        return run

    return make


@pytest.fixture
def attempt() -> Callable[..., RunWriter]:
    """`attempt(run, first, last)`: one more attempt at a run."""
    return train


@pytest.fixture
def asked() -> Callable[..., sw.Experiment]:
    """`asked(seed=1)`: the experiment of the runs above, changed."""
    return experiment
