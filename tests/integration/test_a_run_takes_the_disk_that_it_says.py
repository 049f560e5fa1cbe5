"""What is asked of the disk before a run is what the run takes of it at its worst moment.

That moment is when a checkpoint is whole and the one before it is still there.
"""

from __future__ import annotations

import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.memory.disk import cache_bytes, checkpoint_bytes
from stackwise.report import bytes_text
from stackwise.stage import trunk_of
from stackwise.training import caching, checkpoint, placing
from stackwise.training.kept_stages import kept_stages
from stackwise.training.start import create_run

BF16 = {"weights": "bfloat16", "compute": "bfloat16"}
KEPT = {"name": "block_coordinate", "optimizer_state": "keep"}
LEAN = {"name": "lion8bit", "ema": None}
CASES = {
    "left to right, nf4": {
        "curriculum": "left_to_right",
        "precision": {"frozen": "nf4", "master": "fp32"},
    },
    "left to right, lean": {
        "curriculum": "left_to_right",
        "optim": LEAN,
        "precision": {**BF16, "rounding": "stochastic", "frozen": "nf4", "master": "fp32"},
    },
    "cycling": {
        "curriculum": {"name": "block_coordinate"},
        "precision": {"frozen": "nf4", "master": "bf16"},
    },
    "cycling, moments kept": {"curriculum": KEPT},
    "adapters": {"curriculum": "right_to_left", "adapters": "suffix"},
    "adapters that are merged, nf4": {
        "curriculum": KEPT,
        "adapters": {"on": "both", "targets": "ffn"},
        "precision": {"frozen": "nf4", "master": "bf16"},
    },
    "held to the rack before": {
        "curriculum": {"name": "grow"},
        "preserve": {"distill": 1.0},
    },
    "adapters, held to the rack before": {
        "curriculum": "right_to_left",
        "adapters": "suffix",
        "preserve": {"distill": 1.0},
    },
    "end to end": {"curriculum": "end_to_end"},
    "end to end, bfloat16": {"curriculum": "end_to_end", "precision": BF16},
}


def bytes_in(*folders: Path) -> int:
    """Of all files; one with two names counts once."""
    found = [path.stat() for folder in folders for path in folder.rglob("*.*")]
    return sum({stat.st_ino: stat.st_size for stat in found}.values())


@pytest.fixture
def place(place) -> sw.Placement:
    """Without the ends of stages, but where a test says otherwise."""
    return place.replace(keep_stages=False)


@pytest.fixture
def wide(tiny) -> sw.Experiment:
    """Wide enough that names and counters are little beside weights."""
    budget = {"tokens": 2 * tiny.budget.tokens}  # checkpoints that replace each other in a stage
    return tiny.replace(rack={"d_model": 64}, eval={"points": 16}, budget=budget)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_of_checkpoints(wide, place, monkeypatch, case, kept) -> None:
    exp, seen = wide.replace(**CASES[case]), list[int]()
    place = place.replace(checkpoint_seconds=1e-9, keep_stages=kept)
    run = create_run(exp, place)
    stale = checkpoint._remove_stale

    def noted(folder, entries) -> None:
        drift = sum(path.stat().st_size for path in run.path.glob("drift.*"))
        folders = ("rack", "state", "best", "stages")
        seen.append(drift + bytes_in(*(run.path / name for name in folders)))
        stale(folder, entries)

    monkeypatch.setattr(checkpoint, "_remove_stale", noted)
    sw.train(exp, place)
    said = checkpoint_bytes(exp, sw.stages(exp), kept=kept)
    assert max(seen) <= said <= 1.3 * max(seen), max(seen) / said


