"""The largest micro-batch that is planned is the largest that is drawn."""

from itertools import product

import numpy as np
import pytest

import stackwise as sw
from stackwise.corruption import Corruption
from stackwise.data.batches import Batch
from stackwise.memory.counted import most_counted
from stackwise.objective import corrupt

VOCAB, SEEDS = 50, 12
CASES = [
    *product(["diffusion"], ["antithetic", "iid"], [(1, 1), (4, 4), (6, 2), (16, 8)], [3, 60]),
    *product(["diffusion"], ["stratified_k"], [(4, 4), (6, 2)], [3, 60]),
    *product(["mlm", "clm"], ["antithetic"], [(4, 4), (6, 2)], [3]),
]


def drawn(exp: sw.Experiment, stage: sw.Stage, micro: int, steps: int, seed: int) -> int:
    """The largest count of a micro-batch among so many steps' own."""
    size, length = exp.optim.batch, exp.data.seq_len
    rule = Corruption(exp.objective, VOCAB, size, seed, None, exp.masking.sampling, stage.band)
    place_N = np.arange(steps * size)
    ids_NT = np.random.default_rng(seed).integers(0, VOCAB, (steps * size, length))
    order_N = np.random.default_rng(seed + 1).permutation(place_N)
    found = corrupt(rule, Batch(ids_NT, order_N, 0 * place_N, place_N), progress=1.0)
    counts_N = found.counted_BT.sum(1).numpy()
    micros = [
        counts_N[at + part : at + min(part + micro, size)].sum()
        for at in range(0, len(counts_N), size)
        for part in range(0, size, micro)
    ]
    return int(max(micros))


@pytest.mark.parametrize(("objective", "sampling", "sizes", "steps"), CASES)
def test_it_is_that_of_batches(
    objective: str, sampling: str, sizes: tuple[int, int], steps: int
) -> None:
    """To 6 % of the tokens, in the mean over seeds."""
    batch, micro = sizes
    masking = {"sampling": sampling} if objective == "diffusion" else {}
    exp = sw.Experiment(
        data={"corpus": "kjv", "seq_len": 128},
        objective=objective,
        masking=masking,
        optim={"batch": batch},
        curriculum="end_to_end",
        budget={"tokens": steps * batch * 128},
    )
    (stage,) = sw.stages(exp)
    planned = most_counted(exp, sw.Placement(micro_batch=micro), stage)
    found = [drawn(exp, stage, micro, steps, seed) for seed in range(SEEDS)]
    margin = 0.06 * micro * 128
    if steps == 3 and objective == "diffusion" and sampling != "iid":  # few come near to it
        assert np.mean(found) < planned + margin
    else:
        assert planned == pytest.approx(np.mean(found), abs=margin)
