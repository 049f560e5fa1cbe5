"""A run's folder after a power cut: the old checkpoint or the new one, with all that is behind it.

A whole life is recorded once: made, trained with checkpoints inside stages and at borders (parts
that stay, that go, and masters that are written ahead), stopped, moved to another placement and
trunk, and brought to its end. Then the power fails between any two operations, and what may be left
by the model in `tests/power.py` is opened. A SIGKILL is another thing: it loses nothing that was
handed to the kernel (`test_a_kill_leaves_a_whole_checkpoint.py`).
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.runs import writer
from stackwise.runs.metrics import read_table
from stackwise.runs.records import MANIFEST, is_run
from stackwise.training import bests, kept_stages, saved
from stackwise.training import run as running
from stackwise.training.kept_stages import folder_of
from stackwise.training.manifest import read_manifest, verify_part
from stackwise.training.start import create_run

from ..power import Disk, Marked, Named, Note, Recorder, State, Synced, crashes, lay

DRAWS = 1
Known = dict[object, list[float]]
NUMBERS = ["step", "loss", "grad_norm", "flops"]


@dataclass
class Told:
    """How far a run had come: what must be there whatever is lost."""

    made: bool = False
    saved: dict[str, int] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)
    finished: bool = False


@dataclass
class Life:
    """A recorded run.

    Attributes:
        saves: Folder to the manifests that were written there, in order.
        behind: Manifest of a `rack` to the events that were written before it.
    """

    recorder: Recorder
    id: str
    saves: dict[str, list[str]]
    behind: dict[str, bytes]
    losses: list[float]
    hash: str


@pytest.fixture(scope="module")
def life(tmp_path_factory) -> Life:
    root = tmp_path_factory.mktemp("disk")
    recorder = Recorder(root)
    saves: dict[str, list[str]] = {"rack": [], "best": []}
    behind: dict[str, bytes] = {}
    exp = sw.Experiment(
        title="t",
        rack={"stacks": 3, "blocks_per_stack": 1, "d_model": 64, "heads": 2, "d_ff": 8},
        data={"corpus": {"kind": "markov", "size_bytes": 4000}, "seq_len": 8},
        optim={"batch": 2, "lr": 0.01, "ema": 0.9},
        budget={"tokens": 6 * 2 * 2 * 8},
        eval={"points": 3, "windows": 2, "draws": 1, "final": 2},
        curriculum={"name": "block_coordinate", "cycles": 2, "optimizer_state": "keep"},
        precision={"frozen": "nf4", "master": "bf16"},
    )
    place = sw.Placement(runs_dir=str(root / "new" / "runs"), device="cpu")
    save, keep_stage = saved.save, running.keep_stage

    def noted(folder: Path, *args, **facts) -> None:
        before = (folder.parent / "events.jsonl").read_bytes()
        save(folder, *args, **facts)
        manifest = (folder / MANIFEST).read_text()
        saves[folder.name].append(manifest)
        if folder.name == "rack":
            behind[manifest] = before
        recorder.mark(("saved", folder.name))

    def kept(work) -> None:
        keep_stage(work)
        if kept_stages.kept_stages(work.run.path):
            recorder.mark(("kept", max(kept_stages.kept_stages(work.run.path))))

    def on_step(work, numbers) -> None:
        work.saved_at -= 3600 * (work.at.total_steps % 3 == 1)
        work.stop_requested = work.at.total_steps == 7

    with pytest.MonkeyPatch.context() as patch, recorder.recording():
        patch.setattr(writer, "HEARTBEAT_SECONDS", 0.2)
        patch.setattr(saved, "save", noted)
        patch.setattr(bests, "save", noted)
        patch.setattr(running, "keep_stage", kept)
        run = create_run(exp, place)
        recorder.mark("made")
        running.execute(run, on_step=on_step)
        assert run.state == "stopped"
        sw.resume(run, placement={"trunk": "cached"})
        recorder.mark("finished")
    assert run.state == "finished"
    straight = sw.train(exp, place.replace(runs_dir=str(tmp_path_factory.mktemp("straight"))))
    assert straight.weights_hash() == run.weights_hash()
    assert straight.metrics()[NUMBERS].equals(run.metrics()[NUMBERS])
    return Life(recorder, run.id, saves, behind, list(run.metrics()["loss"]), run.weights_hash())


def test_replaying_all_that_was_noted_gives_the_real_folder(life) -> None:
    disk = Disk()
    for note in life.recorder.notes:
        disk.do(note)
    root = life.recorder.root
    paths = [path for path in root.rglob("*")]
    real = {str(p.relative_to(root)): None if p.is_dir() else p.read_bytes() for p in paths}
    assert disk.all_there() == real and len(real) > 40


def told(so_far: Told, mark: object) -> None:
    if mark == "made":
        so_far.made = True
    elif mark == "finished":
        so_far.finished = True
    elif isinstance(mark, tuple) and mark[0] == "saved":
        so_far.saved[mark[1]] = so_far.saved.get(mark[1], 0) + 1
    elif isinstance(mark, tuple):
        so_far.kept.add(mark[1])


def check(life: Life, run: Path, so_far: Told, state: State, known: Known) -> None:
    """What a folder must be that was told to have come so far.

    Args:
        known: Checkpoints that have been found whole, and metrics that have been read: equal ones
            are not read again.
    """
    if not is_run(run):
        assert not so_far.made
        return
    for name in ("experiment.yaml", "placement.yaml"):
        assert (run / name).read_text().endswith("\n")
    for name in ("plan.json", "provenance.json", "tokenizer.json"):
        json.loads((run / name).read_text())
    for name, manifests in life.saves.items():
        count = so_far.saved.get(name, 0)
        if not (run / name / MANIFEST).exists():
            assert not count, f"{name}: a checkpoint is gone"
            continue
        text = (run / name / MANIFEST).read_text()
        assert text in manifests[max(count - 1, 0) : count + 1]
        whole(run, name, state, known)
        if name == "rack":
            assert (run / "events.jsonl").read_bytes().startswith(life.behind[text])
            steps = json.loads(text)["counters"]["total_steps"]
            assert rows(run, state, known)[:steps] == life.losses[:steps]
    kept = kept_stages.kept_stages(run)
    assert so_far.kept <= set(kept), "a kept stage is gone"
    for number in kept:
        whole(run, str(folder_of(run, number).relative_to(run) / "rack"), state, known)
    if so_far.finished:
        found = sw.Run(run)
        assert found.state == "finished" and found.error() is None
        assert list(found.metrics()["loss"]) == life.losses
        assert found.weights_hash() == life.hash


def whole(run: Path, name: str, state: State, known: Known) -> None:
    base = str(Path(name).parent / "st").removeprefix(".")  # st: its state folder as well
    key = part_of(state, f"{run.name}/{name}/", f"{run.name}/{base}")
    if key in known:
        return
    manifest = read_manifest(run / name)
    for part in manifest["parts"]:
        verify_part(run / name, manifest, part)
    known[key] = []


def part_of(state: State, *under: str) -> object:
    """What a state holds in some places, to know it again by."""
    return frozenset((path, data) for path, data in state.items() if any(u in path for u in under))


def rows(run: Path, state: State, known: Known) -> list[float]:
    key = part_of(state, f"{run.name}/metrics/")
    if key not in known:
        known[key] = read_table(run)["loss"].to_pylist()
    return known[key]


def replay(life: Life, folder: Path, notes: list[Note]) -> int:
    """Cut the power between any two operations; how many states were opened."""
    chance, disk, so_far = random.Random(7), Disk(), Told()
    laid: State = {}
    seen: set[object] = set()
    known: Known = {}
    for note in notes:
        disk.do(note)
        if isinstance(note, Marked):
            told(so_far, note.what)
        for state in crashes(disk, chance, DRAWS):
            key = hash(frozenset(state.items())), repr(so_far)
            if key in seen:
                continue
            seen.add(key)
            lay(state, folder, laid)
            check(life, folder / "new" / "runs" / life.id, so_far, state, known)
    return len(seen)


def test_each_state_is_the_old_checkpoint_or_the_new_one(life, tmp_path) -> None:
    count = replay(life, tmp_path, life.recorder.notes)
    print(len(life.recorder.notes), "operations,", count, "states")
    assert count > 1000


@pytest.mark.parametrize("name", ["events.jsonl", "0001.arrows", ".manifest.json"])
def test_no_fsync_is_made_in_vain(life, tmp_path, name) -> None:
    """Without those of one kind of file, something is lost."""
    named = [note for note in life.recorder.notes if isinstance(note, Named)]
    nodes = {note.node for note in named if note.name.startswith(name)}
    notes = [n for n in life.recorder.notes if not (isinstance(n, Synced) and n.node in nodes)]
    assert len(notes) < len(life.recorder.notes)
    with pytest.raises(Exception):  # noqa: B017  whatever the first thing is that is lost
        replay(life, tmp_path, notes)