def noting(run: sw.Run, monkeypatch) -> list[int]:
    """What the checkpoints of a run take, each time before an older one goes."""
    seen, stale = list[int](), checkpoint._remove_stale

    def noted(folder, entries) -> None:
        drift = sum(path.stat().st_size for path in run.path.glob("drift.*"))
        seen.append(
            drift
            + bytes_in(*(run.path / name for name in ("rack", "state", *placing.KEPT, "best")))
        )
        stale(folder, entries)

    monkeypatch.setattr(checkpoint, "_remove_stale", noted)
    return seen


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("case", ["left to right, nf4", "cycling, moments kept", "end to end"])
def test_of_earlier_checkpoints_and_more_than_one_best(
    wide, place, monkeypatch, case, kept
) -> None:
    exp = wide.replace(**CASES[case])
    place = place.replace(checkpoint_seconds=1e-9, keep_stages=kept, keep_last=4, keep_best=3)
    run = create_run(exp, place)
    seen = noting(run, monkeypatch)
    sw.train(exp, place)
    assert len({found.step for found in run.checkpoints() if found.kind != "stage"}) == 4
    said = checkpoint_bytes(exp, sw.stages(exp), kept=kept, last=4, bests=3)
    assert max(seen) <= said <= 1.3 * max(seen), max(seen) / said


def test_of_no_best_at_all(wide, place, monkeypatch) -> None:
    place = place.replace(checkpoint_seconds=1e-9, keep_best=0)
    run = create_run(wide, place)
    seen = noting(run, monkeypatch)
    sw.train(wide, place)
    said = checkpoint_bytes(wide, sw.stages(wide), bests=0)
    assert max(seen) <= said <= 1.3 * max(seen), max(seen) / said


CACHED = {
    "each made from the last": {"curriculum": "left_to_right", "data": {"restart": True}},
    # As s0 trains again it has no trunk, and the cache of the stage before stays.
    "one that waits for the next": {"curriculum": "block_coordinate", "rack": {"stacks": 2}},
}


@pytest.mark.parametrize("case", CACHED)
def test_of_cached_outputs(tiny, place, monkeypatch, case) -> None:
    exp, place = tiny.replace(**CACHED[case]), place.replace(trunk="cached")
    seen, held = list[int](), caching.bytes_held

    def noted(folder: Path) -> int:
        seen.append(bytes_in(folder.parent))
        return held(folder)

    monkeypatch.setattr(caching, "bytes_held", noted)
    sw.train(exp, place)
    said = cache_bytes(exp, place, sw.stages(exp), 10**9)
    assert len(seen) == sum(map(bool, map(trunk_of, sw.stages(exp))))
    assert max(seen) <= said <= 1.3 * max(seen), max(seen) / said


Disk = namedtuple("Disk", "total used free")


def refusal(exp, place, monkeypatch, free: int) -> str:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(10**12, 0, free))
    with pytest.raises(ExperimentError) as error:
        create_run(exp, place)
    assert not Path(place.runs_dir).exists()
    return str(error.value)


def test_too_little_disk_is_refused_before_anything_is_made(tiny, place, monkeypatch) -> None:
    exp, place = tiny.replace(curriculum="left_to_right"), place.replace(trunk="cached")
    checkpoints = checkpoint_bytes(exp, sw.stages(exp))
    caches = cache_bytes(exp, place, sw.stages(exp), 10**9)
    assert refusal(exp, place, monkeypatch, 300_000) == (
        f"placement.runs_dir: {place.runs_dir} has 293.0 KiB free, and the run takes "
        f"{bytes_text(checkpoints + caches)} there by arithmetic (checkpoints "
        f"{bytes_text(checkpoints)}, cached outputs {bytes_text(caches)}); make room, or name "
        "another folder"
    )
    refusal(exp, place, monkeypatch, checkpoints + caches - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(10**12, 0, checkpoints + caches))
    create_run(exp, place)


def test_two_disks_are_asked_each_for_its_own(tiny, place, tmp_path, monkeypatch) -> None:
    """A byte too few on either one, though the other has room for both."""
    exp = tiny.replace(curriculum="left_to_right")
    runs_dir, caches_dir = Path(place.runs_dir), tmp_path / "caches"
    place = place.replace(trunk="cached", cache_dir=str(caches_dir))
    need = {
        runs_dir: checkpoint_bytes(exp, sw.stages(exp)),
        caches_dir: cache_bytes(exp, place, sw.stages(exp), 10**9),
    }
    for folder in need:
        folder.mkdir()
    monkeypatch.setattr(placing, "same_disk", lambda one, other: False)
    for full, key in ((runs_dir, "runs_dir"), (caches_dir, "cache_dir")):
        free = {folder: need[folder] - 1 if folder == full else 10**9 for folder in need}
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Disk(0, 0, free[path]))
        with pytest.raises(ExperimentError) as error:
            create_run(exp, place)
        assert str(error.value).startswith(
            f"placement.{key}: {full} has {bytes_text(free[full])} free, and the run takes "
            f"{bytes_text(need[full])} there by arithmetic ("
        )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(0, 0, need[path]))
    create_run(exp, place)


