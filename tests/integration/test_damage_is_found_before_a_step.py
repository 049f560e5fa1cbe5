"""Files of a stopped run that are cut, altered or of another run are named and never trained on.

Of a cache only the damaged shard is made again, and the losses are those of an untouched run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.report import program
from stackwise.runs import RunError
from stackwise.seals import sealed
from stackwise.training import caching, manifest
from stackwise.training.manifest import CheckpointError
from stackwise.trunk.cache import TrunkCache

RESTORE = "restore it from a copy of the run, or train again (rerun=True, --rerun)"
NUMBERS = ["loss", "grad_norm", "flops", "masked_frac"]


def stopped(exp: sw.Experiment, place: sw.Placement, step: int = 6) -> sw.Run:
    """A run that has been stopped in its second stage; it has four steps in each."""

    def on_step(work, numbers):
        work.stop_requested = work.at.total_steps == step

    return sw.train(exp, place, on_step=on_step, rerun=True)


def offer(run: sw.Run, stage: int) -> str:
    """What a run says that has the end of a stage, where going back to it would not help."""
    return (
        f". Or go on from the end of stage {stage}, which is kept: {program()} fork {run.path} "
        f"{stage}, or run.fork(after_stage={stage})"
    )


def back(run: sw.Run, step: int) -> str:
    """What a run says that has a whole checkpoint before the damaged one."""
    return (
        f". Or go back to the checkpoint of step {step}, which is whole: {program()} resume "
        f"{run.path} --from {step}, or sw.resume(run, checkpoint={step})"
    )


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def alter(path: Path) -> None:
    """Flip one bit near the end: in a number, not in a header."""
    bytes_ = bytearray(path.read_bytes())
    bytes_[-3] ^= 1
    path.write_bytes(bytes_)


def lose(path: Path) -> None:
    path.unlink()


def manifest_of(run: sw.Run) -> dict:
    return json.loads((run.path / "rack" / "manifest.json").read_text())


def file_of(run: sw.Run, part: str) -> Path:
    """The file of a part of the last checkpoint."""
    entry = manifest_of(run)["parts"][part]
    return run.path / ("state" if "." in part else "rack") / entry["file"]


@pytest.fixture
def exp(tiny) -> sw.Experiment:
    """Four stages of four steps, whose stacks are all there from the start."""
    curriculum = {"name": "block_coordinate", "cycles": 1, "optimizer_state": "keep"}
    return tiny.replace(curriculum=curriculum, precision={"frozen": "nf4", "master": "bf16"})


PARTS = {"embedding", "s0", "s1", "s2", "s2.master", "s1.optimizer", "s1.average", "head"}


@pytest.mark.parametrize("trunk", ["recompute", "streamed"])
@pytest.mark.parametrize("damage", [cut, alter, lose])
def test_of_a_checkpoint(exp, place, damage, trunk) -> None:
    """Every part that the manifest lists, whether this stage reads it or a later one."""
    run = stopped(exp, place.replace(trunk=trunk))
    done, parts = len(run.metrics()), manifest_of(run)["parts"]
    assert parts.keys() >= PARTS
    for part in parts:
        path = file_of(run, part)
        whole, shared = path.read_bytes(), path.stat().st_nlink > 1  # with the end of stage 0
        damage(path)
        with pytest.raises(CheckpointError) as caught:
            sw.resume(run)
        what = "missing" if damage is lose else "not what was written (its bytes or hash differ)"
        way_back = "" if shared and damage is not lose else back(run, 4)
        assert (
            str(caught.value) == f"{path.parent.name}/{path.name}: is {what}; {RESTORE}{way_back}"
        )
        assert len(run.metrics()) == done, "no step is trained on it"
        path.write_bytes(whole)
    sw.resume(run)
    assert run.state == "finished"


@pytest.mark.parametrize("damage", [cut, alter])
def test_of_moments_that_a_later_stage_goes_on_from(tiny, place, damage) -> None:
    """At the first border s0 is frozen, and trains again in the third cycle's stage."""
    run = stopped(
        tiny.replace(curriculum={"name": "block_coordinate", "optimizer_state": "keep"}), place
    )
    parts = [part for part in manifest_of(run)["parts"] if part.endswith(".optimizer")]
    for part in parts:
        path = file_of(run, part)
        whole = path.read_bytes()
        damage(path)
        with pytest.raises(CheckpointError, match=f"^state/{path.name}: is not what was written"):
            sw.resume(run)
        path.write_bytes(whole)
    assert len(parts) > 1


