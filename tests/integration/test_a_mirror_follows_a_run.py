"""A mirror holds a whole checkpoint at every moment, holds up no run, and becomes one again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

import stackwise as sw
from stackwise.cli import main
from stackwise.exit_codes import code_of
from stackwise.mirrors import index, mirror
from stackwise.mirrors.copying import Copies
from stackwise.mirrors.errors import MirrorError, redacted
from stackwise.mirrors.store import Store
from stackwise.runs import RunBusy, RunError, lock
from stackwise.runs.writer import RunWriter
from stackwise.seals import sealed
from stackwise.training import placing
from tests.warm import Child


@pytest.fixture
def exp(tiny) -> sw.Experiment:
    return tiny.replace(curriculum={"name": "left_to_right", "split": "tokens"})


@pytest.fixture
def often(place) -> sw.Placement:
    return place.replace(checkpoint_seconds=1e-9, keep_last=2)


def stopped(exp, often, step: int, **more) -> sw.Run:
    def on_step(work, numbers) -> None:
        work.stop_requested = work.at.total_steps == step

    return sw.train(exp, often, on_step=on_step, rerun=True, **more)


def holds(url: str) -> dict:
    """What a mirror's newest index says, every file that it lists compared with its hash."""
    store = Store(url)
    _, said = index.newest_index(store)
    for manifest in said["checkpoints"].values():
        for entry in manifest["parts"].values():
            data = store.read(f"files/{entry['file']}", entry["bytes"])
            assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    for pieces in said["records"].values():
        for piece in pieces:
            data = store.read(f"files/piece-{piece['sha256']}", piece["bytes"])
            assert hashlib.sha256(data).hexdigest() == piece["sha256"]
    return said


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_run_that_is_fetched_goes_on_to_the_same_bits(exp, often, tmp_path, kind) -> None:
    url = {"file": f"file://{tmp_path}/m", "memory": "memory://m"}[kind]
    straight = sw.train(exp, often, rerun=True)
    run = stopped(exp, often, 10, mirror=url)
    shutil.rmtree(run.path)
    fetched = sw.fetch(url, tmp_path / "elsewhere")
    assert (fetched.id, fetched.state) == (run.id, "stopped")
    assert [kept.step for kept in fetched.checkpoints()] == [10, 9, 8, 4]
    done = sw.resume(fetched, placement={"data_dir": "."}, mirror=url)
    assert done.weights_hash() == straight.weights_hash()
    theirs = straight.metrics().drop(columns="seconds")
    assert done.metrics().drop(columns="seconds").equals(theirs)
    assert holds(f"{url}/{run.id}")["checkpoints"]["rack"]["counters"]["total_steps"] == 16
    again = sw.fetch(f"{url}/{run.id}", tmp_path / "again")
    assert (again.state, again.weights_hash()) == ("finished", straight.weights_hash())
    assert again.result() == done.result() and again.checkpoints()[0].step == 16


def test_the_command_line_mirrors_and_fetches(exp, often, tmp_path, capsys, monkeypatch) -> None:
    run = stopped(exp, often, 6)
    assert main(["resume", str(run.path), "--mirror", str(tmp_path / "m")]) == 0
    assert main(["fetch", str(tmp_path / "m"), "--runs-dir", str(tmp_path / "new")]) == 0
    assert f"{run.id}: finished, step 16" in capsys.readouterr().out
    assert main(["fetch", str(tmp_path / "m"), "--runs-dir", str(tmp_path / "new")]) == 2
    assert main(["fetch", str(tmp_path / "none")]) == 2
    assert main(["fetch", "nosuch://there"]) == 2
    said = capsys.readouterr().err
    assert "is there already" in said and "is no mirror" in said and "nosuch" in said
    monkeypatch.setenv("STACKWISE_MIRROR", str(tmp_path / "by-variable"))
    sw.resume(run)  # finished: copied as it is
    assert holds(f"{tmp_path}/by-variable/{run.id}")
    other = stopped(exp, often, 2, mirror="")
    assert not (tmp_path / "by-variable" / other.id).exists()