def test_a_rerun_takes_its_room_beside_the_run_that_is_there(tiny, place, monkeypatch) -> None:
    sw.train(tiny, place)
    need = checkpoint_bytes(tiny, sw.stages(tiny))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(10**12, 0, need - 1))
    create_run(tiny, place)  # the one that is there, whose own files count
    with pytest.raises(ExperimentError, match=r"^placement.runs_dir: "):
        create_run(tiny, place, rerun=True)
    assert len(list(Path(place.runs_dir).iterdir())) == 1


def test_so_are_caches_over_their_budget(tiny, place, monkeypatch) -> None:
    exp = tiny.replace(curriculum="left_to_right")
    place = place.replace(trunk="cached", cache_gb=1e-6)
    assert refusal(exp, place, monkeypatch, 10**12) == (
        "placement.cache_gb: 1e-06 < 4.16e-05, which the outputs of the trunk take by arithmetic; "
        "raise it, lower budget, or use trunk=streamed"
    )
    create_run(exp, place.replace(cache_gb=1.0))


@pytest.mark.parametrize("tokens", [1024, 1088, 2496, 12_800, 40_960])
def test_the_figure_of_a_budget_is_enough_as_it_is_printed(tiny, place, tokens) -> None:
    exp = tiny.replace(curriculum="left_to_right", budget={"tokens": tokens})
    place = place.replace(trunk="cached", cache_gb=1e-6)
    with pytest.raises(ExperimentError) as error:
        create_run(exp, place)
    figure = float(re.search(r" < (\S+), which", str(error.value))[1])
    need = cache_bytes(exp, place, sw.stages(exp), 10**9)
    assert need <= figure * 1e9 <= 1.01 * need
    assert create_run(exp, place.replace(cache_gb=figure)).state == "made"


def test_samples_that_repeat_are_a_way_out_where_more_than_an_epoch_is_read(tiny, place) -> None:
    exp = tiny.replace(curriculum="left_to_right", budget={"tokens": 1_000_000})
    place = place.replace(trunk="cached", cache_gb=1e-6)
    ways = " take by arithmetic; raise it, lower budget, give data.distinct_epochs=1, or use "
    with pytest.raises(ExperimentError, match=ways):
        create_run(exp, place)
    once = exp.replace(data={"distinct_epochs": 1})
    mlm = exp.replace(objective="mlm", masking={"schedule": "ramp"})  # with it rows never repeat
    for other in (once, mlm):
        with pytest.raises(ExperimentError, match="; raise it, lower budget, or use trunk=str"):
            create_run(other, place)


EVEN = {"name": "left_to_right", "split": "tokens"}


def stopped(exp, place, step: int) -> sw.Run:
    """A run that has been stopped; it has four steps in each of four stages."""

    def on_step(work, numbers) -> None:
        work.stop_requested = work.at.total_steps == step

    return sw.train(exp, place, on_step=on_step)


def files_of(run: sw.Run) -> int:
    return sum(path.stat().st_size for path in run.path.rglob("*.safetensors"))


@pytest.mark.parametrize("step", [2, 6, 8, 14])  # 8 is a border
@pytest.mark.parametrize("trunk", ["recompute", "cached"])
def test_a_run_that_goes_on_asks_for_what_is_left(tiny, place, monkeypatch, trunk, step) -> None:
    """What is there counts; a byte less is refused, before a step, and the run stays as it is."""
    exp, place = tiny.replace(curriculum=EVEN), place.replace(trunk=trunk)
    run, made = stopped(exp, place, step), sw.stages(exp)
    stage = step // 4
    kept = checkpoint_bytes(exp, made, since=stage)
    older = bytes_in(run.path / "cache" / str(stage - 1))  # at a border it is still there
    caches = cache_bytes(exp, place, made, 10**9, since=stage, lingering=older)
    held = files_of(run) + bytes_in(run.path / "cache")
    done, need = len(run.metrics()), kept + caches - held
    assert held > 0 and need > 0
    for free in (1000, need - 1):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Disk(0, 0, free))
        with pytest.raises(ExperimentError) as error:
            sw.resume(run)
        assert str(error.value) == (
            f"placement.runs_dir: {place.runs_dir} has {bytes_text(free)} free, and the run takes "
            f"{bytes_text(kept + caches)} there by arithmetic (checkpoints {bytes_text(kept)}, "
            f"cached outputs {bytes_text(caches)}; {bytes_text(held)} of it is there); make room, "
            "or name another folder"
        )
        assert (run.state, len(run.metrics())) == ("stopped", done)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(0, 0, need))
    assert sw.resume(run).state == "finished"