def test_no_file_is_hashed_twice_in_the_middle_of_a_stage(exp, place, monkeypatch) -> None:
    """But those of a stack with a master, of which a stage takes one or the other."""
    run, hashed = stopped(exp, place), []
    whole = manifest.sha256_of
    monkeypatch.setattr(manifest, "sha256_of", lambda path: hashed.append(path) or whole(path))

    def stop(work, numbers):
        raise KeyboardInterrupt

    parts = manifest_of(run)["parts"]
    files = {part: file_of(run, part) for part in parts}
    with pytest.raises(KeyboardInterrupt):
        sw.resume(run, on_step=stop)
    for part, path in files.items():
        both = f"{part}.master" in parts or part.endswith(".master")
        assert hashed.count(path) in ((1, 2) if both else (1,)), part


@pytest.mark.parametrize("damage", [cut, alter])
def test_of_a_master_that_a_stack_comes_back_from(exp, place, damage) -> None:
    run = stopped(exp, place, step=8)  # at the border: next trains s2
    path = file_of(run, "s2.master")
    damage(path)
    with pytest.raises(CheckpointError, match=f"^state/{path.name}: is not what was written"):
        sw.resume(run)


EDITS = {
    "a counter": lambda m: {**m, "counters": {**m["counters"], "stage": 99}},
    "no counter": lambda m: {**m, "counters": {**m["counters"], "stage": "two"}},
    "an unknown counter": lambda m: {**m, "counters": {**m["counters"], "luck": 1}},
    "without counters": lambda m: {k: v for k, v in m.items() if k != "counters"},
    "without moments": lambda m: {**m, "parts": without(m["parts"], "s1.optimizer")},
    "without a part": lambda m: {**m, "parts": without(m["parts"], "s0")},
    "a format": lambda m: {**m, "parts": {**m["parts"], "s0": {**m["parts"]["s0"], "format": 4}}},
    "without its hash": lambda m: {k: v for k, v in m.items() if k != "sha256"},
}


def without(parts: dict, name: str) -> dict:
    return {key: value for key, value in parts.items() if key != name}


def test_of_a_manifest_that_was_edited(exp, place) -> None:
    run = stopped(exp, place)
    path, whole = run.path / "rack" / "manifest.json", manifest_of(run)
    for edit in EDITS.values():
        path.write_text(json.dumps(edit(whole)))
        for use in (sw.resume, sw.Run.rack):
            with pytest.raises(CheckpointError) as caught:
                use(run)
            assert str(caught.value) == (
                "rack/manifest.json: is not what was written (its hash is missing or differs); "
                f"{RESTORE}{back(run, 4) if use is sw.resume else ''}"
            )
    path.write_text(json.dumps(whole, indent=3))  # the same content
    assert sw.resume(run).state == "finished"


def take(run: sw.Run, other: sw.Run) -> None:
    """Put the checkpoints of another run in the place of a run's own."""
    for name in ("rack", "state", "best"):
        shutil.rmtree(run.path / name, ignore_errors=True)
        if (other.path / name).exists():
            shutil.copytree(other.path / name, run.path / name)


def test_a_checkpoint_of_another_text(tiny, place, tmp_path) -> None:
    """The experiment's hash is the same: it names the file."""
    runs = []
    for seed in range(2):
        text = tmp_path / f"{seed}" / "c.txt"
        text.parent.mkdir()
        text.write_text(f"in the {seed} beginning, " * 2000)
        exp = tiny.replace(data={"corpus": f"text:{text}"})
        runs.append(stopped(exp, place, step=14))
    run, other = runs
    assert run.experiment.hash == other.experiment.hash
    take(run, other)
    mine, theirs = (each.provenance()["data"]["fingerprint"][:12] for each in runs)
    assert mine != theirs
    for use in (sw.resume, sw.Run.rack):
        with pytest.raises(CheckpointError) as caught:
            use(run)
        assert str(caught.value) == (
            f"rack/manifest.json: is of data {theirs}, and run {run.id} is of {mine}; {RESTORE}"
        )


def test_the_best_weights_of_another_run(exp, place) -> None:
    whole = sw.train(exp, place)
    run, other = stopped(exp, place, step=14), sw.train(exp.replace(seed=1), place)
    shutil.rmtree(run.path / "best", ignore_errors=True)
    shutil.copytree(other.path / "best", run.path / "best")
    for use in (sw.resume, lambda run: run.rack(best=True)):
        with pytest.raises(CheckpointError) as caught:
            use(run)
        assert str(caught.value) == (
            f"best/manifest.json: is of experiment {other.experiment.hash}, and run {run.id} is of "
            f"{run.experiment.hash}; {RESTORE}{offer(run, 2) if use is sw.resume else ''}"
        )
    shutil.rmtree(run.path / "best")
    shutil.copytree(whole.path / "rack", run.path / "best")
    with pytest.raises(CheckpointError) as caught:
        run.rack(best=True)
    assert str(caught.value) == (
        f"best/manifest.json: holds no loss, so it is not that of best/; {RESTORE}"
    )


