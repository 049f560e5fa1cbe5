"""The finished runs in data/runs/ open, are small, and name nothing of the machine they ran on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.seals import sealed
from stackwise.training.manifest import CheckpointError
from stackwise.training.ownership import identity_of
from stackwise.training.start import run_hash, stages_of

RUNS = Path(__file__).parents[2] / "data" / "runs"


def test_there_is_one_per_curriculum_and_they_are_small() -> None:
    found = {run.experiment.curriculum.choice for run in sw.runs_in(RUNS)}
    assert found == {"end_to_end", "left_to_right", "right_to_left", "grow"}
    texts = {path.read_bytes() for path in RUNS.rglob("*") if path.is_file()}
    assert sum(map(len, texts)) < 2_000_000  # a clone fetches what is there twice once


@pytest.mark.parametrize("run", sw.runs_in(RUNS), ids=lambda run: run.id)
def test_each_opens_and_can_be_read(run: sw.Run) -> None:
    assert run.state == "finished"
    assert len(run.metrics()) == run.metrics()["step"].iloc[-1]
    assert run.rack().held() == ("s0", "s1", "s2", "s3")
    assert run.rack(best=True).vocab == run.tokenizer().size
    assert run.result()["bits_per_byte"] < 8
    for path in run.path.rglob("*.json*"):
        text = path.read_text()
        assert "/home/" not in text and "/root/" not in text, path


@pytest.mark.parametrize("run", sw.runs_in(RUNS), ids=lambda run: run.id)
def test_keys_that_came_later_change_no_hash_and_no_id(run: sw.Run) -> None:
    exp, known = run.experiment, run.provenance()
    assert exp.hash == known["experiment"]
    name = run_hash(exp, stages_of(run), known["data"]["fingerprint"])
    assert run.id.endswith(name)
    assert exp.replace(data={"seq_len_by_stage": [8] * 4}).hash != exp.hash


def test_a_run_of_a_rack_built_otherwise_says_so(tmp_path: Path) -> None:
    run = next(iter(sw.runs_in(RUNS)))
    copy = shutil.copytree(run.path, tmp_path / "runs" / run.id)
    other = run.experiment.replace(rack={"bias": True})
    (copy / "experiment.yaml").write_text(other.to_yaml())
    manifest = copy / "rack" / "manifest.json"
    facts = json.loads(manifest.read_text()) | {"run": identity_of(sw.Run(copy))}
    manifest.write_text(json.dumps(sealed(facts)))
    with pytest.raises(CheckpointError) as error:
        sw.Run(copy).rack()
    assert str(error.value) == (
        f"{copy / 'rack'}: part 's0' has other tensors than this version's rack; train it again, "
        "or open it with the version in provenance.json"
    )
