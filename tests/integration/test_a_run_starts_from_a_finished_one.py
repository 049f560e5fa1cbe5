"""A finished run's rack is what another begins with: joined, with another objective, in part."""

import pytest
import torch

import stackwise as sw
from stackwise.model.adapters import bare_state, merge_adapters
from stackwise.training.start import create_run


@pytest.fixture
def grown(tiny, place):
    """A finished run, and what starts from it."""
    run = sw.train(tiny.replace(curriculum="left_to_right"), place)
    return run, tiny.replace(title="on", start=str(run.path.resolve()), optim={"lr": 1e-9})


def test_fusion_begins_with_the_rack_as_it_was_scored(grown, place):
    before, on = grown
    run = sw.train(on.replace(curriculum="fusion"), place)
    mine, theirs = run.rack(), before.rack()
    kept = theirs.state_dict()
    for name, mine_n in mine.state_dict().items():
        # AdamW moves a weight by about the rate in a step: 16 of 1e-9.
        assert torch.allclose(mine_n, kept[name], rtol=0, atol=1e-7), name
    assert run.result()["bits_per_byte"] == pytest.approx(
        before.result()["bits_per_byte"], abs=1e-4
    )
    assert run.provenance()["start"] == {
        "model": before.id,
        "weights": before.weights_hash(),
        "of": "run",
    }


def test_the_head_alone_may_train_and_another_objective_turns_the_rack(grown, place):
    before, on = grown
    exp = on.replace(
        curriculum={"name": "fusion", "train": "head"}, objective="clm", optim={"lr": 0.01}
    )
    run = sw.train(exp, place)
    mine, theirs = run.rack(), before.rack()
    for stack in ("s0", "s1", "s2", "s3"):
        for mine_n, theirs_n in zip(
            mine.stacks[stack].parameters(), theirs.stacks[stack].parameters(), strict=True
        ):
            assert torch.equal(mine_n, theirs_n)
    assert not torch.equal(mine.head.weight, theirs.head.weight)


def test_adapters_alone_may_train_and_are_merged_into_what_starts_from_them(grown, place):
    before, on = grown
    exp = on.replace(
        curriculum={"name": "fusion", "train": "adapters"},
        adapters={"on": "both", "rank": 2},
        objective="clm",
        optim={"lr": 0.01},
    )
    run = sw.train(exp, place)
    mine, theirs = run.rack(), before.rack()
    for stack, module in theirs.stacks.items():
        kept = bare_state(mine.stacks[stack])
        assert all(torch.equal(kept[name], t) for name, t in module.state_dict().items()), stack
    assert torch.equal(mine.embedding.table, theirs.embedding.table)
    assert not torch.equal(mine.head.weight, theirs.head.weight)

    still = on.replace(title="after", curriculum="fusion", start=str(run.path.resolve()))
    after = sw.train(still.replace(objective="clm"), place).rack().state_dict()
    merge_adapters(mine)
    for name, theirs_n in mine.state_dict().items():
        assert torch.allclose(after[name], theirs_n, rtol=0, atol=1e-7), name  # as above
    moved = (after[name] - t for name, t in theirs.state_dict().items() if "attention" in name)
    assert max(float(delta.abs().max()) for delta in moved) > 1e-3


@pytest.mark.parametrize("master", ["none", "fp32"])
def test_stacks_that_were_frozen_to_less_begin_from_the_best_that_is_kept(tiny, place, master):
    precision = {"frozen": "int8", "master": master}
    before = sw.train(tiny.replace(curriculum="left_to_right", precision=precision), place)
    plain = sw.train(tiny.replace(curriculum="left_to_right", title="plain"), place)
    on = tiny.replace(start=str(before.path.resolve()), optim={"lr": 1e-9}, curriculum="fusion")
    first = sw.train(on, place).rack().stacks["s0"].state_dict()
    # The first stack trained alone, so that precision has not reached it; int8 rounds to 1/127.
    exact = plain.rack().stacks["s0"].state_dict()
    worst = max(float((first[name] - exact[name]).abs().max()) for name in exact)
    assert worst < 1e-6 if master == "fp32" else 1e-6 < worst < 1e-2


def test_what_does_not_fit_is_refused(grown, place, tiny):
    before, on = grown
    with pytest.raises(sw.ExperimentError) as error:
        create_run(on.replace(rack={"heads": 4}), place)
    assert str(error.value) == (
        f"rack.heads: 4 is not 2, that of the model to start from; "
        f"take the sections of {before.id}/experiment.yaml"
    )
    with pytest.raises(sw.ExperimentError) as error:
        tiny.replace(curriculum="fusion")
    assert str(error.value) == (
        "start: is empty, and curriculum=fusion goes on with weights that are there; "
        "give a model folder, or use end_to_end"
    )
    stopped = create_run(tiny, place)
    with pytest.raises(ValueError, match="is made, and a run starts from a finished one"):
        create_run(on.replace(start=str(stopped.path.resolve())), place)