@pytest.mark.parametrize("name", ["experiment.yaml", "stages.json"])
def test_what_is_carried_out_is_not_changed_under_a_checkpoint(tiny, place, name) -> None:
    run = stopped(tiny, place)
    path = run.path / name
    whole, changed = path.read_text(), path.read_text().replace("0.01", "0.02") + "\n"
    path.write_text(changed)
    was, now = (hashlib.sha256(text.encode()).hexdigest()[:12] for text in (whole, changed))
    way_out = RESTORE.replace("restore it", f"restore {name}")
    said = {
        "experiment.yaml": f"run {run.id}: experiment.yaml is not the one that was written when "
        f"the run was made (its hash differs); {way_out}",
        "stages.json": f"run {run.id}: stages.json is not the one that rack/manifest.json was "
        f"written with ({now}, was {was}); {way_out}",
    }
    for use in (sw.resume, sw.Run.rack):
        with pytest.raises((RunError, CheckpointError)) as caught:
            use(sw.Run(run.path))
        assert str(caught.value) == said[name]
    path.write_text(whole)
    assert sw.resume(sw.Run(run.path)).state == "finished"


def test_a_run_may_be_renamed_and_copied(exp, place, tmp_path) -> None:
    run = stopped(exp, place)
    copy = sw.Run(shutil.copytree(run.path, run.path.with_name("called otherwise")))
    assert sw.resume(copy).state == sw.resume(run).state == "finished"
    assert copy.weights_hash() == run.weights_hash()


