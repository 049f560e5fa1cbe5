"""A first stage that two arms have alike is trained once; the second has what it would have had."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.study.sharing import begun, flops_shared, sources_of, stages_alike
from stackwise.training.run import execute
from stackwise.training.start import settled

PLAIN = {"lr_grid": None, "same_bytes": False}
GROW = [{"name": "grow", "by": "one", "init": init} for init in ("copy", "random")]


@pytest.fixture
def small(tiny) -> sw.Experiment:
    return tiny.replace(rack={"stacks": 3})


def test_a_branch_has_the_weights_numbers_and_costs_of_a_run_alone(small, place, tmp_path) -> None:
    study = sw.Study(small, vary={"curriculum": GROW}, placement=place, **PLAIN)
    result = study.run()
    (_, _, first), (second, _, forked), _ = result.runs  # the third is the control
    alone = sw.train(forked.experiment, place.replace(runs_dir=str(tmp_path / "alone")))
    assert forked.provenance()["forked"]["run"] == first.id
    assert "forked" not in alone.provenance()
    assert forked.stages() == alone.stages()
    assert forked.weights_hash() == alone.weights_hash()
    for key in ("bits_per_byte", "flops", "trained_tokens", "probe_flops", "depth_losses"):
        assert forked.result()[key] == alone.result()[key], key
    timed = ["seconds"]
    assert forked.metrics().drop(columns=timed).equals(alone.metrics().drop(columns=timed))
    looks = ["stage", "step", "tokens", "flops", "loss", "bits_per_byte"]
    assert forked.evals()[looks].equals(alone.evals()[looks])

    saved = alone.plan()[0]["flops"]
    assert result.saved_flops == saved > 0
    assert f"shared first stages saved {saved:.3g} FLOPs" in str(result)
    spent = result.to_frame().set_index("arm")["flops"]
    assert spent[second.name] == alone.result()["flops"], "its full cost"
    again = study.run()
    assert again.to_frame().equals(result.to_frame())


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"optim.lr": 0.02},
        {"optim.schedule": "cosine"},
        {"data.seq_len": 8},
        {"precision.compute": "bfloat16"},
        {"masking.schedule": "cosine"},
        {"eval.points": 3},
        {"budget": {"tokens": 2048}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_decides_a_number_is_never_shared(small, change) -> None:
    one, other = (small.replace(curriculum=kind) for kind in GROW)
    assert stages_alike(one, other) == 1, "the failing control"
    assert stages_alike(one, other.replace(**change)) == 0


def test_a_schedule_or_a_length_that_differs_is_not_shared(small) -> None:
    one, other = (small.replace(curriculum=kind) for kind in GROW)
    assert stages_alike(one, other.replace(curriculum={"lr": "per_stage"})) == 0
    assert stages_alike(one, other.replace(curriculum={"split": "flops"})) == 0
    assert stages_alike(one, small.replace(curriculum="left_to_right")) == 0
    assert stages_alike(one, one) == 2, "all but the last: a branch has something to train"


def test_a_stage_kept_for_another_next_stage_is_not_shared(small, monkeypatch) -> None:
    """Averages are adopted at a border by what freezes there."""
    first = sw.Stage(path=("s0",), tokens=512)
    frozen = [first, sw.Stage(path=("s0", "s1"), active=("s1",), embedding=False, tokens=512)]
    moving = [first, sw.Stage(path=("s0", "s1"), tokens=512)]
    monkeypatch.setitem(sw.CURRICULA, "frozen", lambda exp: frozen)
    monkeypatch.setitem(sw.CURRICULA, "moving", lambda exp: moving)
    one, other = (small.replace(curriculum=name) for name in ("frozen", "moving"))
    assert sw.stages(one)[0] == sw.stages(other)[0]
    assert stages_alike(one, other) == 0
    bare = {"optim": {"ema": None}}
    assert stages_alike(one.replace(**bare), other.replace(**bare)) == 1


def test_a_branch_goes_on_with_adapters_as_a_run_alone_does(
    small, place, tmp_path, monkeypatch
) -> None:
    first = sw.Stage(path=("s0",), tokens=512)
    second = sw.Stage(path=("s0", "s1"), active=("s1",), embedding=False, tokens=512)
    for name, head in (("with_head", True), ("without", False)):
        third = sw.Stage(path=("s0", "s1", "s2"), active=("s2",), embedding=False, head=head)
        made = [first, second, third.model_copy(update={"tokens": 512})]
        monkeypatch.setitem(sw.CURRICULA, name, lambda exp, made=made: made)
    asked = {"adapters": {"on": "trunk", "rank": 2}, "budget": {"tokens": 1536}}
    arms = [
        small.replace(curriculum=name, optim={"ema": None}, **asked)
        for name in ("with_head", "without")
    ]
    one, other = (settled(arm, place)[0] for arm in arms)
    assert stages_alike(one, other) == 2
    branch = begun(other, place, sw.train(arms[0], place), 2)
    execute(branch)
    alone = sw.train(arms[1], place.replace(runs_dir=str(tmp_path / "alone")))
    assert "forked" in branch.provenance() and "forked" not in alone.provenance()
    assert branch.stages() == alone.stages()
    assert branch.weights_hash() == alone.weights_hash()
    assert branch.result()["flops"] == alone.result()["flops"]


def test_nothing_is_shared_where_no_stage_is_kept(small, place) -> None:
    asked = [small.replace(curriculum=kind) for kind in GROW]
    assert [source and source.stages for source in sources_of(asked, place)] == [None, 1]
    assert sources_of(asked, place.replace(keep_stages=False)) == [None, None]
    exp, _ = settled(asked[0], place)
    assert flops_shared(exp, 3) == pytest.approx(sum(row["flops"] for row in sw.plan_rows(
        exp, place, sw.stages(exp))))  # fmt: skip
