"""Between kept ends of stages only what trained has moved; what is measured is as it is stated."""

import json
import shutil

import numpy as np
import pytest
import torch

import stackwise as sw
from stackwise.drift import (
    divergence,
    drift_flops,
    gram,
    likeness,
    representation_drift,
    weight_drift,
)
from stackwise.runs import RunError
from stackwise.stage_ends import rack_after, stage_ends
from stackwise.training.manifest import CheckpointError


def trained(folder, **change):
    exp = sw.Experiment(
        title="drift",
        rack={"stacks": 3, "blocks_per_stack": 2, "d_model": 16, "heads": 2},
        curriculum="left_to_right",
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 18 * 64},
        eval={"points": 1, "windows": 4, "final": 4},
    ).replace(**change)
    return sw.train(exp, sw.Placement(runs_dir=str(folder), device="cpu", threads=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def appended(folder):
    return trained(folder)


@pytest.fixture(scope="module")
def prepended(folder):
    return trained(folder, curriculum="right_to_left")


def noisy_of(run, windows=2):
    exp, length = run.experiment, run.experiment.data.seq_len
    rule = sw.Corruption(objective=exp.objective, vocab=256, batch_size=windows, seed=0)
    rows_NT = np.random.default_rng(0).integers(0, 256, (windows, length))
    return sw.fixed_draws(rule, rows_NT, draws=4)


def test_every_stage_has_an_end(appended):
    assert list(stage_ends(appended)) == [0, 1, 2]
    racks = [rack_after(appended, number) for number in range(3)]
    assert [rack.held() for rack in racks] == [("s0",), ("s0", "s1"), ("s0", "s1", "s2")]
    ids_BT = torch.arange(32).view(2, 16)
    assert torch.equal(racks[2](ids_BT), appended.rack()(ids_BT))
    assert torch.equal(rack_after(appended, 2, lent="disk")(ids_BT), racks[2](ids_BT))


def test_weights_move_where_they_trained_and_nowhere_else(appended):
    frame = weight_drift(appended)
    assert frame["trained"].any()
    assert not frame["trained"].all()
    still = frame[~frame["trained"]]
    assert (still["distance"] == 0.0).all()
    assert (frame[frame["trained"]]["distance"] > 0).all()
    # s0 trained in stage 0 alone: its end is the first, and it never moves again.
    assert frame[frame["part"] == "s0"]["stage"].tolist() == [1, 2]
    assert (frame[frame["part"] == "s0"]["from_first"] == 0.0).all()


def test_distances_are_those_of_the_tensors(appended):
    frame = weight_drift(appended).set_index(["part", "stage"])
    racks = {number: rack_after(appended, number) for number in (0, 1, 2)}
    for stage, since, column in ((1, 0, "distance"), (2, 1, "distance"), (2, 0, "from_first")):
        now, then = (
            torch.cat([p.detach().flatten() for p in racks[n].head.parameters()])
            for n in (stage, since)
        )
        want = float((now - then).norm() / then.norm())
        assert frame.loc[("head", stage), column] == pytest.approx(want, rel=1e-5)


def test_what_a_frozen_trunk_puts_out_has_not_moved_at_all(appended):
    frame = representation_drift(appended, noisy_of(appended))
    trunk = frame[(frame["stage"] == 2) & frame["exit"].isin(["embedding", "s0.0", "s0.1"])]
    assert len(trunk) == 3
    trains = {p for s in appended.stages()[1:] for p in s["active"]}
    assert "s0" not in trains
    assert not any(stage["embedding"] for stage in appended.stages()[1:])
    assert (trunk["drift"] == 0.0).all()
    said = frame[frame["exit"] == "prediction"]
    assert said["stage"].tolist() == [1, 2]
    assert (said["kl"] > 0).all()


def test_a_frozen_suffix_puts_out_something_else_for_another_input(prepended):
    weights = weight_drift(prepended)
    assert (weights[weights["part"] == "s2"]["distance"] == 0.0).all()
    frame = representation_drift(prepended, noisy_of(prepended))
    suffix = frame[frame["exit"].isin(["s2.0", "s2.1"])]
    assert len(suffix) == 4
    assert (suffix["drift"] > 1e-6).all()
    assert frame["drift"].dropna().between(0, 1).all()


def test_cka_is_that_of_the_paper():
    """Equation 4 of arXiv 1905.00414 on features, not on Gram matrices."""
    draw = torch.Generator().manual_seed(0)
    x_PD = torch.randn(40, 5, generator=draw, dtype=torch.float64)
    y_PD = torch.randn(40, 7, generator=draw, dtype=torch.float64) + 2 * x_PD[:, :1]
    cx, cy = x_PD - x_PD.mean(0), y_PD - y_PD.mean(0)
    want = (cy.T @ cx).norm() ** 2 / ((cx.T @ cx).norm() * (cy.T @ cy).norm())
    assert likeness(gram(x_PD), gram(y_PD)) == pytest.approx(float(want), rel=1e-12)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=draw, dtype=torch.float64))
    assert likeness(gram(x_PD), gram(3 * x_PD @ turn + 1)) == pytest.approx(1, abs=1e-12)
    assert likeness(gram(x_PD), gram(x_PD.clone())) == 1.0


