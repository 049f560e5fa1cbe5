"""Runs by block diffusion: both ends through the trainer, a warm-up, every way to carry one out."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.data.heldout import some_windows
from stackwise.model.direction import BlockCausal
from stackwise.probe import fixed_draws, path_loss
from stackwise.training.opening import open_work
from stackwise.training.run import execute
from stackwise.training.score import evaluate_run
from stackwise.training.start import create_run

NUMBERS = ["step", "stage", "stage_step", "tokens", "flops", "loss", "lr", "grad_norm"]
KIND = "block_diffusion"
GROWN = {  # what trains beside the stacks, and beside the loss
    "plain": {},
    "adapters": {"curriculum": "right_to_left", "adapters": {"on": "suffix", "rank": 3}},
    "held": {"curriculum": "right_to_left", "preserve": {"consistency": 1.0, "distill": 2.0}},
}


def by_blocks(**knobs):
    return {"kind": KIND, **knobs}


def stop_after(steps):
    seen = []

    def on_step(work, numbers):
        seen.append(numbers.loss)
        work.stop_requested = len(seen) == steps

    return on_step


@pytest.mark.parametrize("grown", GROWN)
def test_one_block_trains_as_diffusion_does_to_the_last_bit(tiny, place, grown) -> None:
    one, whole = (
        sw.train(tiny.replace(objective=objective, **GROWN[grown]), place)
        for objective in (by_blocks(block=16), "diffusion")
    )
    assert one.weights_hash() == whole.weights_hash()
    assert one.metrics()[NUMBERS].equals(whole.metrics()[NUMBERS])
    assert one.result()["bits_per_byte"] == whole.result()["bits_per_byte"]
    assert one.result()["probe_flops"] == whole.result()["probe_flops"]
    terms = [[e["distill"] for e in run.events("preserved")] for run in (one, whole)]
    assert terms[0] == terms[1] and bool(terms[0]) == (grown == "held")


@pytest.mark.parametrize("grown", GROWN)
def test_blocks_of_one_are_scored_exactly_and_count_every_token(tiny, place, grown) -> None:
    run = sw.train(tiny.replace(objective=by_blocks(block=1), **GROWN[grown]), place)
    found = run.result()
    assert (found["estimate"], found["stderr"]) == ("exact", 0)
    assert (run.metrics().masked_frac == 1).all()
    last = run.evals().iloc[-1]
    assert last.exit_losses[-1] == last.loss
    # at the end the same windows are scored, at looks some of them
    again = evaluate_run(run)
    assert again.bits_per_byte == found["bits_per_byte"]
    assert again.nats_per_token == pytest.approx(chain_rule(run), rel=1e-5)


@torch.no_grad()
def chain_rule(run) -> float:
    """Nats per token of the windows that are scored: each alone, after those before it."""
    rack, nats = run.rack(), []
    with open_work(run) as work:
        ids_NT = torch.as_tensor(some_windows(work.dataset, work.exp.eval.final)[0])
    for place in range(ids_NT.shape[1]):
        read_NT = ids_NT[:, : place + 1].clone()
        read_NT[:, place] = rack.mask_id
        x_NTD = rack.hidden(read_NT, causal=BlockCausal(1, 0, place + 1))
        logits_NV = rack.logits(x_NTD[:, place])
        nats.append(torch.nn.functional.cross_entropy(logits_NV, ids_NT[:, place].long()))
    return float(sum(nats)) / len(nats)


@pytest.fixture
def tiny(tiny) -> sw.Experiment:
    """Two stacks are enough here, and few looks."""
    few = {"points": 2, "windows": 4, "final": 4}
    return tiny.replace(rack={"stacks": 2}, eval=few, budget={"tokens": 12 * 4 * 16})


@pytest.mark.parametrize("grown", ["adapters", "held"])
def test_what_trains_beside_goes_on_after_a_stop(tiny, place, grown) -> None:
    """To the last bit, with the trunk in place or lent; looks, drift and ledger know of it."""
    exp = tiny.replace(objective=by_blocks(block=3), **GROWN[grown])
    exp = exp.replace(precision={"frozen": "int8"}) if grown == "adapters" else exp
    whole = sw.train(exp, place)
    pieces = create_run(exp, place, rerun=True)
    while pieces.state != "finished":
        execute(pieces, on_step=stop_after(5))
    for run in (pieces, sw.train(exp, place.replace(trunk="streamed"), rerun=True)):
        assert run.weights_hash() == whole.weights_hash()
        assert run.metrics()[NUMBERS].equals(whole.metrics()[NUMBERS])
        assert run.result()["bits_per_byte"] == whole.result()["bits_per_byte"]
        assert run.result()["probe_flops"] == whole.result()["probe_flops"]
    assert evaluate_run(whole).bits_per_byte == whole.result()["bits_per_byte"]
    assert whole.drift()["kl"].notna().any() and whole.evals()["loss"].notna().all()
    planned = sum(row["flops"] for row in whole.plan())
    assert whole.result()["flops"] == pytest.approx(planned, rel=0.1)  # by positions that counted
    for row, event in zip(whole.plan(), whole.events("memory"), strict=True):
        assert event["weights"] == row["bytes"]["weights"]
        assert event["activations"] <= 1.3 * row["bytes"]["activations"]
    terms = [{*event} & {"consistency", "distill"} for event in whole.events("preserved")]
    assert all(each == {"consistency", "distill"} for each in terms)
    assert bool(terms) == (grown == "held")


@pytest.fixture(params=["warm-up", "grown"])
def changing(request, tiny) -> sw.Experiment:
    changes = {
        "warm-up": {"objective": by_blocks(block_by_stage=[1, 3, 16])},
        "grown": {
            "rack": {"stacks": 3},
            "objective": by_blocks(block_by_stage=[2, 3, 5]),  # of the last two as many rows
            "curriculum": {"name": "left_to_right", "split": "tokens"},
            "data": {"restart": True},
        },
    }
    return tiny.replace(**changes[request.param])


def test_stopping_lending_and_caching_change_no_number(changing, place) -> None:
    whole = sw.train(changing, place)
    pieces = create_run(changing, place, rerun=True)
    while pieces.state != "finished":
        execute(pieces, on_step=stop_after(3))
    others = [pieces]
    if changing.curriculum.choice != "end_to_end":
        ways = ({"trunk": "cached"}, {"trunk": "streamed"})
        others += [sw.train(changing, place.replace(**way), rerun=True) for way in ways]
        shallow = changing.replace(eval={"depths": "last"})  # a look reads the trunk of a cache
        cached, plain = (
            sw.train(shallow, place.replace(**way), rerun=True).evals()["loss"].tolist()
            for way in ({"trunk": "cached"}, {})
        )
        assert cached == plain
    for run in others:
        assert run.weights_hash() == whole.weights_hash()
        assert run.metrics()[NUMBERS].equals(whole.metrics()[NUMBERS])
        assert run.result()["bits_per_byte"] == whole.result()["bits_per_byte"]


def test_recomputing_and_micro_batches_change_rounding_alone(tiny, place) -> None:
    exp = tiny.replace(objective=by_blocks(block=5))
    whole = sw.train(exp, place)
    other = sw.train(exp, place.replace(checkpointing=True, micro_batch=3), rerun=True)
    assert other.metrics().loss.to_numpy() == pytest.approx(whole.metrics().loss, rel=1e-4)


def test_a_warm_up_ends_as_what_its_last_blocks_are(tiny, place) -> None:
    """From left to right to masked diffusion, with one schedule and the moments kept."""
    exp = tiny.replace(objective=by_blocks(block_by_stage=[1, 4, 16]))
    assert [(s.block, s.lr, s.optimizer_state) for s in sw.stages(exp)] == [
        (1, "continue", "keep"),
        (4, "continue", "keep"),
        (16, "continue", "keep"),
    ]
    run = sw.train(exp, place.replace(keep_stages=True))
    rack, found = run.rack(), run.result()
    assert rack.objective.last == 16 and found["note"].startswith("upper bound (NELBO) by masked")
    shares = run.metrics().groupby("stage").masked_frac.mean()
    assert shares[0] == 1 and shares[1] == pytest.approx(0.5, abs=0.15)
    for number, stage in enumerate(sw.stages(exp)):
        (planned,) = {row["flops"] / row["tokens"] for row in run.plan() if row["stage"] == number}
        spent = run.metrics().query(f"stage == {number}")
        took = spent.flops.diff().iloc[1:].sum() / spent.tokens.diff().iloc[1:].sum()
        assert took == pytest.approx(planned, rel=0.05), stage  # as many count as in the mean
    *_, last = sw.stream(rack, [[]], length=16, method="ancestral")
    assert last.left == 0
    with open_work(run) as work:
        exp, stages = work.exp, work.stages
        noisy = fixed_draws(work.corruption(1), work.dataset.heldout_windows([0, 1]))
    assert noisy.blocks.size == 4 and exp.objective.last == 16 and stages[1].block == 4


def test_a_stage_of_a_curriculum_of_ones_own_says_its_blocks(tiny, place, monkeypatch) -> None:
    def warm_up(exp):
        ids = sw.stack_ids(exp.rack)
        yield sw.Stage(path=ids[:1], block=1)
        yield sw.Stage(path=ids, block=6)

    monkeypatch.setitem(sw.CURRICULA, "warm_up", warm_up)
    run = sw.train(tiny.replace(objective=by_blocks(block=2), curriculum="warm_up"), place)
    assert run.rack().objective.last == 6
    assert "in blocks of 6 tokens" in run.result()["note"]
    assert evaluate_run(run).bits_per_byte == run.result()["bits_per_byte"]


def test_a_finished_clm_run_goes_on_by_blocks(tiny, place) -> None:
    first = sw.train(tiny.replace(objective="clm"), place)
    exp = tiny.replace(
        objective=by_blocks(block_by_stage=[1, 16]), start=str(first.path), optim={"lr": 1e-9}
    )
    again = sw.train(exp, place)
    ours, theirs = again.rack().parts(), first.rack().parts()
    for name, part in theirs.items():
        for key, tensor in part.state_dict().items():
            assert torch.allclose(ours[name].state_dict()[key], tensor, atol=1e-6), (name, key)


def test_a_rack_of_ones_own_trains_by_blocks() -> None:
    rack = sw.Rack(sw.RackShape(stacks=1, blocks_per_stack=1, d_model=16, heads=2), "mha", 7)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(7, (4, 12), generator=generator) for _ in range(4)]
    sw.train_stack_wise(rack, batches, objective=by_blocks(block=3), steps=6)
    assert rack.objective.last == 3
    noisy = fixed_draws(sw.Corruption(rack.objective, 7, 4, 0), batches[0].numpy(), progress=1.0)
    assert path_loss(rack, noisy, causal=False, path=("s0",)) > 0
