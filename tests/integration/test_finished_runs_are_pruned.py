"""What pruning removes, what it leaves alone, and that a run which was pruned half opens."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import stackwise as sw
from stackwise import pruning
from stackwise.cli import main
from stackwise.drafts import claimed
from stackwise.errors import ExperimentError
from stackwise.interop.errors import ModelError
from stackwise.runs import RunError, lock, status
from stackwise.training import checkpoint
from stackwise.training.manifest import CheckpointError, read_manifest

KEPT = {"name": "block_coordinate", "optimizer_state": "keep"}  # moments stay to the end


@pytest.fixture
def exp(tiny) -> sw.Experiment:
    return tiny.replace(curriculum=KEPT, eval={"points": 16})


@pytest.fixture
def often(place) -> sw.Placement:
    return place.replace(checkpoint_seconds=1e-9, keep_last=2, keep_best=2)


@pytest.fixture
def run(exp, often) -> sw.Run:
    return sw.train(exp, often)


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder, by the hash of what it holds; links as they are."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def blocks(folder: Path) -> int:
    found = {s.st_ino: s.st_blocks for s in (p.lstat() for p in folder.rglob("*")) if s.st_nlink}
    files = {p.lstat().st_ino for p in folder.rglob("*") if p.is_file()}
    return 512 * sum(count for inode, count in found.items() if inode in files)


def only(found: list[sw.Run]):
    (one,) = found
    return one


def test_nothing_changes_before_yes_and_so_much_is_free_after_it(run, often) -> None:
    before, took = contents(run.path), blocks(run.path)
    said = only(sw.prune(often.runs_dir))
    assert contents(run.path) == before and run.pruned() == ()
    assert run.disk()["bytes"] == took
    done = only(sw.prune(often.runs_dir, yes=True))
    assert (done.files, done.bytes, done.what) == (said.files, said.bytes, said.what)
    assert set(done.what) == {"earlier", "stages", "segments"} == {*run.pruned()}
    gone = before.keys() - contents(run.path).keys()
    assert gone == set(done.files)
    assert blocks(run.path) <= took - done.bytes + 4096  # pruned.json takes a block
    assert only(sw.prune(often.runs_dir, yes=True)).what == ()


def test_what_stays_is_read_as_before(run, often) -> None:
    weights, metrics, score = run.weights_hash(), run.metrics(), sw.Run(run.path).result()
    rack, best = run.rack().state_dict(), run.rack(best=2).state_dict()
    sw.prune(often.runs_dir, yes=True)
    assert run.weights_hash() == weights and run.metrics().equals(metrics)
    assert run.result() == score and run.state == "finished"
    assert all(value.equal(rack[key]) for key, value in run.rack().state_dict().items())
    assert all(value.equal(best[key]) for key, value in run.rack(best=2).state_dict().items())
    assert sw.resume(run).state == "finished"


def test_moments_that_an_older_version_left_go_and_masters_stay(exp, often) -> None:
    """The manifest is written anew, since it lists them."""
    exp = exp.replace(precision={"frozen": "int8", "master": "fp32"})
    run = sw.train(exp, often)
    rack, manifest = run.path / "rack", read_manifest(run.path / "rack")
    facts = {key: manifest[key] for key in ("run", "counters")}
    formats = {name: part["format"] for name, part in manifest["parts"].items() if part["format"]}
    moments = {f"s0.{kind}": {"m": torch.ones(5000)} for kind in ("optimizer", "average")}
    checkpoint.save(rack, moments, unchanged=manifest["parts"], formats=formats, **facts)
    weights, masters = run.weights_hash(), sorted(run.path.glob("state/*.master-*"))
    assert len(list((run.path / "state").iterdir())) == len(masters) + 2 > 2
    done = only(sw.prune(often.runs_dir, yes=True))
    assert "state" in done.what and run.weights_hash() == weights
    assert sorted((run.path / "state").iterdir()) == masters
    assert run.rack() is not None and "s0.optimizer" not in read_manifest(rack)["parts"]


def test_what_cannot_be_any_more_is_refused_with_the_reason(run, often, capsys) -> None:
    sw.prune(often.runs_dir, yes=True)
    with pytest.raises(ExperimentError, match="this run was pruned on 20"):
        run.fork(after_stage=0, optim={"lr": 1e-3}, launch=False)
    with pytest.raises(RunError, match=r"was pruned on 20.*so it cannot go on"):
        sw.resume(run, checkpoint=16)
    status.begin(run.path, "stopped")
    with pytest.raises(RunError, match=r"was pruned on 20.*so it cannot go on"):
        sw.resume(run)
    assert main(["resume", str(run.path)]) == 2
    assert "its earlier, stages, segments went" in capsys.readouterr().err


def test_with_the_ends_of_stages_it_can_be_forked(run, often) -> None:
    sw.prune(often.runs_dir, keep_stages=True, yes=True)
    fork = run.fork(after_stage=1, optim={"lr": 1e-3}, launch=False)
    assert len(fork.metrics()) == len(run.metrics()[run.metrics().stage <= 1])
    assert sw.resume(fork).state == "finished"


def test_a_fork_has_what_it_needs(run, often) -> None:
    fork = run.fork(after_stage=1, optim={"lr": 1e-3}, launch=False)
    twin = run.fork(after_stage=1, optim={"lr": 1e-3}, title="twin", launch=False)
    straight = sw.resume(twin).weights_hash()
    sw.prune(often.runs_dir, weights=True, keep_last=0, keep_best=0, yes=True)
    assert sw.resume(fork).weights_hash() == straight


def test_weights_go_of_all_but_the_newest_and_the_best(exp, often) -> None:
    runs = [sw.train(exp.replace(seed=seed, optim={"lr": lr}), often) for seed, lr in
            ((0, 0.02), (1, 0.0001), (2, 0.001))]  # fmt: skip
    for age, one in enumerate(reversed(runs)):
        os.utime(one.path / "stages.json", (1e9 - age, 1e9 - age))
    scores = [one.result()["bits_per_byte"] for one in runs]
    assert scores[0] == min(scores)
    sw.prune(often.runs_dir, weights=True, yes=True)
    assert ["weights" in one.pruned() for one in runs] == [False, True, False]
    assert runs[1].result()["bits_per_byte"] == scores[1] and len(runs[1].metrics()) == 16
    for read in (runs[1].rack, lambda: runs[1].rack(best=True), runs[1].weights_hash):
        with pytest.raises(CheckpointError):
            read()
    with pytest.raises(CheckpointError, match="was pruned on 20"):
        runs[1].rack()
    assert only(p for p in sw.prune(often.runs_dir) if p.id == runs[1].id).what == ()


@pytest.mark.parametrize("key", ["keep_last", "keep_best"])
def test_a_negative_number_is_refused(often, key) -> None:
    with pytest.raises(ExperimentError, match=f"{key}: -1 < 0"):
        sw.prune(often.runs_dir, **{key: -1})


def left(often, **more) -> str:
    one = only(sw.prune(often.runs_dir, yes=True, **more))
    assert one.files == () and one.bytes == 0
    return str(one.left)


def test_runs_that_are_not_finished_are_left_alone(exp, often) -> None:
    run = sw.train(
        exp, often, on_step=lambda w, _: setattr(w, "stop_requested", w.at.total_steps == 9)
    )
    before = contents(run.path)
    everything = {"weights": True, "keep_last": 0, "keep_best": 0}
    assert left(often, **everything) == "it is stopped"
    for state in ("failed", "running", "paused", "queued", "starting", "made"):
        status.begin(run.path, state)
        assert left(often, **everything) == f"it is {run.state}"
    status.begin(run.path, "stopped")
    (run.path / "status.json").unlink()
    assert {k: v for k, v in before.items() if k != "status.json"} == contents(run.path)


def test_a_run_that_somebody_holds_is_left_alone(run, often) -> None:
    for name in (lock.LOCK, lock.SUPERVISOR):
        held = lock.take(run.path, name)
        try:
            assert "a process of it is there" in left(often)
        finally:
            held.release()


def test_a_run_that_is_labelled_keep_is_left_alone(run, often) -> None:
    run.label(tags=["paper", "Keep"])
    assert left(often, weights=True, keep_last=0, keep_best=0) == "it is labelled 'keep'"
    run.label(tags=["keeper"], name="Keepsake")
    assert only(sw.prune(often.runs_dir)).left is None


DAMAGE = {
    "a flipped bit": lambda run: flip(next(run.path.glob("rack/s0-*"))),
    "a cut file": lambda run: os.truncate(next(run.path.glob("rack/head-*")), 10),
    "a manifest": lambda run: (run.path / "rack/manifest.json").write_text("{}"),
    "no manifest": lambda run: (run.path / "rack/manifest.json").unlink(),
    "the best": lambda run: flip(next(run.path.glob("best/*.safetensors"))),
    "the stages": lambda run: (run.path / "stages.json").write_text("[1"),
    "the experiment": lambda run: (run.path / "experiment.yaml").write_text("a: ["),
    "the events": lambda run: (run.path / "events.jsonl").write_text("x\n"),
    "the provenance": lambda run: (run.path / "provenance.json").unlink(),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_run_is_left_alone_and_named(run, often, case) -> None:
    DAMAGE[case](run)
    before = contents(run.path)
    assert left(often).startswith("damaged: ")
    assert contents(run.path) == before


def test_segments_go_only_if_the_compact_file_says_the_same(run, often) -> None:
    segment = next(run.path.glob("metrics/*.arrows"))
    (run.path / "metrics.parquet").write_bytes(b"PAR1")
    sw.prune(often.runs_dir, yes=True)
    assert segment.exists() and "segments" not in run.pruned() and len(run.metrics()) == 16


def test_only_files_that_are_ours_go_and_no_link_is_followed(run, often, tmp_path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(run.path, outside)
    shutil.rmtree(run.path / "stages" / "0001")
    (run.path / "stages" / "0001").symlink_to(outside / "stages" / "0001")
    shutil.rmtree(run.path / "earlier")
    (run.path / "earlier").symlink_to(outside / "earlier")
    (run.path / "cache").symlink_to(outside)
    strange = ["state/mine.txt", "stages/0000/rack/notes.safetensors", "stages/0000/mine/s0.bin",
               "metrics/mine.arrows", ".hidden", "rack/extra-00.safetensors"]  # fmt: skip
    for name in strange:
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("mine")
    link = run.path / "state" / "s9.optimizer-0123456789abcdef.safetensors"
    link.symlink_to(outside / "experiment.yaml")
    before = contents(outside)
    sw.prune(often.runs_dir, yes=True)
    assert contents(outside) == before
    assert all((run.path / name).read_text() == "mine" for name in strange) and link.is_symlink()
    aside = run.path.rename(tmp_path / "aside")
    run.path.symlink_to(aside)
    assert left(often, weights=True, keep_last=0, keep_best=0) == "it is a link"


def test_left_overs_of_kills_go(run, often) -> None:
    names = ["rack/.s0.part", "state/.s0.optimizer.part", ".status.json.1-2.part",
             "stages/.0001.part/rack/manifest.json", "drift.safetensors",
             "cache/1/rows-000001.bin", "cache/1/cache.json",
             ".mirror-abc/s0-0123456789abcdef.safetensors"]  # fmt: skip
    for name in names:
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("{}")
    done = only(sw.prune(often.runs_dir, yes=True))
    assert set(names) <= set(done.files) and {"caches", "left-overs"} <= {*done.what}
    assert not any((run.path / name).exists() for name in names)
    assert not (run.path / "cache").exists() and not (run.path / ".mirror-abc").exists()


def test_what_a_copy_in_hand_holds_stays(run, often) -> None:
    held = run.path / ".mirror-abc" / "s0-0123456789abcdef.safetensors"
    held.parent.mkdir()
    held.write_text("held")
    with claimed(held.parent):
        sw.prune(often.runs_dir, yes=True)
        assert held.exists()
    sw.prune(often.runs_dir, yes=True)
    assert not held.parent.exists()


def test_what_an_unfinished_run_starts_from_stays(tiny, often) -> None:
    run = sw.train(tiny, often)
    home = Path(often.runs_dir)
    other = tiny.replace(start=run.id, title="next", seed=1, curriculum="left_to_right")
    place = often.replace(data_dir=str(home))
    begun = sw.train(
        other, place, on_step=lambda w, _: setattr(w, "stop_requested", w.at.total_steps == 2)
    )
    everything = {"weights": True, "keep_last": 0, "keep_best": 0, "yes": True}
    sw.prune(home, **everything)
    assert "weights" not in run.pruned() and run.has_weights()
    assert sw.resume(begun).state == "finished"
    sw.prune(home, **everything)
    assert "weights" in run.pruned()
    with pytest.raises((CheckpointError, ModelError), match="was pruned on"):
        sw.train(other.replace(seed=3), place)


def test_an_open_study_keeps_the_ends_that_it_may_branch_from(run, often) -> None:
    study = Path(often.runs_dir) / "study-x"
    study.mkdir()
    (study / "runs.json").write_text(f'{{"runs": [{{"run": "../{run.id}"}}]}}')
    sw.prune(often.runs_dir, yes=True)
    assert "stages" not in run.pruned() and (run.path / "stages").is_dir()
    (study / "results.csv").write_text("")
    sw.prune(often.runs_dir, yes=True)
    assert "stages" in run.pruned()


def strike_after(patch: pytest.MonkeyPatch, count: int) -> None:
    """Interrupt the removal that comes after so many others."""
    real, left = os.unlink, [count]

    def struck(*arguments, **more):
        if "dir_fd" in more:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return real(*arguments, **more)

    patch.setattr(os, "unlink", struck)


def test_a_kill_in_the_middle_leaves_a_run_that_opens(run, often, monkeypatch, tmp_path) -> None:
    """Before each removal; what is asked again is done."""
    weights, scored = run.weights_hash(), run.result()
    count = len(only(sw.prune(often.runs_dir)).files)
    for strike in (0, 1, 2, 3, count // 2, count - 1):
        home = tmp_path / f"at{strike}"
        copy = sw.Run(shutil.copytree(run.path, home / run.id))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            strike_after(patch, strike)
            sw.prune(home, yes=True)
        assert copy.pruned() and copy.state == "finished" and copy.error() is None
        assert copy.weights_hash() == weights and copy.result() == scored
        copy.rack(), copy.metrics()
        sw.prune(home, yes=True)
        assert contents(copy.path).keys() == {
            name for name in contents(copy.path) if not name.startswith(("stages/", "earlier/"))
        }


def test_a_kill_in_the_middle_of_weights_leaves_a_run_that_opens(run, often, monkeypatch) -> None:
    everything = {"weights": True, "keep_last": 0, "keep_best": 0, "yes": True}
    files = only(sw.prune(often.runs_dir, **{**everything, "yes": False})).files
    manifests = sum(name.endswith("manifest.json") for name in files)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        strike_after(patch, manifests + 1)
        sw.prune(often.runs_dir, **everything)
    assert list(run.path.rglob("*.safetensors"))
    assert run.state == "finished" and len(run.metrics()) == 16 and run.error() is None
    with pytest.raises(CheckpointError, match="was pruned on"):
        run.rack()
    sw.prune(often.runs_dir, **everything)
    assert not list(run.path.rglob("*.safetensors"))


def test_the_command_line_shows_it_first(run, often, capsys) -> None:
    before = contents(run.path)
    line = ["runs", "--runs-dir", often.runs_dir]
    assert main([*line, "--prune"]) == 0
    said = capsys.readouterr().out
    assert contents(run.path) == before
    assert said.startswith(f"{run.id}: ") and said.endswith("would be removed; --yes removes it\n")
    assert "earlier, stages, segments" in said
    assert main([*line, "--prune", "--yes"]) == 0
    assert capsys.readouterr().out.endswith(" removed\n") and run.pruned()
    assert main(line) == 0
    said = capsys.readouterr().out
    assert "finished, pruned" in said and "on disk together: " in said
    assert pruning.prune(often.runs_dir)[0].what == ()


def test_what_a_stranger_left_beside_them_hinders_no_pruning(run, often) -> None:
    runs = run.path.parent
    for name in ("events.jsonl", "experiment.yaml", "placement.yaml", "labels.json"):
        odd = Path(shutil.copytree(run.path, runs / f"odd-{name}"))
        (odd / name).unlink(missing_ok=True)
        (odd / name).mkdir()
    (runs / "study").mkdir()
    (runs / "round").symlink_to("round")
    rows = [{"run": name} for name in ("a\0b", "../round/x", "x" * 5000, "")] + [{"run": 5}, 5]
    (runs / "study" / "runs.json").write_text(json.dumps({"runs": rows}))
    found = {one.id: one for one in sw.prune(often.runs_dir, weights=True)}
    assert found[run.id].left is None and found[run.id].files
    assert "Is a directory" in str(found["odd-events.jsonl"].left)
