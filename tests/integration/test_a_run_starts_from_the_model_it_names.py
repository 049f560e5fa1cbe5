"""A model folder to start from that is missing, of other sizes, or not what it was, is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import stackwise as sw
from stackwise.interop.errors import ModelError
from stackwise.report import program
from stackwise.training.manifest import CheckpointError
from stackwise.training.start import TrainingError, create_run

AGAIN = "import it again, or restore it from a copy"


def imported(folder: Path, seed: int) -> sw.interop.ModelFolder:
    """A model folder of a Llama of two layers with random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
    )
    LlamaForCausalLM(config).save_pretrained(folder / f"llama{seed}")
    return sw.read_model(sw.import_model(folder / f"llama{seed}", folder / "model"))


@pytest.fixture
def exp(tiny, tmp_path) -> sw.Experiment:
    model = imported(tmp_path, 0)
    return tiny.replace(
        start=str(model.path),
        rack=model.rack.model_dump(),
        attention=model.attention,
        objective="clm",
        curriculum="block_coordinate",
    )


def test_what_is_no_model_is_refused(exp, place, tmp_path) -> None:
    commands = {"nowhere": "stackwise import", "llama0": f"{program()} import {tmp_path}/llama0"}
    for name, command in commands.items():
        with pytest.raises(ModelError) as caught:
            sw.train(exp.replace(start=str(tmp_path / name)), place)
        assert str(caught.value) == (
            f"{tmp_path / name}: is no model folder (it has no model.yaml); make one with: "
            f"{command}"
        )


OTHERS = {
    "sizes": (
        {"rack": {"stacks": 1, "tied": True}},
        "rack.stacks: 1 is not 2, that of the model to start from; take the sections of "
        "model/model.yaml\n"
        "rack.tied: True is not False, that of the model to start from; take the sections of "
        "model/model.yaml",
    ),
    "attention": (
        {"attention": "gqa"},
        "attention: gqa is not mha, that of the model to start from; take the sections of "
        "model/model.yaml",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_model_of_another_shape_is_refused(exp, place, case) -> None:
    change, text = OTHERS[case]
    with pytest.raises(sw.ExperimentError) as caught:
        sw.train(exp.replace(**change), place)
    assert str(caught.value) == text
    assert not Path(place.runs_dir).exists()


def test_altered_weights_are_refused(exp, place, tmp_path) -> None:
    (file,) = (tmp_path / "model" / "rack").glob("s1-*")
    bytes_ = bytearray(file.read_bytes())
    bytes_[-3] ^= 1
    file.write_bytes(bytes_)
    with pytest.raises(ModelError) as caught:
        sw.train(exp, place)
    assert str(caught.value).endswith(
        f"rack/{file.name}: is not what was written (its bytes or hash differ); {AGAIN}"
    )


def test_weights_altered_after_the_run_was_made_are_the_models_damage(exp, place, tmp_path) -> None:
    run = create_run(exp, place)
    (file,) = (tmp_path / "model" / "rack").glob("s1-*")
    bytes_ = bytearray(file.read_bytes())
    bytes_[-3] ^= 1
    file.write_bytes(bytes_)
    with pytest.raises(ModelError) as caught:
        sw.resume(run)
    assert str(caught.value).endswith(
        f"/model: rack/{file.name}: is not what was written (its bytes or hash differ); {AGAIN}"
    )


def test_another_model_under_its_name_is_refused_while_it_is_still_read(
    exp, place, tmp_path
) -> None:
    """A run that has not trained yet reads the model; one that has does not need it any more."""

    def stop(work, numbers):
        work.stop_requested = True

    begun, made = sw.train(exp, place, on_step=stop), create_run(exp, place, rerun=True)
    (tmp_path / "model").rename(tmp_path / "old")
    imported(tmp_path, 1)
    with pytest.raises(TrainingError) as caught:
        sw.resume(made)
    assert re.fullmatch(
        rf"run {made.id}: model holds other weights than when the run began \([0-9a-f]{{12}}, was "
        r"[0-9a-f]{12}\); put the old model back, or start a new run",
        str(caught.value),
    )
    assert sw.resume(begun).state == "finished"
    assert sw.train(exp, place).id != begun.id, "from other weights it is another run"


def test_a_checkpoint_that_began_with_other_weights_is_refused(exp, place, tmp_path) -> None:
    def stop(work, numbers):
        work.stop_requested = True

    run = sw.train(exp, place, on_step=stop)
    (tmp_path / "model").rename(tmp_path / "old")
    model = imported(tmp_path, 1)
    other = sw.train(exp, place, on_step=stop)
    assert run.experiment.hash == other.experiment.hash
    for name in ("rack", "state"):
        shutil.rmtree(run.path / name)
        shutil.copytree(other.path / name, run.path / name)
    with pytest.raises(CheckpointError) as caught:
        run.rack()
    assert str(caught.value).startswith(
        f"rack/manifest.json: is of start weights {model.weights_hash[:12]}, and run {run.id} is of"
    )
