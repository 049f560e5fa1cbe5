"""SIGKILL while stacks are put away before the first step, and while a cache is being filled.

A child process is killed by itself at an exact place; this process goes on to the same weights.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import stackwise as sw
from stackwise.training import caching, residence
from stackwise.training.manifest import CheckpointError
from stackwise.training.run import execute
from stackwise.training.start import create_run
from stackwise.trunk.shards import Manifest

NUMBERS = ["step", "loss", "grad_norm", "flops"]


def small_shards(patch: pytest.MonkeyPatch) -> None:
    """Let a shard hold one batch."""
    layout_of = caching.layout_of
    patch.setattr(caching, "layout_of", lambda *given: replace(layout_of(*given), shard_bytes=4096))


def killed(run: sw.Run, owner: object, name: str, count: int) -> None:
    """Train a run in a child that ends itself after so many calls of a function that writes."""
    child = os.fork()
    if child == 0:
        try:
            function, seen = getattr(owner, name), []

            def dying(*args, **kwargs):
                result = function(*args, **kwargs)
                seen.append(name)
                if len(seen) == count:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            setattr(owner, name, dying)
            execute(run)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert run.state == "died"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder to start from, and its rack."""
    folder = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=32,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    return sw.read_model(sw.import_model(folder / "llama", folder / "model"))


@pytest.fixture(params=["at random", "from a model"])
def cycling(request, tiny, model) -> sw.Experiment:
    """Stacks that are put away before the first step, frozen to nf4 with masters."""
    exp = tiny.replace(curriculum="block_coordinate", precision={"frozen": "nf4", "master": "fp32"})
    if request.param == "at random":
        return exp
    return exp.replace(
        start=str(model.path),
        rack=model.rack.model_dump(),
        attention=model.attention,
        objective="clm",
    )


@pytest.mark.parametrize("count", [1, 2])
def test_while_stacks_are_put_away(cycling, place, count) -> None:
    place = place.replace(trunk="streamed")
    whole, run = sw.train(cycling, place), create_run(cycling, place, rerun=True)
    killed(run, residence, "save_parts", count)
    with pytest.raises(CheckpointError, match=f"^run {run.id}: has no checkpoint yet; it is died$"):
        run.rack()
    sw.resume(run)
    assert run.metrics()[NUMBERS].equals(whole.metrics()[NUMBERS])
    assert run.weights_hash() == whole.weights_hash()


@pytest.mark.parametrize("count", [3, 8], ids=["from tokens", "from the stage before"])
def test_while_a_cache_is_filled(tiny, place, monkeypatch, count) -> None:
    """Of each cache the manifest is written at first, and after each shard."""
    exp = tiny.replace(
        curriculum={"name": "left_to_right", "split": "tokens"}, data={"restart": True}
    )
    whole = sw.train(exp, place)
    small_shards(monkeypatch)
    run = create_run(exp, place.replace(trunk="cached"), rerun=True)
    killed(run, Manifest, "save", count)
    stage = 1 if count < 6 else 2
    (last,) = (run.path / "cache").glob(f"{stage}/cache.json")
    assert last.read_text().count("xxh3") == 2, "two of four shards"
    outputs, made = caching.outputs, []

    def counted(work, number, rows, first, older):
        made.append((number, first))
        return outputs(work, number, rows, first, older)

    monkeypatch.setattr(caching, "outputs", counted)
    sw.resume(run)
    assert [first for number, first in made if number == stage] == [8, 12], "what was missing"
    assert run.metrics()[NUMBERS].equals(whole.metrics()[NUMBERS])
    assert run.weights_hash() == whole.weights_hash()


def test_a_stop_is_heard_while_a_cache_is_filled(tiny, place, monkeypatch) -> None:
    exp = tiny.replace(curriculum={"name": "left_to_right", "split": "tokens"})
    whole = sw.train(exp, place)
    run = create_run(exp, place.replace(trunk="cached"), rerun=True)
    outputs = caching.outputs

    def asked(work, number, rows, first, older):
        work.stop_requested = (number, first) == (2, 4)
        return outputs(work, number, rows, first, older)

    with monkeypatch.context() as patch:
        patch.setattr(caching, "outputs", asked)
        sw.resume(run)
    assert run.state == "stopped" and len(run.metrics()) == 8
    sw.resume(run)
    assert run.metrics()[NUMBERS].equals(whole.metrics()[NUMBERS])
    assert run.weights_hash() == whole.weights_hash()
