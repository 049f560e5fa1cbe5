"""Looks and drift take the share of training that the user allows, decided by planned FLOPs."""

import pytest

import stackwise as sw
from stackwise.probing import (
    LITTLE,
    USUAL,
    as_probed,
    asked_probes,
    bounded_probes,
    look_count,
)


def exp_of(**change):
    return sw.Experiment(
        title="probed",
        rack={"stacks": 2, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        curriculum="right_to_left",
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 64 * 64},
        eval={"points": 16, "windows": 4, "final": 4},
    ).replace(**change)


@pytest.mark.parametrize("depths", ["all", "last"])
def test_what_is_planned_is_what_is_spent(depths, tmp_path):
    exp = exp_of(**{"eval.depths": depths, "objective": "clm"})  # which counts the same positions
    made = sw.stages(exp)
    run = sw.train(exp, sw.Placement(runs_dir=str(tmp_path), device="cpu", threads=1))
    looks = [len(run.evals().query("stage == @number")) for number in range(len(made))]
    assert looks == [look_count(exp, made, number) for number in range(len(made))]
    done, result = asked_probes(exp, made), run.result()
    # The end of a run is no probe: depths by entry, and the score of `final` windows.
    from stackwise.memory.flops import entry_flops, evaluation_flops

    tokens = 4 * 16
    end = entry_flops(exp, made[-1].path, tokens, tokens)
    end += evaluation_flops(exp, run.rack(), 4)
    assert result["probe_flops"] - end == pytest.approx(done.flops, rel=1e-12)
    assert done.training_flops == pytest.approx(result["flops"], rel=0.02)
    assert 0 < result["probe_frac"] < 1
    seconds = result["probe_seconds"]
    assert result["probe_frac"] == pytest.approx(seconds / (seconds + result["seconds"]))


def test_a_little_is_left_alone_unless_a_share_is_given():
    exp = exp_of()
    made = sw.stages(exp)
    asked = asked_probes(exp, made)
    assert asked.frac > USUAL
    assert asked.flops < LITTLE
    assert as_probed(exp, made) is exp
    strict = exp.replace(**{"eval.probe_frac": USUAL})
    assert as_probed(strict, made).eval.points < 16


def test_much_is_bounded_by_itself():
    exp = exp_of(**{"eval.windows": 100_000})
    made = sw.stages(exp)
    assert asked_probes(exp, made).flops > LITTLE
    assert not bounded_probes(exp, made).fits  # windows are never fewer, nor looks at stage ends
    assert bounded_probes(exp, made).points == 1


def test_it_is_cut_in_the_order_that_is_said():
    exp, made = exp_of(), sw.stages(exp_of())
    seen = []
    for share in (4.0, 1.2, 0.7, 0.25, 0.12, 0.05, 0.001):
        found = bounded_probes(exp.replace(**{"eval.probe_frac": share}), made)
        assert found.fits == (found.flops <= share * found.training_flops)
        seen.append((found.depths, found.drift, found.points))
        before = asked_probes(exp, made)
        assert found.flops <= before.flops
    assert seen[0] == ("all", True, 16)
    assert seen[-1] == ("last", False, 1)
    rank = [(depths == "last", not drift, -points) for depths, drift, points in seen]
    assert rank == sorted(rank)
    assert {points for _, _, points in seen} <= {16, 8, 4, 2, 1}


def test_every_cut_is_the_smallest_that_fits():
    exp, made = exp_of(), sw.stages(exp_of())
    for points in (15, 7, 3):  # what so many looks take is allowed: halves of 16 are 8, 4, 2
        share = asked_probes(exp.replace(**{"eval.points": points}), made).frac
        found = bounded_probes(exp.replace(**{"eval.probe_frac": share}), made)
        assert (found.points, found.depths) == ((points + 1) // 2, "all")
        assert found.fits


def test_the_plan_says_it_and_the_run_does_it(tmp_path):
    exp = exp_of(**{"eval.probe_frac": 0.08})
    plan = sw.plan(exp)
    assert plan.probes != plan.asked_probes
    assert "over the bound of 8 % (eval.probe_frac)" in str(plan)
    assert plan.to_json()["probes"]["points"] == plan.probes.points
    run = sw.train(exp, sw.Placement(runs_dir=str(tmp_path), device="cpu", threads=1))
    (event,) = run.events("probes_bounded")
    assert event["changed"]["points"] == [16, plan.probes.points]
    assert event["frac"] == plan.probes.frac <= event["bound"] == 0.08
    made = sw.stages(exp)
    done = as_probed(exp, made)
    assert len(run.evals()) == sum(look_count(done, made, n) for n in range(len(made)))
    assert run.evals().groupby("stage")["step"].max().tolist() == [
        stage["step"] for stage in _ends(run)
    ]
    assert run.experiment == exp  # what was asked for stays on record


def _ends(run):
    done = 0
    for event in run.events("stage_finished"):
        done += event["step"]
        yield {"step": done}


def test_what_fits_says_nothing():
    plan = sw.plan(exp_of())
    assert plan.probes == plan.asked_probes
    assert "probe_frac" not in str(plan)


def test_the_knobs_leave_hashes_alone():
    exp = exp_of()
    for key in ("statistics", "drift", "probe_frac"):
        assert key not in exp.identity()["eval"]
    assert exp.replace(**{"eval.drift": False}).hash != exp.hash


def test_every_preset_is_within_the_bound():
    for name in sw.presets():
        exp = sw.Experiment.preset(name)
        made = sw.stages(exp)
        assert as_probed(exp, made) is exp, name
        assert bounded_probes(exp, made).frac <= USUAL
