"""Block diffusion against closed forms: blocks of one are `clm`, one block is `diffusion`.

With exact conditionals the bound is the entropy for every size of blocks, by the chain rule
(BD3-LM, arXiv 2503.09573, section 3.1).
"""

from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch

import stackwise as sw
from stackwise.block_diffusion import BlockDiffusion, block_sizes, rows_read
from stackwise.evaluation import evaluate
from stackwise.memory.flops import counted_frac
from stackwise.objective import Corruption, corrupt, loss_at
from stackwise.probe import path_loss

V = 11
SAMPLINGS = ["antithetic", "iid", "stratified_k", "bell"]


def rule_of(block, vocab=V, **changes):
    values = {"vocab": vocab, "batch_size": 512, "seed": 0, **changes}
    return Corruption(BlockDiffusion(block=block), **values)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_one_block_is_masked_diffusion_to_the_last_bit(sampling, batch_of, params):
    batch = batch_of(np.random.default_rng(0).integers(0, V, (16, 6)), first=5, draw=2)
    whole = rule_of(6, sampling=sampling, batch_size=8)
    one = corrupt(replace(whole, objective=params.objective("diffusion")), batch)
    for block in (6, 100):
        noisy = corrupt(replace(whole, objective=BlockDiffusion(block=block)), batch)
        assert noisy.blocks is None
        for name, tensor in one.tensors().items():
            assert torch.equal(noisy.tensors()[name], tensor), name


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_blocks_of_one_are_always_masked_with_weight_one(sampling, batch_of):
    ids_BT = np.random.default_rng(0).integers(0, V, (16, 6))
    noisy = corrupt(rule_of(1, sampling=sampling), batch_of(ids_BT))
    assert (noisy.input_BT[:, :6] == V).all() and noisy.counted_BT[:, :6].all()
    assert torch.equal(noisy.input_BT[:, 6:], torch.from_numpy(ids_BT[:, :5]))
    assert (noisy.weight_N == 1).all() and not noisy.counted_BT[:, 6:].any()


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("block", [1, 2, 4, 5, 16])
def test_a_constant_predictor_pays_log_v_per_token(block, sampling, batch_of):
    """Five tokens to a block leave one, which is exact; where a number is drawn all is."""
    ids_BT = np.random.default_rng(0).integers(0, V, (8192, 16))
    noisy = corrupt(rule_of(block, sampling=sampling), batch_of(ids_BT))
    paid = [
        float(loss_at(torch.zeros(len(p.target_N), V), p.target_N, p.weight_N, p.positions))
        for p in noisy.split(512)
    ]
    error = np.std(paid, ddof=1) / len(paid) ** 0.5
    assert error < 0.02 * log(V)
    exact = block == 1 or sampling == "stratified_k"
    assert np.mean(paid) == pytest.approx(log(V), abs=1e-5 if exact else 4 * error)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_with_exact_conditionals_the_bound_is_the_entropy(block, toy_law, batch_of):
    """Every word as often as the law has it; blocks of one draw nothing and are exact."""
    law = toy_law()
    words = law.words_XT.repeat(600, 1).numpy()
    noisy = corrupt(rule_of(block, vocab=3, sampling="stratified_k"), batch_of(words))
    hidden = law.hidden(noisy.input_BT, causal=noisy.direction(False))
    nats = torch.nn.functional.cross_entropy(
        hidden[noisy.counted_BT], noisy.target_N, reduction="none"
    )
    sample = noisy.counted_BT.nonzero()[:, 0]
    each = torch.zeros(len(words), dtype=torch.float64).index_add(0, sample, nats * noisy.weight_N)
    means = each.view(600, 27) @ law.p
    error = float(means.std()) / 600**0.5
    assert error < 0.01 * law.entropy
    assert float(means.mean()) == pytest.approx(law.entropy, abs=4 * error + 1e-9)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_the_bound_of_exact_conditionals_is_the_likelihood(block, toy_law):
    law = toy_law()
    words_NT = law.sample(400)
    found = evaluate(law, words_NT, 1200, objective=BlockDiffusion(block=block), draws=16)
    index_N = (words_NT[:, None] == law.words_XT).all(2).int().argmax(1)
    exact = -float(law.p[index_N].log2().sum()) / 1200
    if block == 1:
        clm = evaluate(law, words_NT, 1200, objective="clm")
        assert found.bits_per_byte == pytest.approx(clm.bits_per_byte, rel=1e-12)
        assert (found.estimate, found.stderr) == ("exact", 0)
        assert found.note.startswith("likelihood of every token given those before it")
    else:
        assert found.estimate == "nelbo"
        assert 0 < found.stderr < 0.02 * exact
        assert found.bits_per_byte == pytest.approx(exact, abs=4 * found.stderr)


