"""Runs whose frozen stacks carry adapters: what moves, what is kept, merged, and read again."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

import stackwise as sw
from stackwise.model.adapters import adapter_state, bare_state, deltas_of, layers_of, merge_adapters
from stackwise.runs import Run
from stackwise.stage_ends import rack_after
from stackwise.training import borders
from stackwise.training.run import execute
from stackwise.training.start import create_run
from stackwise.training.updates import OPTIMIZERS

ARMS = {
    "suffix": {"curriculum": "right_to_left", "adapters": {"on": "suffix", "rank": 3}},
    "trunk of nf4": {
        "curriculum": "left_to_right",
        "adapters": {"on": "trunk", "rank": [2, 0, 3, 1]},
        "precision": {"frozen": "nf4"},
    },
    "dual, int8": {
        "curriculum": {"name": "block_coordinate", "cycles": 1},
        "adapters": {"on": "both", "targets": "attention"},
        "precision": {"frozen": "int8", "master": "fp32"},
    },
}


def copies(work):
    """Every tensor of the rack, adapters apart."""
    found = {}
    for part, module in work.rack.parts().items():
        found[part] = {k: t.clone() for k, t in bare_state(module).items()}
        beside = {k: t.clone() for k, t in adapter_state(module).items()}
        found |= {f"{part}.adapter": beside} if beside else {}
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("arm", ARMS)
def test_only_adapters_and_what_is_active_move(tiny, place, arm, optimizer) -> None:
    exp, first, last = tiny.replace(**ARMS[arm], optim={"name": optimizer}), {}, {}

    def on_step(work, numbers):
        first.setdefault(work.at.stage, copies(work))
        last[work.at.stage] = copies(work)

    run = sw.train(exp, place, on_step=on_step)
    trained = 0
    for number, stage in enumerate(sw.stages(exp)):
        if number not in last or last[number] is first[number]:
            continue
        named = {a.part for a in stage.adapters or ()}
        assert {part for part in first[number] if part.endswith(".adapter")} == named
        moves = {*named, *stage.active, *(["embedding"] if stage.embedding else [])}
        moves |= {"head"} if stage.head else set()
        for part, tensors in first[number].items():
            same = all(torch.equal(t, last[number][part][name]) for name, t in tensors.items())
            assert same == (part not in moves), (number, part)
        trained += len(named)
    assert trained
    carried = {a.stack: a.rank for a in sw.stages(exp)[-1].adapters}
    rack = run.rack()
    found = {
        stack: {layer.r["default"] for _, layer in layers_of(module)}
        for stack, module in rack.stacks.items()
    }
    assert {stack: ranks for stack, ranks in found.items() if ranks} == {
        stack: {rank} for stack, rank in carried.items()
    }


def test_the_parameters_that_train_are_counted(tiny, place) -> None:
    run = sw.train(tiny.replace(**ARMS["suffix"]), place)
    started = [e for e in run.events() if e["kind"] == "stage_started"]
    size = 3 * sum(o + i for o, i in ((48, 16), (16, 16), (64, 16), (64, 16), (16, 64)))
    whole = [e["trained_parameters"] for e in started]
    assert [b - a for a, b in pairwise(whole[1:])] == [size, size]
    assert started[-1]["adapters"] == {"s1": 3, "s2": 3, "s3": 3}


def test_files_of_their_own_hold_them(tiny, place) -> None:
    run = sw.train(tiny.replace(**ARMS["trunk of nf4"]), place)
    names = sorted(p.name.rpartition("-")[0] for p in (run.path / "rack").glob("*.safetensors"))
    stacks = ["s0", "s0.adapter", "s1", "s2", "s2.adapter", "s3"]
    assert names == ["embedding", "head", *stacks]
    (file,) = (run.path / "rack").glob("s2.adapter-*")
    held = load_file(file)
    assert held["blocks.0.ffn.down.lora_A.weight"].shape == (3, 64)
    rack = adapter_state(run.rack().stacks["s2"])
    assert rack.keys() == held.keys() and all(torch.equal(rack[k], held[k]) for k in held)
    assert adapter_state(run.rack(best=True).stacks["s2"]).keys() == held.keys()
    lent = run.rack(lent="disk")
    ids = torch.arange(16).view(1, 16) % 61
    assert torch.equal(lent(ids), run.rack()(ids))


def test_a_stack_that_trains_takes_its_adapter_in(tiny, place, monkeypatch) -> None:
    """Its weights begin at W + (alpha / rank) B A, in float32, from its master."""
    exp, begun = tiny.replace(**ARMS["dual, int8"]), {}
    exp, take_masters = exp.replace(optim={"ema": None}), borders.take_masters

    def stopped(work, *rest):
        if work.at.stage == 1:
            begun.update(work.merged["s1"])
            raise KeyboardInterrupt
        take_masters(work, *rest)

    monkeypatch.setattr(borders, "take_masters", stopped)
    run = create_run(exp, place)
    with pytest.raises(KeyboardInterrupt):
        execute(run)
    monkeypatch.undo()
    kept = rack_after(Run(run.path), 0)
    adapter = sw.stages(exp)[0].adapters[0]
    wanted = dict(deltas_of(adapter_state(kept.stacks["s1"]), adapter))
    assert adapter.stack == "s1" and begun.keys() == wanted.keys()
    assert all(torch.equal(begun[name], wanted[name]) for name in wanted)
    assert all(delta.any() for delta in wanted.values())
    done = sw.resume(run)
    names = [p.name for p in (done.path / "rack").glob("*.adapter-*")]
    assert sorted(name[:2] for name in names) == ["s0", "s1", "s2"]
    assert [e["stack"] for e in done.events() if e["kind"] == "merged"] == ["s1", "s1", "s2", "s3"]


def test_ends_of_stages_and_drift_know_them(tiny, place) -> None:
    run = sw.train(tiny.replace(**ARMS["suffix"]), place.replace(keep_stages=True))
    assert [len(adapter_state(rack_after(run, n).stacks["s3"])) for n in range(4)] == [
        0,
        10,
        10,
        10,
    ]
    drift = sw.weight_drift(run).set_index(["part", "stage"])
    assert drift.loc[("s3", 1), "trained"] and drift.loc[("s3", 1), "distance"] > 0


def test_a_fork_goes_on_with_them(tiny, place) -> None:
    run = sw.train(tiny.replace(**ARMS["suffix"]), place.replace(keep_stages=True))
    other = run.fork(after_stage=1, **{"optim.lr": 1e-3})
    execute(other)
    assert [len(s.adapters or ()) for s in other_stages(other)] == [0, 1, 2, 3]
    assert adapter_state(other.rack().stacks["s3"])


def test_a_fork_that_asks_for_them_has_none_before_it_begins(tiny, place) -> None:
    exp = tiny.replace(curriculum="right_to_left")
    run = sw.train(exp, place.replace(keep_stages=True))
    other = run.fork(after_stage=1, **{"adapters.on": "suffix"})
    execute(other)
    assert [len(s.adapters or ()) for s in other_stages(other)] == [0, 0, 2, 3]
    assert adapter_state(other.rack().stacks["s3"])


def other_stages(run):
    return [sw.Stage.model_validate(value) for value in run.stages()]


def test_an_export_has_them_merged(tiny, place, tmp_path) -> None:
    from transformers import AutoModelForCausalLM

    exp = tiny.replace(**ARMS["suffix"], objective="clm")
    run = sw.train(exp, place)
    folder = sw.export_model(run, tmp_path / "out")
    rack = run.rack()
    merge_adapters(rack)
    ids = torch.arange(16).view(1, 16)
    with torch.no_grad():
        there = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
        assert torch.allclose(there, rack(ids, causal=True), rtol=0, atol=1e-5)
        plain = run.rack()
        for module in plain.stacks.values():
            for _, layer in layers_of(module):
                layer.enable_adapters(False)
        assert not torch.allclose(there, plain(ids, causal=True), atol=1e-5)
