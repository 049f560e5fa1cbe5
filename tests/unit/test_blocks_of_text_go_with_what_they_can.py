"""What block diffusion cannot be combined with: one clear error each, before anything runs."""

from dataclasses import replace
from typing import Literal

import pytest

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.model.attention import ATTENTION

KIND = "block_diffusion"
READS = "cannot see text block by block, as objective=block_diffusion reads it; use mha, gqa, mqa, "
REFUSED = {
    "kernel": ({"attention": "kernel"}, f"attention.kind: kernel {READS}mla"),
    "linear": ({"attention": "linear"}, f"attention.kind: linear {READS}mla"),
    "spans": ({"attention": "window"}, f"attention.kind: window {READS}mla"),
    "time": (
        {"rack": {"time": "sinusoidal"}},
        "rack.time: sinusoidal reads one noise level of each sample, and with "
        "objective=block_diffusion each block has its own; leave it at none",
    ),
    "bands": (
        {"masking": {"bands": "linear"}, "curriculum": "left_to_right"},
        "masking.bands: linear does not go with objective=block_diffusion; leave it empty or use "
        "objective=diffusion",
    ),
    "progress": (
        {"masking": {"schedule": "ramp"}},
        "masking.schedule: ramp does not go with objective=block_diffusion; use linear, cosine, "
        "polynomial, geometric",
    ),
    "numbers of another schedule": (
        {"masking": {"schedule": "cosine", "sampling": "stratified_k"}},
        "masking.sampling: stratified_k goes with schedule=linear and no bands, since it draws the "
        "number of masked tokens itself; use those, or antithetic",
    ),
    "two sizes": (
        {"objective": {"kind": KIND, "block": 8, "block_by_stage": [1, 2]}},
        "objective.block: 8 is not read with a list in block_by_stage; leave it at 4",
    ),
    "draws": (
        {"objective": {"kind": KIND, "block": 1}, "eval": {"draws": 2}},
        "eval.draws: 2 is not read with objective.block=1; leave it at 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_says_why_and_what_else(case):
    changes, expected = REFUSED[case]
    with pytest.raises(ExperimentError) as found:
        sw.Experiment(**{"objective": KIND, **changes})
    assert str(found.value) == expected


class Own(sw.Params):
    kind: Literal["own"] = "own"


def test_a_kind_of_ones_own_says_that_it_can(monkeypatch):
    able = replace(ATTENTION["mha"], params=Own)
    monkeypatch.setitem(ATTENTION, "own", replace(able, blocks=False))
    with pytest.raises(ExperimentError, match="cannot see text block by block"):
        sw.Experiment(objective=KIND, attention="own")
    monkeypatch.setitem(ATTENTION, "own", able)
    assert sw.Experiment(objective=KIND, attention="own").objective.last == 4


def test_a_list_has_an_entry_for_each_stage():
    exp = sw.Experiment(
        objective={"kind": KIND, "block_by_stage": [1, 2, 4]},
        curriculum="left_to_right",
        rack={"stacks": 4},
    )
    with pytest.raises(ExperimentError) as found:
        sw.stages(exp)
    assert "objective.block_by_stage: 3 entries for the 4 stages" in str(found.value)


def test_a_stage_has_blocks_where_its_objective_has_them(monkeypatch):
    monkeypatch.setitem(
        sw.CURRICULA, "mine", lambda exp: [sw.Stage(path=sw.stack_ids(exp.rack), block=2)]
    )
    with pytest.raises(ExperimentError) as found:
        sw.stages(sw.Experiment(curriculum="mine"))
    assert "block: 2 tokens per block, and objective=diffusion has no blocks" in str(found.value)
    (stage,) = sw.stages(sw.Experiment(curriculum="mine", objective=KIND))
    assert stage.block == 2


def test_adapters_and_terms_of_the_rack_before_go_with_it():
    exp = sw.Experiment(
        objective=KIND,
        curriculum="right_to_left",
        adapters="suffix",
        preserve={"consistency": 1.0, "distill": 0.5},
    )
    first, *rest = sw.stages(exp)
    assert not first.adapters and first.preserve is None
    assert all(stage.adapters and stage.preserve.asks for stage in rest)


def test_blocks_of_another_size_are_no_target():
    """As other noise is none; what the embedding puts out stays one, and one block is one block."""
    exp = sw.Experiment(
        objective={"kind": KIND, "block_by_stage": [2, 2, 4, 200, 300]},
        rack={"stacks": 5},
        data={"seq_len": 128},
        curriculum="right_to_left",
        preserve={"consistency": 1.0, "distill": 0.5},
    )
    held = [stage.preserve for stage in sw.stages(exp)[1:]]
    assert [each.distill for each in held] == [0.5, 0.0, 0.0, 0.5]
    assert all(each.consistency == 1.0 for each in held)
    with pytest.raises(ExperimentError) as found:
        sw.stages(
            sw.Experiment(
                objective={"kind": KIND, "block_by_stage": [1, 2]},
                curriculum="end_to_end",
                preserve={"distill": 0.5},
            )
        )
    assert str(found.value) == (
        "preserve.distill: 0.5 has a meaning in no stage of curriculum=end_to_end: the stage "
        "before read blocks of another size, for which its predictions are no target; leave it at "
        "0, or use left_to_right, right_to_left or grow"
    )


def test_stages_without_blocks_are_written_as_they_were():
    stage = sw.Stage(path=("s0",))
    assert "block" not in stage.identity() and "block" not in stage.model_dump()
