"""What a stage does not train is bit-identical after it; what it trains has moved."""

from __future__ import annotations

import json

import pytest
import torch

import stackwise as sw
from stackwise.stage import parts_trained


def test_only_what_a_stage_trains_moves(arm, place) -> None:
    at_start: dict[int, dict[str, dict[str, torch.Tensor]]] = {}
    at_end: dict[int, dict[str, dict[str, torch.Tensor]]] = {}

    def copies(work):
        return {
            part: {name: t.clone() for name, t in module.state_dict().items()}
            for part, module in work.rack.parts().items()
        }

    def on_step(work, numbers):
        if work.at.step == 1:
            at_start[work.at.stage] = copies(work)
        at_end[work.at.stage] = copies(work)

    run = sw.train(arm, place, on_step=on_step)
    for number, stage in enumerate(sw.stages(arm)):
        trained = parts_trained(stage)
        for part, tensors in at_start[number].items():
            same = all(torch.equal(t, at_end[number][part][name]) for name, t in tensors.items())
            assert same == (part not in trained), (number, part)
    final = {part: dict(module.state_dict()) for part, module in run.rack().parts().items()}
    assert set(final) == {"embedding", "s0", "s1", "s2", "s3", "head"}


MOVES = {
    "left_to_right, head first": (
        {"name": "left_to_right", "head": "first"},
        ["embedding s0 head", "s1", "s2", "s3"],
    ),
    "right_to_left, head always": (
        {"name": "right_to_left", "embedding": "first", "head": "always"},
        ["embedding s3 head", "s2 head", "s1 head", "s0 head"],
    ),
    "block_coordinate": (
        {"name": "block_coordinate", "cycles": 1},
        ["embedding s0 head", "s1 head", "s2 head", "s3 head"],
    ),
    "block_coordinate, stacks alone": (
        {"name": "block_coordinate", "cycles": 1, "embedding": "never", "head": "never"},
        ["s0", "s1", "s2", "s3"],
    ),
    "block_coordinate, the head with its stack": (
        {"name": "block_coordinate", "cycles": 1, "embedding": "always", "head": "with_last"},
        ["embedding s0", "embedding s1", "embedding s2", "embedding s3 head"],
    ),
}


@pytest.mark.parametrize("case", MOVES)
def test_what_moves_in_each_stage_is_what_the_experiment_names(tiny, place, case) -> None:
    curriculum, wanted = MOVES[case]
    kept: dict[str, dict[str, torch.Tensor]] = {}
    moved: list[set[str]] = [set() for _ in wanted]

    def on_step(work, numbers):
        for part, module in work.rack.parts().items():
            now = {name: value.clone() for name, value in module.state_dict().items()}
            before = kept.get(part, now)
            if any(not value.equal(before[name]) for name, value in now.items() if name in before):
                moved[work.at.stage].add(part)
            kept[part] = now

    sw.train(tiny.replace(curriculum=curriculum, optim={"ema": None}), place, on_step=on_step)
    assert [set(names.split()) for names in wanted] == moved


def test_a_frozen_stack_stays_as_its_stage_left_it(tiny, place) -> None:
    files: dict[int, str] = {}

    def on_step(work, numbers):
        manifest = work.run.path / "rack" / "manifest.json"
        if manifest.exists() and work.at.step == 1:
            files[work.at.stage] = json.loads(manifest.read_text())["parts"]["s0"]["sha256"]

    run = sw.train(tiny.replace(curriculum="left_to_right"), place, on_step=on_step)
    last = json.loads((run.path / "rack" / "manifest.json").read_text())["parts"]["s0"]["sha256"]
    assert set(files) == {1, 2, 3}
    assert set(files.values()) == {last}


def test_gradient_crosses_the_suffix_and_not_the_trunk(tiny, place) -> None:
    norms: dict[str, list[float]] = {}

    def on_step(work, numbers):
        for name, norm in numbers.block_norms.items():
            norms.setdefault(f"{work.at.stage} {name}", []).append(norm)

    sw.train(tiny.replace(curriculum="right_to_left"), place, on_step=on_step)
    assert all(norm > 0 for norm in norms["3 s0.0"]), "the leftmost stack learns through the suffix"
    assert not any(key.startswith("3 ") and key[2:] in ("s1.0", "s2.0", "s3.0") for key in norms)