def test_a_checkpoint_without_a_run(exp, place) -> None:
    """As one of a model folder is."""
    run = stopped(exp, place)
    manifest = {key: value for key, value in manifest_of(run).items() if key != "run"}
    (run.path / "rack" / "manifest.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(CheckpointError) as caught:
        sw.resume(run)
    assert str(caught.value) == (
        f"rack/manifest.json: is of experiment none, and run {run.id} is of "
        f"{run.experiment.hash}; {RESTORE}{back(run, 4)}"
    )


def test_of_provenance(exp, place) -> None:
    run = stopped(exp, place)
    (run.path / "provenance.json").write_text('{"data": 5}')
    with pytest.raises(RunError, match=r"provenance\.json is damaged; restore it"):
        run.rack()


def test_a_manifest_of_another_experiment(exp, place) -> None:
    run, other = stopped(exp, place), stopped(exp.replace(seed=1), place)
    manifest = "rack/manifest.json"
    (run.path / manifest).write_bytes((other.path / manifest).read_bytes())
    for use in (sw.resume, sw.Run.rack):
        with pytest.raises(CheckpointError) as caught:
            use(run)
        assert str(caught.value) == (
            f"{manifest}: is of experiment {other.experiment.hash}, and run {run.id} is of "
            f"{run.experiment.hash}; {RESTORE}{back(run, 4) if use is sw.resume else ''}"
        )


@pytest.mark.parametrize("damage", [cut, alter])
def test_of_a_cache_that_is_being_read(tiny, place, damage) -> None:
    exp = tiny.replace(curriculum={"name": "left_to_right", "split": "tokens"})
    whole = sw.train(exp, place)
    run = stopped(exp, place.replace(trunk="cached"))
    (shard,) = (run.path / "cache" / "1").glob("rows-*.bin")
    damage(shard)
    sw.resume(run)
    assert run.metrics()[NUMBERS].equals(whole.metrics()[NUMBERS])
    assert run.weights_hash() == whole.weights_hash()
    if damage is alter:
        (event,) = run.events("cache_mended")
        assert event["stage"] == 1 and event["same_rows"] is True
        assert event["why"] == (
            f"1/{shard.name}: is not what was written (its hash differs); its rows 0 to 15 must "
            "be made again: rebuild shard 0"
        )
    else:
        filled = run.events("cache_filled")
        assert [event["stage"] for event in filled] == [1, 1, 2, 3]
        why = f"1/{shard.name}: is missing or cut"
        assert [event.get("why") for event in filled] == [None, why, None, None]


CACHE_FILES = {
    "rows-000000.bin, lost": ("rows-000000.bin", None, "is missing or cut"),
    "rows-000000.bin, empty": ("rows-000000.bin", b"", "is missing or cut"),
    "cache.json, damaged": ("cache.json", b"{", "is damaged"),
    "cache.json, lost": ("cache.json", None, "is missing"),
}


@pytest.mark.parametrize("case", CACHE_FILES)
def test_why_a_cache_is_filled_again_is_said(tiny, place, case) -> None:
    exp = tiny.replace(curriculum={"name": "left_to_right", "split": "tokens"})
    run = stopped(exp, place.replace(trunk="cached"))
    name, content, why = CACHE_FILES[case]
    file = run.path / "cache" / "1" / name
    file.unlink() if content is None else file.write_bytes(content)
    sw.resume(run)
    said = [event.get("why") for event in run.events("cache_filled")]
    assert said == [None, f"1/{name}: {why}", None, None]


def test_rows_that_come_out_otherwise_are_said(tiny, place, monkeypatch) -> None:
    """As on another machine."""
    exp = tiny.replace(curriculum={"name": "left_to_right", "split": "tokens"})
    run = stopped(exp, place.replace(trunk="cached"))
    (shard,) = (run.path / "cache" / "1").glob("rows-*.bin")
    alter(shard)
    outputs = caching.outputs

    def otherwise(*asked):
        return ((row, x_BTD * (1 + 2**-20)) for row, x_BTD in outputs(*asked))

    monkeypatch.setattr(caching, "outputs", otherwise)
    sw.resume(run)
    (event,) = run.events("cache_mended")
    assert event["same_rows"] is False


def test_of_a_later_shard_of_a_cache(tiny, place, monkeypatch) -> None:
    """Made again from its own rows, and not from the first ones."""
    layout = caching.layout_of
    monkeypatch.setattr(caching, "layout_of", lambda *given: replace(layout(*given), shard_bytes=1))
    exp = tiny.replace(curriculum={"name": "left_to_right", "split": "tokens"})
    run = stopped(exp, place.replace(trunk="cached"))
    alter(run.path / "cache" / "1" / "rows-000003.bin")
    sw.resume(run)
    (event,) = run.events("cache_mended")
    assert "its rows 12 to 15 must be made again" in event["why"]
    assert run.metrics()[NUMBERS].equals(sw.train(exp, place, rerun=True).metrics()[NUMBERS])


def test_of_a_cache_on_a_disk_that_does_not_keep_it(tiny, place, monkeypatch) -> None:
    exp = tiny.replace(curriculum={"name": "left_to_right", "split": "tokens"})
    run = stopped(exp, place.replace(trunk="cached"))
    (shard,) = (run.path / "cache" / "1").glob("rows-*.bin")
    rebuild = TrunkCache.rebuild

    def rebuild_and_lose(cache, number, rows):
        rebuild(cache, number, rows)
        alter(shard)

    monkeypatch.setattr(TrunkCache, "rebuild", rebuild_and_lose)
    alter(shard)
    done = len(run.metrics())
    with pytest.raises(CheckpointError, match="3 times: the disk does not keep what is written"):
        sw.resume(run)
    assert len(run.events("cache_mended")) == 3
    assert len(run.metrics()) == done
    monkeypatch.undo()
    sw.resume(run, placement={"trunk": "streamed"})
    assert run.weights_hash() == sw.train(exp, place, rerun=True).weights_hash()


def test_of_a_cache_from_which_the_next_is_made(tiny, place) -> None:
    exp = tiny.replace(
        curriculum={"name": "left_to_right", "split": "tokens"}, data={"restart": True}
    )
    whole = sw.train(exp, place)
    run = stopped(exp, place.replace(trunk="cached"), step=8)  # at the border to the third
    (shard,) = (run.path / "cache" / "1").glob("rows-*.bin")
    alter(shard)
    sw.resume(run)
    assert [event["stage"] for event in run.events("cache_mended")] == [1]
    assert [event["from_stage"] for event in run.events("cache_filled")] == [None, 1, 2]
    assert run.metrics()[NUMBERS].equals(whole.metrics()[NUMBERS])


@pytest.mark.parametrize("trunk", ["streamed", "cached"])
def test_of_a_cache_manifest(tiny, place, trunk) -> None:
    """A cache whose manifest says nothing sensible is made again; streaming does not look at it."""
    exp = tiny.replace(curriculum={"name": "left_to_right", "split": "tokens"})
    run = stopped(exp, place.replace(trunk="cached"))
    (run.path / "cache" / "1" / "cache.json").write_text("{}")
    sw.resume(run, placement={"trunk": trunk})
    assert run.metrics()[NUMBERS].equals(sw.train(exp, place, rerun=True).metrics()[NUMBERS])
    assert not (run.path / "cache").exists()