def test_what_is_left_of_a_run_is_what_it_still_takes(wide, place, monkeypatch) -> None:
    """From the third of four stages on, moments of a rack that grows no more."""
    exp = wide.replace(curriculum=EVEN)
    run = stopped(exp, place.replace(checkpoint_seconds=1e-9), step=20)
    seen, stale = list[int](), checkpoint._remove_stale

    def noted(folder, entries) -> None:
        seen.append(bytes_in(*(run.path / name for name in ("rack", "state", "best"))))
        stale(folder, entries)

    monkeypatch.setattr(checkpoint, "_remove_stale", noted)
    sw.resume(run)
    said = checkpoint_bytes(exp, sw.stages(exp), since=2)
    assert max(seen) <= said <= 1.3 * max(seen), max(seen) / said


def test_caches_that_go_as_a_run_moves_count_as_room(tiny, place, tmp_path, monkeypatch) -> None:
    exp, place = tiny.replace(curriculum=EVEN), place.replace(trunk="cached")
    run, made = stopped(exp, place, step=6), sw.stages(exp)
    caches = cache_bytes(exp, place, made, 10**9, since=1)
    need = checkpoint_bytes(exp, made, since=1) + caches
    held = files_of(run) + bytes_in(run.path / "cache")
    moved = {"cache_dir": str(tmp_path / "there")}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(0, 0, need - held - 1))
    with pytest.raises(ExperimentError, match=r"^placement\.runs_dir: "):
        sw.resume(run, placement=moved)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(0, 0, need - held))
    assert sw.resume(run, placement=moved).state == "finished"


def test_a_finished_run_asks_for_nothing(tiny, place, monkeypatch) -> None:
    run = sw.train(tiny, place)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(0, 0, 0))
    assert sw.train(tiny, place).id == sw.resume(run).id == run.id


def test_a_late_fork_does_not_take_what_the_run_before_it_kept(wide, place, monkeypatch) -> None:
    exp = wide.replace(curriculum={"name": "block_coordinate", "cycles": 2})
    whole = sw.train(exp, place.replace(checkpoint_seconds=1e-9, keep_stages=True))
    made = sw.stages(exp)
    fork = whole.fork(after_stage=len(made) - 3, optim={"lr": 1e-3}, launch=False)
    since = fork.stages_done()
    assert kept_stages(fork.path) == []
    seen = noting(fork, monkeypatch)
    asked: list[int] = []
    monkeypatch.setattr(
        placing,
        "checkpoint_bytes",
        lambda *a, **k: asked.append(checkpoint_bytes(*a, **k)) or asked[-1],
    )
    sw.resume(fork)
    assert kept_stages(fork.path) == [since - 1, since, since + 1]
    (said,) = asked
    assert max(seen) <= said <= 1.3 * max(seen), max(seen) / said
    assert said < checkpoint_bytes(exp, made, since=since, kept=True)


def test_ends_that_were_kept_before_are_there(wide) -> None:
    """Also where no more are kept from here on; all that could be are those of a new run."""
    exp = wide.replace(curriculum={"name": "block_coordinate", "cycles": 2})
    made = sw.stages(exp)
    figures = [
        checkpoint_bytes(exp, made, since=4, kept=kept, ends=ends)
        for kept, ends in ((False, []), (False, [1]), (False, range(4)), (True, range(4)))
    ]
    assert figures == sorted(set(figures))
    assert figures[0] == checkpoint_bytes(exp, made, since=4)
    assert figures[-1] == checkpoint_bytes(exp, made, since=4, kept=True)