def test_divergence_is_that_of_kullback_and_leibler():
    p, q = torch.tensor([[0.5, 0.25, 0.25]]).double(), torch.tensor([[0.25, 0.25, 0.5]]).double()
    want = 0.5 * np.log(2) + 0.25 * np.log(0.5)
    assert divergence(p.log(), q.log()) == pytest.approx(want, rel=1e-12)
    assert divergence(p.log(), p.log().clone()) == 0.0


def test_only_one_rack_is_in_memory_at_a_time(appended, monkeypatch):
    import gc
    import weakref

    import stackwise.drift as drift

    held, most = weakref.WeakSet(), []
    read = drift.rack_after

    def counted(*args, **how):
        gc.collect()
        most.append(len(held))
        rack = read(*args, **how)
        held.add(rack)
        return rack

    monkeypatch.setattr(drift, "rack_after", counted)
    representation_drift(appended, noisy_of(appended))
    assert most == [0, 0, 0]


def test_a_stack_that_was_frozen_to_less_moved_by_its_rounding(folder):
    run = trained(folder, precision={"frozen": "int8"})
    frame = weight_drift(run)
    s0 = frame[frame["part"] == "s0"]
    assert set(s0["format"]) == {"int8"}
    assert (s0["distance"] == 0.0).all()  # its end is kept as it was frozen
    s1 = frame[frame["part"] == "s1"]
    assert (s1["distance"] == 0.0).all()
    assert len(representation_drift(run, noisy_of(run)))


def test_what_is_not_kept_is_said(folder, tmp_path, appended):
    run = shutil.copytree(appended.path, tmp_path / appended.id)
    shutil.rmtree(run / "stages")
    bare = sw.attach(run)
    with pytest.raises(RunError, match=r"ends of two stages, and of those kept there is 2; train"):
        weight_drift(bare)
    with pytest.raises(RunError, match=r"the end of stage 0 is not kept; there are: 2"):
        rack_after(bare, 0)


def test_the_end_of_another_run_is_refused(appended, prepended, tmp_path):
    run = shutil.copytree(appended.path, tmp_path / appended.id)
    shutil.rmtree(run / "stages" / "0001")
    shutil.copytree(prepended.path / "stages" / "0001", run / "stages" / "0001")
    with pytest.raises(CheckpointError, match="is of another experiment"):
        weight_drift(sw.attach(run))


def test_it_costs_what_is_said(appended):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    noisy = noisy_of(appended, windows=1)
    row = sw.Corruption(objective=appended.experiment.objective, vocab=256, batch_size=1, seed=0)
    noisy = sw.fixed_draws(row, np.arange(16)[None])
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        representation_drift(appended, noisy)
    said = drift_flops(appended, 16)
    assert said == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert json.dumps(said)