class Faulty(LocalFileSystem):
    """Fails at a call of the user's choice, once or always; what it was writing stays cut."""

    protocol = "faulty"
    cachable = False
    left, always, count = -1, False, 0

    def _strike(self) -> None:
        Faulty.count += 1
        if Faulty.left < 0:
            return
        Faulty.left -= 1
        if Faulty.left < 0 or (Faulty.always and Faulty.left <= 0):
            Faulty.left = 0 if Faulty.always else -1
            raise ConnectionError("https://user:secret@host/bucket?key=1 is not there")

    def put_file(self, lpath, rpath, **more):
        data = Path(lpath).read_bytes()
        Path(rpath).write_bytes(data[: len(data) // 2])
        self._strike()
        Path(rpath).write_bytes(data)

    def pipe_file(self, path, value, **more):
        Path(path).write_bytes(value[: len(value) // 2])
        self._strike()
        Path(path).write_bytes(value)

    def rm_file(self, path):
        self._strike()
        Path(path).unlink()

    def ls(self, path, detail=False, **more):
        self._strike()
        return super().ls(path, detail=detail, **more)


@pytest.fixture
def faulty() -> Iterator[type[Faulty]]:
    fsspec.register_implementation("faulty", Faulty, clobber=True)
    Faulty.left, Faulty.always, Faulty.count = -1, False, 0
    yield Faulty


def test_each_failure_leaves_the_older_or_the_newer_checkpoint(
    exp, often, tmp_path, faulty
) -> None:
    """At each write, removal and listing of a pass; the next pass makes up for it."""
    run = stopped(exp, often, 5)
    url = f"faulty://{tmp_path}/m"
    copies = Copies.at(run, url)
    copies.send()
    before = shutil.copytree(tmp_path / "m", tmp_path / "before")
    sw.resume(run, on_step=lambda w, _: setattr(w, "stop_requested", w.at.total_steps == 7))
    struck, seen = 0, set()
    while True:
        shutil.rmtree(tmp_path / "m")
        shutil.copytree(before, tmp_path / "m")
        faulty.left = struck
        with suppress(ConnectionError):
            Copies.at(run, url).send()
        ended = faulty.left >= 0
        faulty.left = -1
        found = holds(f"{tmp_path}/m/{run.id}")
        seen.add(found["checkpoints"]["rack"]["counters"]["total_steps"])
        if not struck % 5:
            fetched = sw.fetch(str(tmp_path / "m"), tmp_path / f"f{struck}")
            assert fetched.checkpoints()[0].step in (5, 7)
        Copies.at(run, url).send()
        files = {name for name in os.listdir(tmp_path / "m" / run.id / "files")}
        whole = holds(f"{tmp_path}/m/{run.id}")
        assert whole["checkpoints"]["rack"]["counters"]["total_steps"] == 7
        assert files == index.listed(whole).keys()
        assert len(index.numbers_in(Store(f"{tmp_path}/m/{run.id}"))) == 1
        if ended:
            break
        struck += 1
    assert struck > 20 and seen == {5, 7}


def test_an_address_that_never_answers_changes_nothing(exp, often, faulty, tmp_path) -> None:
    straight = sw.train(exp, often, rerun=True)
    faulty.left, faulty.always = 0, True
    run = sw.train(exp, often, rerun=True, mirror=f"faulty://{tmp_path}/m")
    assert (run.state, run.weights_hash()) == ("finished", straight.weights_hash())
    failed = run.events("mirror_failed")
    assert failed and "secret" not in json.dumps(run.events())
    assert "ConnectionError: https://host/bucket is not there" in failed[0]["error"]
    assert run.result()["bits_per_byte"] == straight.result()["bits_per_byte"]
    faulty.always, faulty.left = False, -1
    sw.resume(run, mirror=f"faulty://{tmp_path}/m")
    assert holds(f"{tmp_path}/m/{run.id}")["checkpoints"]["rack"]


def test_the_end_of_a_run_waits_a_bounded_time(exp, often, tmp_path, monkeypatch) -> None:
    """A copy that hangs is left, and said."""
    never = threading.Event()
    monkeypatch.setattr(Copies, "send", lambda self: {"step": None} if never.wait() else {})
    monkeypatch.setattr(mirror.Mirror.end, "__defaults__", (0.05,))
    run = sw.train(exp, often, mirror=str(tmp_path / "m"))
    assert run.state == "finished"
    (failed,) = run.events("mirror_failed")
    assert "was not there after" in failed["error"]
    never.set()


KILLED = """
import sys
import stackwise as sw
from stackwise.mirrors.store import Store
run, url, strike = sys.argv[1], sys.argv[2], int(sys.argv[3])
import os, signal
count = [0]
for name in ("put", "write", "remove"):
    def struck(self, *a, real=getattr(Store, name)):
        if count[0] == strike:
            os.kill(os.getpid(), signal.SIGKILL)
        count[0] += 1
        return real(self, *a)
    setattr(Store, name, struck)
sw.resume(run, mirror=url)
print(count[0])
"""


def test_a_kill_in_the_middle_leaves_a_whole_checkpoint(exp, often, tmp_path) -> None:
    straight = sw.train(exp, often, rerun=True).weights_hash()
    run, url = stopped(exp, often, 3), str(tmp_path / "m")
    for strike in (9, 40):
        with Child(KILLED, str(run.path), url, str(strike)) as child:
            assert child.wait() == -signal.SIGKILL
        if list((tmp_path / "m" / run.id).glob("index-*")):
            holds(f"{url}/{run.id}")
            sw.fetch(url, tmp_path / f"at{strike}").rack()
    sw.resume(run, mirror=url)
    assert run.weights_hash() == straight
    assert sw.fetch(url, tmp_path / "end").weights_hash() == straight
    assert not list(run.path.glob(".mirror-*"))


def test_a_mirror_that_is_further_is_not_lost(exp, often, tmp_path) -> None:
    """As on a machine that begins anew where fetch was meant."""
    url = str(tmp_path / "m")
    run = sw.train(exp, often, mirror=url)
    shutil.rmtree(run.path)
    again = sw.train(
        exp, often, mirror=url, on_step=lambda w, _: setattr(w, "stop_requested", True)
    )
    assert again.id == run.id
    why = again.events("mirror_failed")[0]["error"]
    assert "holds step 16 of this run, and it stands at 1" in why
    assert holds(f"{url}/{run.id}")["checkpoints"]["rack"]["counters"]["total_steps"] == 16


def test_another_run_or_process_is_not_overwritten(exp, often, tmp_path) -> None:
    run, url = stopped(exp, often, 3), str(tmp_path / "m")
    one, other = Copies.at(run, url), Copies.at(run, url)
    one.send()
    other.send()
    with pytest.raises(MirrorError, match="another process writes it") as busy:
        one.send()
    assert code_of(busy.value) == 4
    twin = stopped(exp.replace(seed=5), often, 3)
    renamed = sw.Run(twin.path.rename(tmp_path / run.id))
    with pytest.raises(MirrorError, match="holds another run") as wrong:
        Copies.at(renamed, url).send()
    assert code_of(wrong.value) == 2


def test_an_address_of_the_environment_ends_no_command_over_a_finished_run(
    exp, often, tmp_path, monkeypatch, capsys
) -> None:
    run, where = sw.train(exp, often), f"zip://x::file://{tmp_path}/none.zip"
    (tmp_path / "none.zip").write_text("is none")
    monkeypatch.setenv("STACKWISE_MIRROR", where)
    assert main(["resume", str(run.path)]) == 0
    assert f"run {run.id} was not mirrored" in capsys.readouterr().err
    assert main(["resume", str(run.path), "--mirror", where]) == 5
    assert main(["fetch", where]) == 5
    assert "cannot be used as a mirror: BadZipFile" in capsys.readouterr().err
    (run.path / "log.txt").symlink_to(tmp_path / "none.zip")
    url = str(tmp_path / "m")
    assert main(["resume", str(run.path), "--mirror", url]) == 5
    assert not (tmp_path / "m" / run.id).exists()


def test_an_end_that_is_not_waited_for_is_no_loss(exp, often, tmp_path, monkeypatch) -> None:
    run, joined = stopped(exp, often, 3), threading.Thread.join

    def interrupted(thread, timeout=None):
        if thread.name == "mirror":
            raise KeyboardInterrupt
        joined(thread, timeout)

    release = threading.Event()
    monkeypatch.setattr(Copies, "send", lambda copies: {"step": release.wait(60) and 16})
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    try:
        assert sw.resume(run, mirror=str(tmp_path / "m")).state == "finished"
    finally:
        release.set()
    assert run.events("mirror_failed")[-1]["error"] == "the last copy was not waited for"


def test_no_part_of_a_password_is_said() -> None:
    assert redacted("sftp://u:p@ss@host/x?key=1 failed") == "sftp://host/x failed"


def test_a_record_that_repeats_is_counted_as_it_is_written() -> None:
    piece = {"sha256": "0" * 64, "bytes": 1 << 20}
    said = {"checkpoints": {}, "records": {"events.jsonl": [piece] * 50}}
    assert index.bytes_of(said) == 50 << 20 and len(index.listed(said)) == 1


def test_a_run_that_another_process_trains_is_not_copied(exp, often, tmp_path) -> None:
    run = stopped(exp, often, 3)
    held = lock.take(run.path)
    try:
        with pytest.raises(RunBusy):
            sw.resume(run, mirror=str(tmp_path / "m"))
    finally:
        held.release()
    assert not (tmp_path / "m").exists()


def test_an_address_is_asked_by_the_thread_alone(exp, often, tmp_path, monkeypatch) -> None:
    """As one that cannot be reached when the run begins, or is started again."""

    def refused(*arguments):
        raise TimeoutError("nobody is there")

    monkeypatch.setattr(fsspec, "url_to_fs", refused)
    run = sw.train(exp, often, mirror=f"file://{tmp_path}/m")
    assert run.state == "finished"
    assert run.events("mirror_failed")[0]["error"] == "TimeoutError: nobody is there"


def test_a_run_that_was_mirrored_does_not_say_where_to(exp, often, tmp_path) -> None:
    run = stopped(exp, often, 3, mirror=str(tmp_path / "m"))
    kept = [p for p in run.path.rglob("*") if p.is_file() and p.name != "events.jsonl"]
    assert all(str(tmp_path / "m").encode() not in path.read_bytes() for path in kept)
    shutil.rmtree(tmp_path / "m")
    sw.resume(run)
    assert not (tmp_path / "m").exists()


def altered(url: Path, change) -> None:
    """The mirror of a run with an index that says something else, sealed as ours."""
    (home,) = url.iterdir()
    (path,) = home.glob("index-*")
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(sealed(said)))


def evil_record(name: str):
    def change(said) -> None:
        said["records"][name] = said["records"]["stages.json"]

    return change


def evil_part(said) -> None:
    manifest = said["checkpoints"]["rack"]
    entry = next(iter(manifest["parts"].values()))
    entry["file"] = f"../../{entry['file']}"
    said["checkpoints"]["rack"] = sealed(manifest)


def evil_size(size: int):
    def change(said) -> None:
        manifest = said["checkpoints"]["rack"]
        next(iter(manifest["parts"].values()))["bytes"] = size
        said["checkpoints"]["rack"] = sealed(manifest)

    return change


HOSTILE = {
    "a record outside": evil_record("../../evil"),
    "an absolute record": evil_record("/tmp/evil"),
    "a record of no kind": evil_record("control/0001.json"),
    "a run outside": lambda said: said.update(run="../evil"),
    "a checkpoint outside": lambda said: said["checkpoints"].update({"../rack": {}}),
    "a part outside": evil_part,
    "a part without end": evil_size(1 << 60),
    "a part of less than nothing": evil_size(-5),
    "a part of other bytes": evil_size(10),
    "no stages": lambda said: said["records"].pop("stages.json"),
    "a piece of no size": lambda said: said["records"]["stages.json"][0].update(bytes=-1),
    "a piece outside": lambda said: said["records"]["stages.json"][0].update(sha256="../x"),
    "no format": lambda said: said.update(format=9),
    "a list": lambda said: said.update(records=[]),
}


@pytest.fixture
def mirrored(exp, often, tmp_path) -> Path:
    stopped(exp, often, 2, mirror=str(tmp_path / "m"))
    return tmp_path / "m"


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_mirror_writes_nothing_outside(mirrored, tmp_path, case) -> None:
    altered(mirrored, HOSTILE[case])
    before = {path for path in tmp_path.rglob("*")}
    with pytest.raises((MirrorError, OSError)):
        sw.fetch(str(mirrored), tmp_path / "new")
    assert {path for path in tmp_path.rglob("*")} - before <= {tmp_path / "new"}


def test_damage_is_found_before_the_run_is_there(mirrored, tmp_path) -> None:
    (home,) = mirrored.iterdir()
    for path in sorted((home / "files").iterdir()):
        data = path.read_bytes()
        for wrong in (data[:-1], data + b"0", bytes([data[0] ^ 1]) + data[1:]):
            path.write_bytes(wrong)
            with pytest.raises(MirrorError):
                sw.fetch(str(mirrored), tmp_path / "new")
        path.write_bytes(data)
    assert not list((tmp_path / "new").iterdir())
    sw.fetch(str(mirrored), tmp_path / "new").rack()


def test_several_runs_at_an_address_are_named(exp, often, tmp_path) -> None:
    one = stopped(exp, often, 2, mirror=str(tmp_path / "m"))
    other = stopped(exp, often, 2, mirror=str(tmp_path / "m"))
    with pytest.raises(RunError, match="mirrors 2 runs; name one") as error:
        sw.fetch(str(tmp_path / "m"), tmp_path / "new")
    assert one.id in str(error.value) and other.id in str(error.value)
    assert sw.fetch(f"{tmp_path}/m/{one.id}", tmp_path / "new").id == one.id


def test_what_a_copy_holds_counts_as_disk(exp, often, monkeypatch, tmp_path) -> None:
    asked = []
    real = placing.checkpoint_bytes
    monkeypatch.setattr(
        placing, "checkpoint_bytes", lambda *a, **k: asked.append(k["last"]) or real(*a, **k)
    )
    stopped(exp, often, 2, mirror=str(tmp_path / "m"))
    assert asked == [2, 3]  # as it is made, without one; as it is opened


def test_the_thread_speaks_through_no_closed_run(exp, often, tmp_path) -> None:
    run = stopped(exp, often, 2)
    copier = mirror.Mirror(run, str(tmp_path / "m"))
    with RunWriter(run.path) as writer:
        copier.speak(writer)
        writer.close("stopped")
        copier._say("mirror_failed", error="late")
    copier.end()
    assert holds(f"{tmp_path}/m/{run.id}")
    assert [event["error"] for event in run.events("mirror_failed")] == ["late"]
