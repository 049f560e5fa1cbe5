"""Drift over a stage, told without keeping its end, is what is measured between kept ends."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import stackwise as sw
from stackwise.drift import representation_drift
from stackwise.probe import fixed_draws
from stackwise.probing import DRIFT_FILE, DRIFT_POSITIONS, drift_windows
from stackwise.training.opening import open_work
from stackwise.training.run import train_stage
from stackwise.training.stage_drift import read_path
from stackwise.training.start import create_run


def noisy_of(run):
    """The windows that a run measures its drift on."""
    with open_work(run) as work:
        rule = work.corruption(0, band=(0.0, 1.0))
        windows_NT = work.dataset.heldout_windows(
            [round(i * (work.dataset.n_windows - 1) / 3) for i in range(drift_windows(work.exp))]
        )
        return fixed_draws(rule, windows_NT, progress=1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"curriculum": "left_to_right"},
        {"curriculum": "right_to_left", "masking.bands": "equal_mass"},
        {"curriculum": "grow", "objective": "mlm"},
        {"curriculum": "left_to_right", "precision.frozen": "int8"},
    ],
)
def test_it_equals_what_kept_ends_say(tiny, place, change):
    run = sw.train(tiny.replace(**change), place)
    told = run.drift()
    kept = representation_drift(run, noisy_of(run), most=DRIFT_POSITIONS)
    assert told["stage"].unique().tolist() == [*range(1, len(run.stages()))]
    assert told[["exit", "stage", "since"]].equals(kept[["exit", "stage", "since"]])
    for column in ("drift", "kl"):  # the same numbers, read by the same functions
        assert told[column].tolist() == pytest.approx(kept[column].tolist(), abs=1e-9, nan_ok=True)
    if change["curriculum"] == "left_to_right" and "precision.frozen" not in change:
        still = told[(told["stage"] == 2) & told["exit"].isin(["embedding", "s0.0"])]
        assert (still["drift"] == 0.0).all()
    assert (told["kl"].dropna() > 0).all()


def test_it_goes_on_after_a_stop(tiny, place, tmp_path):
    exp = tiny.replace(curriculum="right_to_left")
    whole = sw.train(exp, place)

    def stop(work, numbers):
        if (work.at.stage, work.at.step) == (1, 1):
            work.stop_requested = True

    other = sw.Placement(runs_dir=str(tmp_path / "others"), device="cpu")
    parted = sw.train(exp, other, on_step=stop)
    assert parted.state == "stopped"
    assert parted.drift().empty
    parted = sw.resume(parted)
    assert parted.drift().equals(whole.drift())
    assert parted.statistics().equals(whole.statistics())
    assert parted.result()["probe_flops"] == whole.result()["probe_flops"]


def test_where_the_beginning_is_lost_it_is_said(tiny, place):
    def stop(work, numbers):
        if (work.at.stage, work.at.step) == (1, 1):
            work.stop_requested = True

    run = sw.train(tiny.replace(curriculum="right_to_left"), place, on_step=stop)
    (run.path / DRIFT_FILE).unlink()
    run = sw.resume(run)
    assert [event["stage"] for event in run.events("drift_unknown")] == [1]
    assert run.drift()["stage"].unique().tolist() == [2, 3]


def test_without_it_nothing_is_written(tiny, place):
    run = sw.train(tiny.replace(curriculum="right_to_left", **{"eval.drift": False}), place)
    assert run.drift().empty
    assert not (run.path / DRIFT_FILE).exists()


def test_what_it_takes_is_counted(tiny, place):
    exp = tiny.replace(curriculum="left_to_right")
    with open_work(create_run(exp, place)) as work:
        train_stage(work, 0, None)
        before = work.at.probe_flops
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            read_path(work, 0, 1)
        tokens = drift_windows(exp) * exp.data.seq_len
        exits, places = 1 + exp.rack.blocks_per_stack, min(DRIFT_POSITIONS, tokens)
        # A likeness is a dot product of P x P numbers, which torch counts as none.
        said = work.at.probe_flops - before - exits * 2 * places**2
        assert said == counter.get_total_flops()


def test_watched_blocks_change_no_number(tiny, place, tmp_path):
    other = sw.Placement(runs_dir=str(tmp_path / "others"), device="cpu")
    plain = tiny.replace(**{"eval.statistics": False, "eval.drift": False})
    for curriculum in ("right_to_left", "left_to_right"):
        watched = sw.train(tiny.replace(curriculum=curriculum), place)
        blind = sw.train(plain.replace(curriculum=curriculum), other)
        assert watched.metrics()["loss"].tolist() == blind.metrics()["loss"].tolist()
        assert watched.evals()["loss"].tolist() == blind.evals()["loss"].tolist()
        assert blind.statistics().empty
        for a, b in zip(watched.rack().parameters(), blind.rack().parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "how"),
    [
        ({"precision.frozen": "int8"}, {"trunk": "streamed"}),
        ({"eval.depths": "last"}, {"trunk": "cached"}),
        ({"curriculum": "right_to_left"}, {"trunk": "streamed"}),
        ({"precision": {"weights": "bfloat16", "compute": "bfloat16"}}, {}),
        ({"optim.grads": "in_backward", "optim.clip": None}, {}),
        ({"curriculum": {"name": "subnetwork", "lengths": (3, 4)}}, {}),
    ],
)
def test_blocks_of_every_kind_of_rack_are_watched(tiny, place, change, how):
    exp = tiny.replace(**{"curriculum": "left_to_right", **change})
    run = sw.train(exp, place.replace(**how))
    frame = run.statistics()
    last = frame[frame["step"] == frame["step"].max()].set_index("block")
    rest = ["s3.0"] if how.get("trunk") == "cached" else [f"s{i}.0" for i in range(4)]
    assert last.index[last["residual_rms"] > 0].drop("embedding", errors="ignore").tolist() == rest
    assert last.loc[rest, ["attention_rms", "ffn_rms", "dead_frac"]].notna().all(axis=None)
    trained = last[last["update_to_weight"].notna()]
    assert len(trained)
    assert (trained["grad_norm"] > 0).all()
    norms = run.metrics().iloc[-1]
    if "s3.0" in trained.index:
        assert trained.loc["s3.0", "grad_norm"] == norms["block_grad_norms"][3]
