"""A full, failing or read-only disk: it is said, the last good state is intact, the run goes on.

The disk refuses at some operation of a run's whole life: preparing the data, making the folder,
events, metrics, status, caches, checkpoints, kept stages, best weights, the end. Once it gives way
the same call brings the run to the same bits. `benchmarks/faults.py` does it at every operation;
here at each kind of operation on each kind of file once.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.data.errors import DataError
from stackwise.disk_errors import DiskError
from stackwise.errors import FolderError
from stackwise.exit_codes import DISK, code_of
from stackwise.memory import meter
from stackwise.runs import RunError, writer
from stackwise.runs.records import MANIFEST
from stackwise.training.kept_stages import folder_of, kept_stages
from stackwise.training.manifest import read_manifest, verify_part

from ..faults import Refusing

NUMBERS = ["step", "loss", "grad_norm", "flops"]
SAID = re.compile(
    r"(?s)^\S.*: .*(Make room|Make the folder writable|Look after the disk|name another"
    r" folder|to a folder with room)"
)


def small(**more) -> sw.Experiment:
    """Two stages of three steps."""
    return sw.Experiment(
        title="t",
        rack={"stacks": 2, "blocks_per_stack": 1, "d_model": 8, "heads": 1, "d_ff": 8},
        data={"corpus": {"kind": "markov", "size_bytes": 4000}, "seq_len": 8},
        optim={"batch": 2, "lr": 0.01, "ema": 0.9},
        budget={"tokens": 6 * 2 * 8},
        eval={"points": 2, "windows": 2, "draws": 1, "final": 2, "drift": True},
        curriculum={"name": "left_to_right", "split": "tokens"},
        **more,
    )


def on_step(work, numbers) -> None:
    """A checkpoint in the middle of each stage, too."""
    work.saved_at -= 3600 * (work.at.step == 2)


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """No garbage is collected to measure memory, and no heartbeat counts as an operation."""
    monkeypatch.setattr(meter.gc, "collect", lambda: 0)
    monkeypatch.setattr(writer, "HEARTBEAT_SECONDS", 3600.0)


def train(root: Path) -> sw.Run:
    place = sw.Placement(runs_dir=str(root / "runs"), device="cpu", trunk="cached")
    os.environ["STACKWISE_CACHE"] = str(root / "prepared")
    return sw.train(small(), place, on_step=on_step)


@pytest.fixture
def straight(tmp_path, monkeypatch) -> Iterator[tuple[sw.Run, list[tuple[str, str]]]]:
    """A run that nothing happened to, and the operations that it took."""
    monkeypatch.setenv("STACKWISE_CACHE", "")
    disk = Refusing(tmp_path / "straight")
    with disk.here():
        run = train(tmp_path / "straight")
    yield run, disk.seen


def check_whole(root: Path) -> None:
    """All that counts as a checkpoint is one."""
    for run in (root / "runs").glob("*"):
        racks = [
            run / "rack",
            run / "best",
            *(folder_of(run, n) / "rack" for n in kept_stages(run)),
        ]
        for rack in racks:
            if (rack / MANIFEST).exists():
                manifest = read_manifest(rack)
                for part in manifest["parts"]:
                    verify_part(rack, manifest, part)


def refused(root: Path, at: int, number: int, lasting: bool, straight: sw.Run) -> str:
    """Train where the disk refuses, and again where it does not; what was said."""
    root.mkdir()
    said = ""
    with Refusing(root, at, number, lasting).here():
        try:
            run = train(root)
            assert run.state == "finished"  # what was refused is not needed
        except (OSError, RunError, DataError) as error:
            said = str(error)
            assert SAID.search(said) and os.strerror(number) in said, said
    check_whole(root)
    run = train(root)
    assert run.state == "finished" and run.error() is None
    assert run.weights_hash() == straight.weights_hash()
    assert run.metrics()[NUMBERS].equals(straight.metrics()[NUMBERS])
    assert (run.path / "tokenizer.json").read_text() == (
        straight.path / "tokenizer.json"
    ).read_text()
    return said


def kind_of(operation: tuple[str, str]) -> tuple[str, str]:
    """Operations that ought to be refused alike: bytes or names, of one file or in one folder."""
    what, path = operation
    _, _, inside = path.split("/", 2) if path.count("/") > 1 else ("", "", path)
    home, _, name = inside.rpartition("/")
    return ("write" if what == "write" else "name"), home or name.strip(".")[:9]


def places_of(seen: list[tuple[str, str]], which: int) -> list[int]:
    """One place of each kind."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, operation in enumerate(seen):
        places.setdefault(kind_of(operation), []).append(place)
    return [found[which * (len(found) - 1) // 2] for found in places.values()]


def test_a_full_disk_wherever_it_strikes(straight, tmp_path) -> None:
    run, seen = straight
    said = [
        refused(tmp_path / f"{place}", place, errno.ENOSPC, True, run)
        for place in places_of(seen, which=1)
    ]
    assert len(said) > 20 and sum(map(bool, said)) > 16, "what is not needed may be refused"


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS], ids=["failing", "read-only"])
def test_a_disk_that_fails_once_or_may_not_be_written(straight, tmp_path, number) -> None:
    run, seen = straight
    for place in places_of(seen, which=2)[:: 6 if number == errno.EIO else 8]:
        refused(tmp_path / f"{place}", place, number, number == errno.EROFS, run)


@pytest.fixture
def real_disk(tmp_path) -> Iterator[Path]:
    """A file system of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted(folder, "size=4m")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def mounted(folder: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6])
def test_a_real_disk_that_is_full_from_some_step_on(real_disk, tmp_path, step, monkeypatch) -> None:
    """What libraries in C write is refused, too."""
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "prepared"))
    place = sw.Placement(runs_dir=str(real_disk / "runs"), device="cpu", trunk="cached")
    filler = real_disk / "filler"

    def fill(work, numbers) -> None:
        on_step(work, numbers)
        if work.at.total_steps == step:
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)) == 4096:
                    pass

    with pytest.raises(DiskError) as caught:
        sw.train(small(), place, on_step=fill)
    assert code_of(caught.value) == DISK
    assert SAID.search(str(caught.value)), caught.value
    check_whole(real_disk)
    filler.unlink()
    run = sw.train(small(), place)
    other = sw.train(small(), place.replace(runs_dir=str(tmp_path / "runs")))
    assert run.state == "finished" and run.weights_hash() == other.weights_hash()
    assert run.metrics()[NUMBERS].equals(other.metrics()[NUMBERS])


def test_a_real_folder_that_becomes_read_only(real_disk, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "prepared"))
    place = sw.Placement(runs_dir=str(real_disk / "runs"), device="cpu")

    def stop(work, numbers) -> None:
        work.stop_requested = work.at.total_steps == 4

    run = sw.train(small(), place, on_step=stop)
    mounted(real_disk, "remount,ro")
    with pytest.raises(FolderError) as caught:
        sw.resume(run)
    assert code_of(caught.value) == DISK
    assert str(caught.value) == (
        f"placement.runs_dir: {run.path.parent} may not be written to; name another folder, or let "
        "it be"
    )
    assert run.state == "stopped" and len(run.metrics()) == 4 and run.rack() is not None
    mounted(real_disk, "remount,rw")
    assert sw.resume(run).state == "finished"
    other = sw.train(small(), place.replace(runs_dir=str(tmp_path / "runs")))
    assert run.weights_hash() == other.weights_hash()