def test_the_standard_error_is_that_of_drawing_again(toy_law):
    """Over 60 seeds; it may be too large by the texts' own spread, never much too small."""
    law, two = toy_law(), BlockDiffusion(block=2)
    words_NT = law.sample(30)
    found = [evaluate(law, words_NT, 90, objective=two, seed=s, draws=4) for s in range(60)]
    deviation = np.std([f.bits_per_byte for f in found], ddof=1)
    assert deviation / 1.3 < np.mean([f.stderr for f in found]) < 4 * deviation


def test_evaluation_of_one_block_is_that_of_diffusion(toy_law):
    law = toy_law()
    words_NT = law.sample(30)
    one, whole = (
        evaluate(law, words_NT, 90, objective=objective, draws=3)
        for objective in (BlockDiffusion(block=3), "diffusion")
    )
    assert one == whole


def test_batches_change_no_digit_of_a_score(toy_law):
    law, two = toy_law(), BlockDiffusion(block=2)
    words_NT = law.sample(40)
    first, again = (
        evaluate(law, words_NT, 120, objective=two, batch=batch, draws=3) for batch in (7, 64)
    )
    assert first == again


def test_each_block_of_all_samples_has_evenly_spaced_times(batch_of):
    """8 samples of 3 blocks: 24 numbers of masked tokens, one from each 24th."""
    noisy = corrupt(
        rule_of(24, sampling="stratified_k", batch_size=8), batch_of(np.zeros((8, 72), dtype=int))
    )
    k_BN = noisy.counted_BT[:, :72].view(8, 3, 24).sum(2)
    assert sorted(k_BN.flatten().tolist()) == list(range(1, 25))
    for block in range(3):
        steps = np.diff(np.sort(k_BN[:, block].numpy()))
        assert (steps == 3).all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("block", [1, 4, 5])
def test_as_many_positions_count_as_the_ledger_has(block, sampling, batch_of):
    exp = sw.Experiment(
        objective={"kind": "block_diffusion", "block": block},
        masking={"sampling": sampling},
        data={"seq_len": 16},
        rack={"stacks": 1},
    )
    noisy = corrupt(rule_of(block, sampling=sampling), batch_of(np.zeros((8192, 16), dtype=int)))
    found = int(noisy.counted_BT.sum()) / noisy.positions
    assert found == pytest.approx(counted_frac(exp, sw.stages(exp)[0]), abs=0.01)


@pytest.mark.parametrize(("block", "rows"), [(1, 31), (4, 28), (5, 31), (16, 16), (20, 16)])
def test_a_sample_is_read_twice_but_for_its_last_block(block, rows):
    assert rows_read(BlockDiffusion(block=block), 16) == rows
    assert block_sizes(block, 16).sum() == 16


def test_micro_batches_and_rows_keep_direction_and_weights(batch_of):
    noisy = corrupt(rule_of(4), batch_of(np.random.default_rng(0).integers(0, V, (10, 12))))
    parts = list(noisy.split(3))
    assert [part.positions for part in parts] == [36, 36, 36, 12]
    assert torch.equal(torch.cat([part.weight_N for part in parts]), noisy.weight_N)
    assert all(part.blocks == noisy.blocks for part in (*parts, noisy.rows(2, 4), noisy.to("cpu")))


def test_a_rack_reads_one_block_as_diffusion_does_to_the_last_bit(batch_of):
    rack = sw.Rack(sw.RackShape(stacks=1, d_model=16, heads=2), "mha", V)
    ids_BT = np.random.default_rng(0).integers(0, V, (8, 6))
    losses = [
        path_loss(rack, corrupt(rule, batch_of(ids_BT)), causal=False, path=("s0",))
        for rule in (rule_of(6), Corruption(sw.Experiment().objective, V, 512, 0))
    ]
    assert losses[0] == losses[1]
