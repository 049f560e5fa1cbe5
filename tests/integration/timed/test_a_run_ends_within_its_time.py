"""Days in, a whole rack out: decayed, fused, and neither late nor with much of the time unused."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.training.run import execute
from stackwise.training.start import create_run
from stackwise.training.work import Counters

from .conftest import BEGAN, World, for_steps, repeat

LITTLE = {"points": 2, "windows": 2, "final": 4}  # so that looks are as little as in long runs
FUSED = {"name": "left_to_right", "fuse": 0.3}
SLOW = {
    "as forecast": lambda passed: 1.0,
    "fast": lambda passed: 0.6,
    "slow": lambda passed: 2.5,
    "halves": lambda passed: 1.0 if passed < 0.5 else 2.0,
}


@pytest.mark.parametrize("slow", SLOW)
def test_it_ends_in_time_and_uses_it(tiny, machine, place, world: World, slow: str) -> None:
    exp = for_steps(tiny.replace(curriculum=FUSED, eval=LITTLE), machine, 40)
    seconds = exp.budget.seconds
    world.slow = lambda at: SLOW[slow]((at - BEGAN) / seconds)
    run = create_run(exp, place)
    execute(run, on_step=world.on_step)
    result, longest = run.result(), max(world.steps)
    assert result["budget_seconds"] == seconds
    assert result["worked_seconds"] == pytest.approx(world.seconds - BEGAN)
    assert result["worked_seconds"] <= seconds + longest
    assert result["worked_seconds"] >= 0.95 * seconds - 2 * longest  # those of a stage are whole
    metrics = run.metrics()
    stages = [sw.Stage.model_validate(stage) for stage in run.stages()]
    assert stages[-1].name == "fusion" and set(stages[-1].active or ()) == {"s0", "s1", "s2", "s3"}
    done = metrics.groupby("stage").size().tolist()
    assert done == [(stage.tokens or 0) // 64 for stage in stages]
    assert all(done)
    for number, count in enumerate(done):
        rates = metrics.lr[metrics.stage == number].tolist()
        assert rates[-1] <= exp.optim.lr / 0.3 / count  # it is half a step from zero
    assert [row["tokens"] for row in run.plan()] == [stage.tokens for stage in stages]
    assert result["trained_tokens"] == sum(stage.tokens or 0 for stage in stages)
    planned = sum(row["flops"] for row in run.plan())
    assert result["flops"] == pytest.approx(planned, rel=0.05)
    assert run.status()["seconds_left"] == pytest.approx(seconds - world.at_last_step + BEGAN)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_other_schedules_end_at_zero_too(tiny, machine, place, world: World, schedule) -> None:
    exp = for_steps(tiny.replace(optim={"schedule": schedule}), machine, 40)
    world.slow = lambda at: 1.0 if at - BEGAN < exp.budget.seconds / 2 else 2.0
    run = create_run(exp, place)
    execute(run, on_step=world.on_step)
    rates = run.metrics().lr.tolist()
    assert len(rates) < 38
    assert rates[-1] == min(rates) and rates[-1] < exp.optim.lr / 10
    assert run.result()["worked_seconds"] <= exp.budget.seconds + max(world.steps)


def test_what_a_run_was_launched_with_stays_as_it_was(tiny, machine, place, world: World) -> None:
    exp = for_steps(tiny.replace(curriculum="left_to_right"), machine, 40)
    run = create_run(exp, place)
    before = (run.path / "stages.json").read_bytes()
    world.slow = lambda at: 3.0
    execute(run, on_step=world.on_step)
    assert (run.path / "stages.json").read_bytes() == before
    launched, now = run.launched_stages(), run.stages()
    assert sum(s["tokens"] for s in now) < sum(s["tokens"] for s in launched) / 2
    assert run.events("paced")
    assert run.experiment == exp


def test_a_pause_does_not_count(tiny, machine, place, world: World, monkeypatch) -> None:
    from stackwise.training import obeying

    exp = for_steps(tiny, machine, 20)
    run = create_run(exp, place)

    def an_hour(seconds: float) -> None:
        world.seconds += 3600.0
        run.resume()

    monkeypatch.setattr(obeying.time, "sleep", an_hour)

    def on_step(work, numbers) -> None:
        world.on_step(work, numbers)
        if work.at.total_steps == 5:
            run.pause()

    execute(run, on_step=on_step)
    assert world.seconds - BEGAN > 3600 + 0.8 * exp.budget.seconds
    assert run.result()["worked_seconds"] <= exp.budget.seconds + max(world.steps)
    assert run.result()["worked_seconds"] >= 0.9 * exp.budget.seconds


def test_a_cached_stage_never_grows_once_it_has_begun(tiny, machine, place, world: World) -> None:
    cached = place.replace(trunk="cached")
    exp = tiny.replace(
        curriculum="left_to_right", rack={"tied": False}, eval={"depths": "last", **LITTLE}
    )
    exp = for_steps(exp, machine, 24)
    run = create_run(exp, cached)
    world.slow = lambda at: 1.0 if at - BEGAN < exp.budget.seconds * 0.6 else 1.9
    execute(run, on_step=world.on_step)
    within = [e["steps"] for e in run.events("paced") if e["stage"] and e["stage_step"]]
    assert within and all(now <= before for before, now in within)
    assert any(now < before for before, now in within)
    assert run.result()["worked_seconds"] <= exp.budget.seconds + max(world.steps)
    filled = [event["stage"] for event in run.events("cache_filled") if event["of"] == "trained"]
    assert filled == [1, 2, 3]  # once for each stage with a trunk
    again = repeat(run, place)  # the same lengths, with nothing cached
    assert again.weights_hash() == run.weights_hash()


def test_counters_of_older_checkpoints_are_read() -> None:
    assert Counters(stage=1, step=2).decisions == 0


def test_what_watches_a_run_sees_the_stages_as_they_are(tiny, machine, place, world) -> None:
    from stackwise_widgets.charts.series import Reader

    run = create_run(for_steps(tiny, machine, 40), place)
    world.slow = lambda at: 2.0
    reader, seen = Reader(run), []

    def on_step(work, numbers) -> None:
        world.on_step(work, numbers)
        work.writer.flush()
        seen.append((reader.read().total_steps, work.total_steps))

    execute(run, on_step=on_step)
    assert len(set(seen)) > 2
    assert all(shown == planned for shown, planned in seen)
    assert reader.read().total_steps == len(seen) < 25
