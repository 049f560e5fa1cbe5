"""A checkpoint is the old or the new one, and only what changed is written."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from stackwise import __version__
from stackwise.runs.damage import RESTORE
from stackwise.training import checkpoint, manifest
from stackwise.training.checkpoint import save
from stackwise.training.manifest import (
    LARGEST_MANIFEST,
    CheckpointError,
    CheckpointReplaced,
    read_manifest,
    read_part,
    weights_hash,
)


def parts_at(step: int) -> dict[str, dict[str, torch.Tensor]]:
    """A rack of two stacks and a moment, all different at every step."""
    return {
        "s0": {"w": torch.full((4, 3), float(step))},
        "s1": {"w": torch.full((2,), -float(step), dtype=torch.bfloat16), "n": torch.tensor(step)},
        "s1.optimizer": {"w/exp_avg": torch.full((2,), step / 7)},
    }


def holds_step(rack: Path) -> int:
    """The step that a checkpoint holds; it is whole, or this fails."""
    manifest = read_manifest(rack)
    step = manifest["counters"]["step"]
    for name, tensors in parts_at(step).items():
        read = read_part(rack, manifest, name)
        assert read.keys() == tensors.keys()
        assert all(read[key].equal(tensors[key]) for key in tensors), name
    return step


def files(run: Path) -> dict[str, int]:
    """Every file of a run and its inode, which a rewritten file does not keep."""
    return {
        str(path.relative_to(run)): path.stat().st_ino for path in run.rglob("*") if path.is_file()
    }


@pytest.fixture
def rack(tmp_path) -> Path:
    """A checkpoint of step 1."""
    folder = tmp_path / "run" / "rack"
    folder.parent.mkdir()
    save(folder, parts_at(1), counters={"step": 1})
    return folder


def test_weights_and_state_lie_apart_under_one_manifest(rack) -> None:
    names = [path.rpartition("-")[0] or path for path in files(rack.parent)]
    assert sorted(names) == ["rack/manifest.json", "rack/s0", "rack/s1", "state/s1.optimizer"]
    assert holds_step(rack) == 1


def test_the_manifest_says_dtype_size_hash_and_stage(tmp_path) -> None:
    save(tmp_path / "rack", {"s0": parts_at(1)["s1"]}, written_in=2)
    entry = read_manifest(tmp_path / "rack")["parts"]["s0"]
    path = tmp_path / "rack" / entry["file"]
    assert entry["bytes"] == path.stat().st_size
    assert (entry["dtype"], entry["stage"]) == ("bfloat16 int64", 2)
    assert entry["file"] == f"s0-{entry['sha256'][:16]}.safetensors"


def test_what_is_no_longer_listed_is_removed(rack) -> None:
    (rack / ".s0.part").write_bytes(b"half")
    (rack / "notes.txt").write_text("not ours")
    save(rack, {"s0": parts_at(2)["s0"]}, counters={"step": 2})
    names = sorted(path.rpartition("-")[0] or path for path in files(rack.parent))
    assert names == ["rack/manifest.json", "rack/notes.txt", "rack/s0"]


def test_equal_parts_are_not_written_again(rack) -> None:
    before = files(rack.parent)
    save(rack, {**parts_at(1), "s0": parts_at(2)["s0"]}, counters={"step": 2})
    after = files(rack.parent)
    kept = {path for path in before if after.get(path) == before[path]}
    assert {path.rpartition("-")[0] for path in kept} == {"rack/s1", "state/s1.optimizer"}


def test_parts_called_unchanged_are_not_even_looked_at(rack, monkeypatch) -> None:
    looked_at = []
    monkeypatch.setattr(checkpoint, "holds", lambda path, tensors: looked_at.append(path))
    before = files(rack.parent)
    save(rack, {"s1": parts_at(1)["s1"]}, unchanged={"s0"}, counters={"step": 1})
    assert [path.name.partition("-")[0] for path in looked_at] == ["s1"]
    assert read_part(rack, read_manifest(rack), "s0")["w"].equal(parts_at(1)["s0"]["w"])
    assert before.items() >= {p: i for p, i in files(rack.parent).items() if "/s0-" in p}.items()


def test_an_unchanged_part_whose_file_is_gone_is_written(rack) -> None:
    next(rack.glob("s0-*")).unlink()
    save(rack, parts_at(1), unchanged={"s0"}, counters={"step": 1})
    assert holds_step(rack) == 1


def test_a_part_whose_file_rotted_is_written_again(rack) -> None:
    path = next(rack.glob("s0-*"))
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    save(rack, parts_at(1), counters={"step": 1})
    assert holds_step(rack) == 1


class Saboteur:
    """Lets the n-th call that changes the disk fail, whoever makes it."""

    def __init__(self) -> None:
        self.left = -1
        self.fired = ""
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple) -> None:
        if self.left >= 0 and (
            event in ("os.rename", "os.mkdir")
            or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT)
        ):
            self.strike(event)

    def strike(self, what: str) -> None:
        self.left -= 1
        if self.left < 0:
            self.fired = what
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def saboteur() -> Saboteur:
    return Saboteur()


def test_a_failure_of_any_call_leaves_the_old_or_the_new_one(
    rack, saboteur, monkeypatch, tmp_path
) -> None:
    flush = os.fsync

    def fsync(handle: int) -> None:
        if saboteur.left >= 0:
            saboteur.strike("fsync")
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    struck = []
    for call in range(100):
        copy = tmp_path / f"copy{call}" / "rack"
        shutil.copytree(rack.parent, copy.parent)
        saboteur.left, saboteur.fired = call, ""
        try:
            save(copy, parts_at(2), counters={"step": 2})
        except OSError as error:
            assert "No space left on device; the last whole one is intact" in str(error)
        finally:
            saboteur.left = -1
        if not saboteur.fired:
            break
        struck.append(saboteur.fired)
        # The last call is the flush of the folder after the manifest took its place.
        assert holds_step(copy) in (1, 2)
        assert not list(copy.parent.rglob("*.part"))
        save(copy, parts_at(3), counters={"step": 3})
        assert holds_step(copy) == 3
        assert len(files(copy.parent)) == 4
    assert holds_step(copy) == 2
    # Three parts and a manifest: each is opened, flushed and renamed; then the folders' entries.
    assert struck.count("open") == struck.count("os.rename") == 4
    assert struck.count("fsync") == 4 + 3 + 1


def test_a_disk_full_after_any_byte_leaves_the_old_one(rack, full_disk) -> None:
    longest = max(path.stat().st_size for path in rack.iterdir())
    for room in (0, 1, 7, 8, 100, 200, longest - 1):
        with full_disk(room), pytest.raises(OSError) as error:
            save(rack, {**parts_at(2), "s2": {}}, counters={"step": 2})
        assert holds_step(rack) == 1
        assert not list(rack.parent.rglob("*.part"))
    assert str(error.value) == (
        "rack: the checkpoint cannot be written: File too large; the last whole one is "
        "intact. Make room, and resume the run"
    )


def test_equal_weights_have_equal_hashes(rack, tmp_path) -> None:
    other = tmp_path / "other" / "rack"
    other.parent.mkdir()
    parts = parts_at(1)
    save(other, {"s1": parts["s1"], "s0": parts["s0"]}, step=5)
    assert weights_hash(other) == weights_hash(rack)
    assert weights_hash(other, ["s0"]) != weights_hash(rack)
    parts["s0"]["w"][0, 0] += 1e-6
    save(other, parts)
    assert weights_hash(other) != weights_hash(rack)


def test_reading_while_a_newer_one_is_written_says_so(rack) -> None:
    manifest = read_manifest(rack)
    save(rack, parts_at(2), counters={"step": 2})
    with pytest.raises(CheckpointReplaced) as error:
        read_part(rack, manifest, "s0")
    assert str(error.value) == (
        "rack: a newer checkpoint was written while it was read; read it again"
    )


def message_of(rack: Path, part: str = "s0", **options: bool) -> str:
    with pytest.raises(CheckpointError) as error:
        read_part(rack, read_manifest(rack), part, **options)
    return str(error.value)


def test_damage_is_named_with_the_way_out(rack) -> None:
    assert message_of(rack, "s7") == "rack: no part 's7'; it has s0, s1, s1.optimizer"
    path = next(rack.glob("s0-*"))
    whole, way_out = path.read_bytes(), RESTORE
    assert way_out == "restore it from a copy of the run, or train again (rerun=True, --rerun)"
    altered = f"rack/{path.name}: is not what was written (its bytes or hash differ); {way_out}"
    path.write_bytes(whole[:-1])
    assert message_of(rack) == message_of(rack, verify=False) == altered
    path.write_bytes(whole[:-1] + b"\xff")
    assert message_of(rack) == altered
    assert read_part(rack, read_manifest(rack), "s0", verify=False)["w"].shape == (4, 3)
    path.write_bytes(b"\xff" * len(whole))
    assert message_of(rack, verify=False).endswith(way_out)
    path.unlink()
    assert message_of(rack) == f"rack/{path.name}: is missing; {way_out}"
    state = next((rack.parent / "state").iterdir())
    state.unlink()
    assert message_of(rack, "s1.optimizer") == f"state/{state.name}: is missing; {way_out}"


def test_a_file_that_the_disk_has_lost_is_damage(tmp_path, monkeypatch) -> None:
    rack = tmp_path / "rack"
    save(rack, parts_at(1))

    def lost(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(manifest, "sha256_of", lost)
    with pytest.raises(CheckpointError, match=r"rack/s0-.*: cannot be read: Input/output error;"):
        read_part(rack, read_manifest(rack), "s0")


def test_a_file_that_is_wanted_still_is_not_listed_once_it_is_gone(tmp_path) -> None:
    rack = tmp_path / "rack"
    save(rack, parts_at(1))
    (rack / read_manifest(rack)["parts"]["s0"]["file"]).unlink()
    with pytest.raises(CheckpointError, match="the file of s0 is missing"):
        save(rack, {"s1": parts_at(2)["s1"]}, unchanged=["s0"])


def test_no_checkpoint_yet_is_said(tmp_path) -> None:
    with pytest.raises(CheckpointError) as error:
        read_manifest(tmp_path / "rack")
    assert str(error.value) == "rack: holds no manifest.json; the run has no checkpoint yet"


@pytest.mark.parametrize(
    "change",
    [
        lambda m: 0,
        lambda m: [],
        lambda m: {},
        lambda m: {"format": 1},
        lambda m: {**m, "parts": None},
        lambda m: {**m, "parts": [5]},
        lambda m: {**m, "parts": {"s0": 3}},
        lambda m: {**m, "parts": {"s0": {}}},
        lambda m: {**m, "parts": {"s0": {**m["parts"]["s0"], "sha256": 1}}},
    ],
)
def test_a_manifest_of_another_shape_is_refused(rack, change) -> None:
    path = rack / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(CheckpointError) as error:
        read_manifest(rack)
    assert str(error.value) == f"rack/manifest.json: is damaged; {RESTORE}"


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: {"s0": {**parts["s0"], "file": "../../../etc/passwd"}},
        lambda parts: {"s0": {**parts["s0"], "file": parts["s1"]["file"]}},
        lambda parts: {"s0": {**parts["s0"], "bytes": "many"}},
        lambda parts: {"../s0": parts["s0"]},
    ],
)
def test_a_manifest_cannot_name_a_file_elsewhere(rack, change) -> None:
    path = rack / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "parts": change(manifest["parts"])}))
    with pytest.raises(CheckpointError) as error:
        read_manifest(rack)
    assert str(error.value) == (f"rack/manifest.json: names a file that cannot be ours; {RESTORE}")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: {**m, "counters": {"step": 2}},
        lambda m: {**m, "luck": 1},
        lambda m: {**m, "parts": {name: m["parts"][name] for name in ("s0", "s1")}},
        lambda m: {**m, "parts": {**m["parts"], "s0": {**m["parts"]["s0"], "format": "nf4"}}},
        lambda m: {**m, "sha256": "0" * 64},
        lambda m: {key: m[key] for key in ("format", "parts", "counters")},
    ],
)
def test_a_manifest_that_was_edited_is_refused(rack, change) -> None:
    path = rack / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(CheckpointError) as error:
        read_manifest(rack)
    assert str(error.value) == (
        f"rack/manifest.json: is not what was written (its hash is missing or differs); {RESTORE}"
    )


def test_facts_of_any_kind_come_back_under_the_manifests_hash(rack) -> None:
    facts = {"nan": float("nan"), "text": "ä NaN", "pair": (1, 2.5), "many": 10**30, "none": None}
    save(rack, parts_at(1), facts=facts)
    found = read_manifest(rack)["facts"]
    assert math.isnan(found.pop("nan"))
    assert found == {"text": "ä NaN", "pair": [1, 2.5], "many": 10**30, "none": None}


def test_a_manifest_that_is_cut_too_long_or_of_another_version_is_refused(rack) -> None:
    path = rack / "manifest.json"
    text = path.read_text()
    for cut in (text[:-5], "", "\x00" * 10, text[:-2] + ', "a": ' + "[" * 900 + "]" * 900 + "}"):
        path.write_text(cut)
        with pytest.raises(CheckpointError, match="is damaged"):
            read_manifest(rack)
    path.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(CheckpointError) as error:
        read_manifest(rack)
    assert str(error.value) == (
        "rack/manifest.json: format: 2 is of another version of StackWise, a newer one; this one, "
        f"{__version__}, reads 1; upgrade it: pip install --upgrade stackwise"
    )
    path.write_text(" " * (LARGEST_MANIFEST + 1))
    with pytest.raises(CheckpointError) as error:
        read_manifest(rack)
    assert str(error.value) == "rack/manifest.json: is over 16777216 bytes; it is not ours"


def test_names_cannot_leave_the_folder(rack) -> None:
    with pytest.raises(ValueError) as error:
        save(rack, {"../s0": {}})
    assert str(error.value) == ("part '../s0': only letters, digits, '.', '_' and '-' are allowed")
    with pytest.raises(ValueError) as error:
        save(rack, {}, unchanged={"s9"})
    assert str(error.value) == "unchanged part 's9': was never saved; give its tensors"
    assert holds_step(rack) == 1


def test_best_keeps_a_state_of_its_own(rack) -> None:
    save(rack.with_name("best"), parts_at(5), counters={"step": 5})
    save(rack, parts_at(2), counters={"step": 2})
    assert holds_step(rack) == 2
    assert holds_step(rack.with_name("best")) == 5
