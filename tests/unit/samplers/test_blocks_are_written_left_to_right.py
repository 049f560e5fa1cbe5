"""Text of a rack trained by block diffusion: block by block, by the rack's law, from a cache."""

import pytest
import torch

import stackwise as sw
from stackwise.block_diffusion import BlockDiffusion
from stackwise.errors import ExperimentError
from stackwise.memory.flops import decode_flops_per_token, head_flops
from stackwise.model.direction import BlockCausal
from stackwise.sampling import stream
from stackwise.sampling.by_block import BlockReader
from stackwise.sampling.semi_autoregressive import SemiAutoregressive, semi_autoregressive
from stackwise.sampling.task import Task
from stackwise.sampling.view import View

from .test_samplers_follow_the_law import p_value

V = 5


@pytest.fixture
def block_rack():
    """A tiny rack trained in blocks, as far as it says."""

    def make(block, attention="mha", **options):
        shape = sw.RackShape(stacks=2, blocks_per_stack=1, d_model=8, heads=2, **options)
        rack = sw.Rack(shape, attention, V).double().eval()
        for parameter in rack.parameters():
            torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(2))
        rack.objective = BlockDiffusion(block=block)
        return rack

    return make


def written(law, block, inner, steps=None, count=3000):
    """Words by blocks of a law's, each block by an inner sampler."""
    ids_BT = torch.full((count, 3), law.mask_id)
    task = Task(
        View(law, block=block),
        ids_BT,
        ids_BT == law.mask_id,
        steps,
        1.0,
        torch.Generator().manual_seed(0),
    )
    *_, last = semi_autoregressive(task, SemiAutoregressive(inner=inner))
    return last


@pytest.mark.parametrize(
    ("block", "inner", "steps"),
    [
        (1, "confidence", None),
        (1, "ancestral", None),
        (2, "first_hitting", None),
        (2, "random", None),
        (2, "ancestral", 400),
    ],
)
def test_samples_follow_the_exact_law(block, inner, steps, toy_law):
    law = toy_law(spread=2.0)
    assert p_value(law, written(law, block, inner, steps)) > 1e-3


def test_letters_of_a_block_that_leave_together_do_not(toy_law):
    """The failing control."""
    law = toy_law(spread=2.0)
    assert p_value(law, written(law, 2, "random:2")) < 1e-9


def test_later_blocks_are_not_read(toy_law):
    law = toy_law(spread=2.0)
    written(law, 2, "first_hitting", count=4)
    assert [ids_BT.shape[1] for ids_BT, _ in law.calls] == [2, 2, 3]


@pytest.mark.parametrize("attention", ["mha", "mqa", "mla"])
@pytest.mark.parametrize("options", [{}, {"window": 3}, {"positions": "none"}], ids=str)
def test_what_is_read_from_a_cache_is_the_text_under_the_mask(attention, options, block_rack):
    """With a window nothing is kept, and everything is read again."""
    rack, size, counts = block_rack(3, attention, **options), 3, []
    reader = BlockReader(rack, size, lambda ids_BT, seen: counts.append((ids_BT.shape, seen)))
    ids_BT = torch.randint(V, (4, 8), generator=torch.Generator().manual_seed(0))
    rows = [[0, 1, 2, 3], [2], [3, 1], [0, 1, 2, 3], [1, 2]]
    for stop, some in zip([2, 3, 5, 7, 8], rows, strict=True):
        part_BT = ids_BT[some, :stop].clone()
        part_BT[:, (stop - 1) // size * size :] = rack.mask_id
        found = reader.hidden(part_BT, ("s0", "s1"))
        whole = rack.hidden(part_BT, causal=BlockCausal(size, 0, stop))
        first = (stop - 1) // size * size
        assert torch.allclose(found[:, first:], whole[:, first:], atol=1e-11, rtol=0)
    if options.get("window"):
        assert [seen for _, seen in counts] == [0] * 5
    else:
        assert [seen for _, seen in counts] == [0, 0, 0, 3, 0, 3, 6, 6]
        assert counts[-1] == ((2, 2), 6)  # of texts that are kept, some are read from there


def test_a_text_that_was_changed_is_read_again(block_rack):
    rack = block_rack(2)
    reader = BlockReader(rack, 2, lambda ids_BT, seen: None)
    for first in (0, 1):
        ids_BT = torch.tensor([[first, 2, 3, rack.mask_id]])
        found = reader.hidden(ids_BT, ("s0", "s1"))
        whole = rack.hidden(ids_BT, causal=BlockCausal(2, 0, 4))
        assert torch.allclose(found[:, 2:], whole[:, 2:], atol=1e-11, rtol=0)


def test_a_stream_writes_each_block_before_the_next_and_counts_its_reads(block_rack):
    rack = block_rack(4)
    steps = list(stream(rack, torch.tensor([[1, 2, 0], [4, 4, 4]]), length=7, seed=1))
    done = [int((step.ids_BT != rack.mask_id).sum(1).min()) for step in steps]
    assert sorted(done) == done and done[-1] == 10
    for step in steps:
        masked = (step.ids_BT == rack.mask_id).any(0).nonzero()[:, 0]
        if len(masked):  # whatever is masked lies in one block and those after it
            block = int(masked[0]) // 4
            assert (step.ids_BT[:, : block * 4] != rack.mask_id).all()
            assert (step.ids_BT[:, (block + 1) * 4 :] == rack.mask_id).all()
    assert torch.equal(steps[-1].ids_BT[:, :3], torch.tensor([[1, 2, 0], [4, 4, 4]]))
    assert steps[-1].left == 0 and steps[-1].flops > 0


def test_flops_are_those_of_what_was_read(block_rack):
    """One sample, one step for each token: two blocks of two, the first read clean once."""
    rack = block_rack(2)
    method = {"kind": "semi_autoregressive", "inner": "random"}
    *_, last = stream(rack, [[]], length=4, method=method)
    path = ("s0", "s1")

    def cost(new, seen):
        return new * decode_flops_per_token(rack.shape, rack.attention, path, new, seen)

    reads = 2 * cost(2, 0) + cost(2, 0) + 2 * cost(2, 2)
    assert last.flops == pytest.approx(reads + 4 * head_flops(rack.shape, V))
    assert last.forwards == 5


def test_a_text_no_longer_than_a_block_is_masked_diffusion(block_rack):
    rack = block_rack(8)
    for method in (None, "ancestral", "first_hitting"):
        *_, last = stream(rack, [[1]], length=7, method=method)
        assert last.left == 0


REFUSED = {
    "ancestral": (
        "method: 'ancestral' fills a text as a whole, and objective=block_diffusion learned blocks "
        "of 4 tokens, each after those before it; use semi_autoregressive with inner=ancestral, "
        "leave it out, or write 4 tokens at most"
    ),
    "semi_autoregressive:3": (
        "method.block: 3, but objective=block_diffusion learned blocks of 4 tokens; leave it empty"
    ),
    "autoregressive": (
        "method: 'autoregressive' reads from left to right, which objective=block_diffusion does "
        "not learn; use semi_autoregressive or leave it out"
    ),
}


@pytest.mark.parametrize("method", REFUSED)
def test_what_it_never_learned_is_refused(method, block_rack):
    with pytest.raises(ExperimentError) as found:
        stream(block_rack(4), [[]], length=9, method=method)
    assert str(found.value) == REFUSED[method]
