"""Where a trunk is cached, looking at held-out text runs only the stacks after it.

`eval.depths=last` looks at the end of the stage's path alone, and so is what freezing to less does
to the loss; both are the same to the last bit wherever the trunk's outputs come from.
"""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.model.block import Block
from stackwise.training import borders, watch
from stackwise.training.caching import home_of
from stackwise.training.rows import HELDOUT, rows_looked_at
from stackwise.trunk.shards import shard_path

LAST = {"eval": {"depths": "last"}, "curriculum": "left_to_right"}
CASES = {
    "the same samples in every stage": {"data": {"restart": True}},
    "fewer windows than in a batch": {"eval": {"windows": 3}},
    "frozen to less": {"precision": {"frozen": "nf4"}, "rack": {"d_model": 64}},
    "rounded at each border": {"precision": {"border": "fp8"}},
    "bands": {"curriculum": "right_to_left", "masking": {"bands": "equal_mass"}},
    "causal": {"objective": "clm"},
}
SOURCES = {"streamed": {"trunk": "streamed"}, "cached": {"trunk": "cached"}}


def losses(run: sw.Run) -> list[object]:
    """Of every look, and around every freezing to less."""
    frozen = [[event["loss_before"], event["loss_after"]] for event in run.events("frozen")]
    return [run.evals()["loss"].tolist(), frozen]


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_that_of_the_trunk_computed(tiny, place, case) -> None:
    exp = tiny.replace(**LAST).replace(**CASES[case])
    plain = sw.train(exp, place, rerun=True)
    for source in SOURCES.values():
        run = sw.train(exp, place.replace(**source), rerun=True)
        assert losses(run) == losses(plain)
        assert run.result()["probe_flops"] == plain.result()["probe_flops"]


def test_it_is_the_last_of_all_depths(tiny, place) -> None:
    every = sw.train(tiny.replace(curriculum="left_to_right"), place)
    last = sw.train(tiny.replace(**LAST), place)
    assert last.evals()["loss"].tolist() == every.evals()["loss"].tolist()
    assert last.result()["probe_flops"] < every.result()["probe_flops"]
    assert set(map(len, every.evals()["exit_losses"])) == {2, 3, 4, 5}
    assert not any(map(len, last.evals()["exit_losses"]))


@pytest.mark.parametrize("source", SOURCES)
def test_no_block_of_the_trunk_runs(tiny, place, source, monkeypatch) -> None:
    ran = set[tuple[int, str]]()
    real, forward = watch.loss_now, Block.forward

    def looked(work, number):
        stacks = {b: stack for stack in work.rack.held() for b in work.rack.blocks([stack])}

        def noted(block, *given, **choices):
            ran.add((number, stacks[block]))
            return forward(block, *given, **choices)

        with monkeypatch.context() as patch:
            patch.setattr(Block, "forward", noted)
            return real(work, number)

    for module in (watch, borders):
        monkeypatch.setattr(module, "loss_now", looked)
    exp = tiny.replace(**LAST, precision={"frozen": "nf4"}, rack={"d_model": 64})
    sw.train(exp, place.replace(trunk=source))
    own = {(number, f"s{number}") for number in range(4)}
    assert ran == own if source == "cached" else ran > own


def test_a_damaged_piece_is_made_again(tiny, place, monkeypatch) -> None:
    real, cut = watch.loss_now, []

    def looked(work, number):
        if number and not cut:
            shard = shard_path(home_of(work, number, rows_looked_at(work, number)), 0)
            bytes_ = bytearray(shard.read_bytes())
            bytes_[5] ^= 1
            shard.write_bytes(bytes_)
            cut.append(shard)
        return real(work, number)

    exp = tiny.replace(**LAST, data={"restart": True})
    plain = sw.train(exp, place)
    monkeypatch.setattr(watch, "loss_now", looked)
    run = sw.train(exp, place.replace(trunk="cached"), rerun=True)
    (mended,) = run.events("cache_mended")
    assert f"1.{HELDOUT}/" in mended["why"] and mended["same_rows"]
    assert losses(run) == losses(plain)


def test_they_are_made_from_those_of_the_stage_before(tiny, place) -> None:
    exp = tiny.replace(**LAST, data={"restart": True})
    run = sw.train(exp, place.replace(trunk="cached"))
    filled = [event for event in run.events("cache_filled") if event["of"] == HELDOUT]
    made = [(event["stage"], event["from_stage"]) for event in filled]
    assert made == [(1, None), (2, 1), (3, 2)]
