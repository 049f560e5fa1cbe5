"""Run folders that each release wrote open with this version, and go on to what they came to then.

To the last bit on the machine that they were made on, with the torch of then. Elsewhere sums are
added up in another order: float32 rounding, 2^-24 per step, which the optimizer amplifies over a
few steps; so there the losses are held, to 1e-4, and no bit is promised.

`0.0.0` is what the code wrote before there was a release: its manifests hold no hash of themselves
(commit 0172e57). `tests/releases/make.py` makes the folder of a release.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import stackwise as sw
from stackwise.determinism import machine_now
from stackwise.interop.exporting import export_model
from stackwise_widgets.charts import list_runs, run_still, view_of
from stackwise_widgets.page import page_html

RELEASES = sorted(path for path in Path(__file__).parents[1].glob("releases/*") if path.is_dir())
RELEASES = [path for path in RELEASES if (path / "expected.json").is_file()]
RUNS = [run.path for release in RELEASES for run in sw.runs_in(release / "runs")]
READERS = (
    "status", "stages", "plan", "provenance", "determinism", "error", "events", "metrics", "evals",
    "layers", "statistics", "drift", "memory", "result", "summary", "tokenizer", "rack",
    "stages_done", "log", "what_now", "has_weights", "weights_hash",
)  # fmt: skip


def named(path: Path) -> str:
    return f"{path.parents[1].name} {path.name.partition('-')[0]}"


@pytest.fixture
def copied(tmp_path):
    """A release's runs in a folder of the test's own."""

    def copy(path: Path) -> sw.Run:
        return sw.Run(shutil.copytree(path, tmp_path / path.parents[1].name / "runs" / path.name))

    return copy


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_there_is_one_of_this_version_and_they_are_small() -> None:
    assert sw.__version__ in [path.name for path in RELEASES]
    for release in RELEASES:
        kinds = {run.id.partition("-")[0] for run in sw.runs_in(release / "runs")}
        assert {"finished", "interrupted"} <= kinds
        texts = {path.read_bytes() for path in release.rglob("*") if path.is_file()}
        assert sum(map(len, texts)) < 200_000, release.name
        assert not any(b"/root/" in text or b"/home/" in text or b"/tmp/" in text for text in texts)


@pytest.mark.parametrize("path", RUNS, ids=named)
def test_every_reader_reads_it_and_changes_nothing(path: Path) -> None:
    before, run = hashes(path), sw.Run(path)
    found = {name: getattr(run, name)() for name in READERS}
    assert run.experiment.title == run.id.partition("-")[0]
    assert len(found["metrics"]) == run.status()["step"]
    assert len(found["evals"]) and found["summary"]["problem"] is None
    begun = min(2, found["stages_done"] + (run.state != "finished" and found["error"] is None))
    assert len(found["rack"].held()) in (found["stages_done"], begun)
    page = page_html(run)
    assert 'class="sw-lacks"' not in page
    assert run_still(view_of(run)) is not None
    assert list_runs(path.parent).set_index("id").loc[run.id, "problem"] in (None, "")
    assert hashes(path) == before


@pytest.mark.parametrize("path", RUNS, ids=named)
def test_it_goes_on_to_what_it_came_to_then(path: Path, copied) -> None:
    run = copied(path)
    expected = json.loads((path.parents[1] / "expected.json").read_text())
    known = expected["runs"][f"runs/{run.id}"]
    torch.set_num_threads(1)
    sw.resume(run)
    assert run.state == "finished"
    np.testing.assert_allclose(run.metrics()["loss"], known["loss"], rtol=1e-4)
    if expected["machine"] == machine_now("cpu"):
        assert run.metrics()["loss"].tolist() == known["loss"]
        assert run.weights_hash() == known["weights"]


def test_what_is_finished_is_forked_shared_and_exported(copied, tmp_path) -> None:
    for path in RUNS:
        if not path.name.startswith("finished"):
            continue
        run = copied(path)
        if (path / "stages" / "0000").is_dir():
            branch = run.fork(after_stage=0, launch=False, optim={"lr": 0.02})
            assert sw.resume(branch).state == "finished"
        other = run.experiment.replace(start=run.path.name, curriculum="end_to_end", title="more")
        began = sw.train(other, sw.Placement(device="cpu", threads=1, data_dir=str(run.path.parent),
                                             runs_dir=str(tmp_path / "began")))  # fmt: skip
        assert began.state == "finished"
        assert run.share(tmp_path / f"{path.parents[1].name}.zip").stat().st_size > 1000
        if run.experiment.objective.choice == "clm":  # as a Llama
            made = export_model(run, tmp_path / f"{path.parents[1].name}-model")
            assert (made / "model.safetensors").is_file()


def test_a_study_of_a_release_is_read_and_goes_on(tmp_path) -> None:
    for release in RELEASES:
        if not (release / "study").is_dir():
            continue
        home = Path(shutil.copytree(release / "study", tmp_path / release.name))
        (folder,) = (path.parent for path in home.glob("*/study.yaml"))
        before = sw.StudyResult.load(folder)
        assert len(before.runs) == 2 and not before.failures
        assert [run.state for _, _, run in before.runs] == ["finished"] * 2
        again = sw.Study.load(folder).run()
        assert again.to_frame()["run"].tolist() == before.to_frame()["run"].tolist()
