"""What frozen, lent or cached stacks cannot do is said before anything trains, with the way out."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import stackwise as sw
from stackwise.cli import main
from stackwise.model import formats
from stackwise.model.saved import Saved
from stackwise.model.scores import Scores
from stackwise.model.working import Working
from stackwise.training.start import create_run


def refusal(exp: sw.Experiment, place: sw.Placement) -> str:
    """What training it says; no run is made."""
    with pytest.raises(sw.ExperimentError) as caught:
        sw.train(exp, place)
    assert not Path(place.runs_dir).exists()
    return str(caught.value)


def experiment(tiny: sw.Experiment, changes: dict) -> sw.Experiment:
    return tiny.replace(**{"curriculum": "left_to_right", **changes})


def trained_late(exp):
    """A stack that is there frozen, and trains only in the stage after."""
    first, second, third, fourth = sw.stack_ids(exp.rack)
    yield sw.Stage(path=(first, second, third, fourth), active=(fourth,))
    yield sw.Stage(path=(first, second, third, fourth), active=(first,))


def embedding_late(exp):
    """Trains the embedding under a stack that it has frozen."""
    ids = sw.stack_ids(exp.rack)
    yield sw.Stage(path=ids[:1], active=ids[:1])
    yield sw.Stage(path=ids, active=ids[1:], embedding=True)


EXPERIMENTS = {
    "block coordinates over nf4 without masters": (
        {"curriculum": "block_coordinate", "precision": {"frozen": "nf4"}},
        {},
        "precision.master: none, but stage 1 trains s1, which is frozen to nf4 in stage 0 and "
        "would go on from what nf4 left of it; give master=bf16 or fp32, or leave "
        "precision.frozen empty",
    ),
    "a stack that is frozen before it ever trains": (
        {"curriculum": "trained_late", "precision": {"frozen": "fp8"}},
        {},
        "precision.master: none, but stage 1 trains s0, which is frozen to fp8 in stage 0 and "
        "would go on from what fp8 left of it; give master=bf16 or fp32, or leave "
        "precision.frozen empty",
    ),
    "a cache under an embedding that trains": (
        {
            "curriculum": {"name": "left_to_right", "embedding": "always"},
            "rack": {"stacks": 2},
        },
        {"trunk": "cached"},
        "placement.trunk: cached, but stage 1 (s1) trains the embedding under frozen stacks, whose "
        "outputs change with it; give curriculum.embedding=first, or use trunk=recompute or "
        "streamed",
    ),
    "a cache under an embedding that trains in many stages": (
        {"curriculum": {"name": "block_coordinate", "embedding": "always"}},
        {"trunk": "cached"},
        "placement.trunk: cached, but stages 1 (s1), 2 (s2), 3 (s3), 5 (s1) and 2 more train the "
        "embedding under frozen stacks, whose outputs change with it; give "
        "curriculum.embedding=with_first, or use trunk=recompute or streamed",
    ),
    "a cache under an embedding that one's own curriculum trains": (
        {"curriculum": "embedding_late"},
        {"trunk": "cached"},
        "placement.trunk: cached, but stage 1 (s1-s3) trains the embedding under frozen stacks, "
        "whose outputs change with it; use trunk=recompute or streamed",
    ),
    "a cache of masks that never repeat": (
        {
            "objective": "mlm",
            "masking": {"schedule": "ramp"},
            "data": {"distinct_epochs": 1},
        },
        {"trunk": "cached"},
        "placement.trunk: cached, but masking.schedule=ramp masks more or less as training goes "
        "on, so that rows never repeat; leave data.distinct_epochs empty, or use trunk=recompute "
        "or streamed",
    ),
    "a cache over its budget": (
        {},
        {"trunk": "cached", "cache_gb": 1e-6},
        "placement.cache_gb: 1e-06 < 4.16e-05, which the outputs of the trunk take by arithmetic; "
        "raise it, lower budget, or use trunk=streamed",
    ),
    "a place to stream from that nothing reads": (
        {},
        {"stream_from": "host"},
        "placement.stream_from: 'host' is not read with trunk=recompute; leave it at disk",
    ),
    "a cache folder that nothing reads": (
        {},
        {"trunk": "streamed", "cache_dir": "x", "cache_gb": 1},
        "placement.cache_dir: 'x' is not read with trunk=streamed; leave it empty\n"
        "placement.cache_gb: 1.0 is not read with trunk=streamed; leave it empty",
    ),
}


@pytest.mark.parametrize("case", EXPERIMENTS)
def test_before_anything_is_made(tiny, place, case, monkeypatch) -> None:
    for function in (trained_late, embedding_late):
        monkeypatch.setitem(sw.CURRICULA, function.__name__, function)
    science, placement, text = EXPERIMENTS[case]
    assert refusal(experiment(tiny, science), place.replace(**placement)) == text


@pytest.mark.parametrize("name", ["left_to_right", "right_to_left", "block_coordinate"])
def test_a_way_out_for_the_embedding_is_one(tiny, place, name) -> None:
    """Typed as it is given, the experiment trains."""
    options = {"name": name, "embedding": "always"}
    if name == "block_coordinate":
        options["order"] = "right_to_left"
    exp = tiny.replace(curriculum=options)
    try:
        create_run(exp, place.replace(trunk="cached"))
    except sw.ExperimentError as error:
        value = re.search(r"give curriculum\.embedding=(\w+), or", str(error))[1]
        create_run(exp.replace(curriculum={"embedding": value}), place.replace(trunk="cached"))
    else:
        assert name == "right_to_left"


UNREAD = {
    "a master of nothing": (
        {"master": "fp32"},
        "precision.master: 'fp32' is not read with frozen empty, which loses nothing; leave it at "
        "none",
    ),
    "a master of what loses nothing": (
        {"compute": "bfloat16", "weights": "bfloat16", "frozen": "bf16", "master": "fp32"},
        "precision.master: 'fp32' is not read with frozen bf16, which loses nothing; leave it at "
        "none",
    ),
    "rounding of float32 weights": (
        {"rounding": "stochastic"},
        "precision.rounding: 'stochastic' is not read with weights=float32; leave it at master",
    ),
}


@pytest.mark.parametrize("case", UNREAD)
def test_a_key_that_nothing_reads(tiny, case) -> None:
    precision, text = UNREAD[case]
    with pytest.raises(sw.ExperimentError) as caught:
        tiny.replace(precision=precision)
    assert str(caught.value) == text


BNB = "bitsandbytes"
PACKAGES = {
    "int8": (
        {"precision": {"frozen": "int8"}},
        "precision.frozen: int8 needs bitsandbytes 0.50 or newer, which is not installed; pip "
        'install "stackwise[quant]", or choose fp16, bf16 or fp8',
    ),
    "lion8bit": (
        {"optim": {"name": "lion8bit"}},
        "optim.name: lion8bit needs bitsandbytes 0.50 or newer, which is not installed; pip "
        'install "stackwise[quant]", or use optim.name=adamw',
    ),
}


@pytest.mark.parametrize("case", PACKAGES)
def test_a_package_that_is_missing(tiny, place, case, monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == BNB else found(name)
    )
    science, text = PACKAGES[case]
    assert refusal(experiment(tiny, science), place) == text


@pytest.mark.parametrize("case", PACKAGES)
def test_a_package_that_is_too_old(tiny, place, case, monkeypatch) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.45.0" if name == BNB else version(name)
    )
    science, text = PACKAGES[case]
    said = refusal(experiment(tiny, science), place)
    assert said == text.replace(", which is not", ", and 0.45.0 is")


@pytest.mark.parametrize("case", PACKAGES)
def test_of_a_run_that_is_there_nothing_but_the_package_is_asked(
    tiny, place, case, monkeypatch, capsys
) -> None:
    """Its format and its optimizer are what they are."""
    science, text = PACKAGES[case]
    run = create_run(experiment(tiny, science), place)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == BNB else found(name)
    )
    formats._load.cache_clear()
    said = text.partition(", or ")[0]
    for placement in (None, {"threads": 1}):
        with pytest.raises(sw.ExperimentError) as caught:
            sw.resume(run, placement=placement)
        assert str(caught.value) in (said, said.removeprefix("precision.frozen: "))
    assert main(["resume", str(run.path)]) == 2
    assert capsys.readouterr().err == f"stackwise: {said}\n"
    formats._load.cache_clear()


@pytest.mark.parametrize("key", ["cache_dir", "runs_dir"])
def test_a_folder_that_is_a_file(tiny, place, tmp_path, key) -> None:
    (tmp_path / "file").write_text("")
    odd = place.replace(trunk="cached", **{key: str(tmp_path / "file" / "inside")})
    said = refusal(experiment(tiny, {}), odd)
    assert said == f"placement.{key}: {tmp_path}/file is a file; name a folder"


def test_a_folder_that_may_not_be_written_to(tiny, place, tmp_path, monkeypatch) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked and may(path, mode))
    said = refusal(experiment(tiny, {}), place.replace(trunk="cached", cache_dir=str(locked)))
    assert said == (
        f"placement.cache_dir: {locked} may not be written to; name another folder, or let it be"
    )


class Plain(sw.Params):
    """Every token gets a mixture of its own numbers."""

    kind: str = "plain"


class PlainAttention(nn.Module):
    """A matrix that is in no linear layer."""

    def __init__(self, shape, params) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.eye(shape.d_model))

    def forward(self, x_BTD, *, causal):
        return x_BTD @ self.mix


def test_a_matrix_outside_a_linear_layer_is_not_frozen_to_less(tiny, place, monkeypatch) -> None:
    kind = sw.AttentionKind(
        PlainAttention,
        Plain,
        parameters=lambda shape, params: shape.d_model**2,
        matmul_parameters=lambda shape, params: shape.d_model**2,
        input_parameters=lambda shape, params: shape.d_model**2,
        score_flops=lambda shape, params, tokens, causal: Scores(0),
        saved_floats=lambda shape, params, tokens, causal, trains: Saved(0, shape.d_model * trains),
        working_floats=lambda shape, params, tokens, causal, low, trains: Working(
            Saved(0, shape.d_model), Saved(0, 2 * shape.d_model), Saved(0, 2 * shape.d_model)
        ),
        cache_floats=lambda shape, params: 0,
    )
    monkeypatch.setitem(sw.ATTENTION, "plain", kind)
    exp = experiment(tiny, {"attention": "plain"})
    assert refusal(exp.replace(precision={"frozen": "nf4"}), place) == (
        "precision.frozen: nf4 is made of the matrices of nn.Linear layers, and attention.mix of "
        "attention=plain is in none; keep it in an nn.Linear, or leave precision.frozen empty"
    )
    resident, lent = (
        sw.train(exp, place),
        sw.train(exp, place.replace(trunk="streamed"), rerun=True),
    )
    assert lent.weights_hash() == resident.weights_hash(), "unpacked it is lent around"


IDLE = {
    "streamed": ("placement.trunk=streamed has no effect: no stage has a frozen stack",),
    "cached": ("placement.trunk=cached has no effect: no stage has a frozen stack",),
    "recompute": (),
}


@pytest.mark.parametrize("trunk", IDLE)
def test_what_has_no_effect_on_a_control_is_noted(tiny, place, trunk) -> None:
    exp = tiny.replace(precision={"frozen": "bf16"})
    run = sw.train(exp, place.replace(trunk=trunk))
    frozen = "precision.frozen=bf16 has no effect: no stage has a frozen stack"
    assert run.provenance()["notes"] == [*IDLE[trunk], frozen]
    left_to_right = sw.train(exp.replace(curriculum="left_to_right"), place.replace(trunk=trunk))
    assert left_to_right.provenance()["notes"] == []


def test_a_cache_without_a_trunk_is_noted_by_the_command(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    data = "data.corpus=markov data.corpus.size_bytes=40000 budget.tokens=4096 eval.points=1"
    more = "rack.stacks=2 curriculum=right_to_left masking.bands=linear placement.trunk=cached"
    assert main(["run", "toy", *data.split(), *more.split()]) == 0
    assert (
        "note: placement.trunk=cached caches nothing: no stage has frozen stacks before those that "
        "train; those after them are streamed\n"
    ) in capsys.readouterr().out
