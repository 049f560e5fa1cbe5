"""A stopped run goes on from another trunk source to the same last bit, and leaves no cache behind.

Another micro-batch adds in another order: held to the tolerance of
`test_placement_changes_no_number.py`.
"""

from __future__ import annotations

import numpy as np
import pytest

import stackwise as sw
from stackwise.training.start import create_run

NUMBERS = ["step", "loss", "grad_norm", "flops", "masked_frac"]
SOURCES = [
    {"trunk": "recompute"},
    {"trunk": "streamed", "stream_from": "disk"},
    {"trunk": "cached"},
    {"trunk": "recompute"},
    {"trunk": "streamed", "stream_from": "host"},
]
SCIENCE = {
    "left_to_right": {"curriculum": "left_to_right", "data": {"restart": True}},
    "left_to_right, packed": {"curriculum": "left_to_right", "precision": {"frozen": "nf4"}},
    "cycling, packed": {
        "curriculum": {"name": "block_coordinate", "optimizer_state": "keep"},
        "precision": {"frozen": "int8", "master": "fp32"},
    },
}


def stop_after(steps: int):
    """A callback that asks to stop after so many steps of this attempt."""
    seen = []

    def on_step(work, numbers):
        seen.append(numbers.loss)
        work.stop_requested = len(seen) == steps

    return on_step


@pytest.mark.parametrize("name", SCIENCE)
def test_to_the_same_weights(tiny, place, name) -> None:
    exp = tiny.replace(**SCIENCE[name])
    whole, run = sw.train(exp, place), create_run(exp, place, rerun=True)
    for number in range(100):
        sw.resume(run, placement=SOURCES[number % len(SOURCES)], on_step=stop_after(3))
        if run.state == "finished":
            break
    changed = [event["changed"] for event in run.events("placement_changed")]
    assert {"trunk": ["cached", "recompute"]} in changed
    assert run.weights_hash() == whole.weights_hash()
    assert run.metrics()[NUMBERS].equals(whole.metrics()[NUMBERS])
    assert not (run.path / "cache").exists()


@pytest.mark.parametrize("trunk", ["streamed", "cached"])
def test_with_another_micro_batch_to_the_same_losses(tiny, place, trunk) -> None:
    exp = tiny.replace(curriculum="left_to_right")
    whole, run = sw.train(exp, place), create_run(exp, place.replace(trunk=trunk), rerun=True)
    for micro in (None, 1, 2):
        sw.resume(run, placement={"micro_batch": micro}, on_step=stop_after(6))
    assert run.state == "finished"
    np.testing.assert_allclose(run.metrics()["loss"], whole.metrics()["loss"], rtol=1e-4)


def test_keys_that_are_not_read_any_more_are_emptied_and_caches_go(tiny, place, tmp_path) -> None:
    exp = tiny.replace(curriculum="left_to_right")
    cached = place.replace(trunk="cached", cache_dir=str(tmp_path / "there"), cache_gb=1)
    run = sw.train(exp, cached, on_step=stop_after(8))
    assert [*(tmp_path / "there").rglob("rows-*.bin")]
    sw.resume(run, placement={"trunk": "recompute"}, on_step=stop_after(1))
    assert not [*(tmp_path / "there").rglob("*.bin")]
    found = sw.Placement.load(run.path / "placement.yaml")
    assert (found.trunk, found.cache_dir, found.cache_gb) == ("recompute", None, None)
    (event,) = run.events("placement_changed")
    assert set(event["changed"]) == {"trunk", "cache_dir", "cache_gb"}


REFUSED = {
    "a budget that is too small": (
        {"trunk": "cached", "cache_gb": 1e-6},
        "which the outputs of the trunk take by arithmetic; raise it, or use trunk=streamed",
    ),
    "a folder that is a file": (
        {"trunk": "cached", "cache_dir": "FILE"},
        "placement.cache_dir: FILE is a file; name a folder",
    ),
    "a folder that is not read": (
        {"cache_dir": "FILE"},
        "placement.cache_dir: '../../FILE' is not read with trunk=recompute; leave it empty",
    ),
}


def test_a_move_to_a_cache_under_an_embedding_that_trains_is_refused(tiny, place) -> None:
    exp = tiny.replace(curriculum={"name": "left_to_right", "embedding": "always"})
    run = sw.train(exp, place, on_step=stop_after(6))
    with pytest.raises(sw.ExperimentError) as caught:
        sw.resume(run, placement={"trunk": "cached"})
    assert str(caught.value) == (
        "placement.trunk: cached, but stages 1 (s1), 2 (s2), 3 (s3) train the embedding under "
        "frozen stacks, whose outputs change with it; use trunk=recompute or streamed"
    )
    assert len(run.metrics()) == 6


@pytest.mark.parametrize("case", REFUSED)
def test_a_move_that_cannot_be_is_refused(tiny, place, case, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    change, text = REFUSED[case]
    exp = tiny.replace(curriculum="left_to_right")
    run = sw.train(exp, place, on_step=stop_after(6))
    with pytest.raises(sw.ExperimentError) as caught:
        sw.resume(run, placement=change)
    assert text in str(caught.value).replace(f"{run.path}/../../", "")
    assert sw.Placement.load(run.path / "placement.yaml").trunk == "recompute"
    assert run.state == "stopped"
