"""top_k and top_p, against a slow reference and a chi-square."""

import pytest
import torch

from stackwise.sampling import choose, cut, sample_ids


def kept(p, top_k, top_p):
    """The tokens that stay, by sorting; the first ones until their sum reaches top_p."""
    order = sorted(range(len(p)), key=lambda i: -p[i])[:top_k]
    total, found, share = sum(p[i] for i in order), [], 0.0
    for i in order:
        if share >= top_p:
            break
        found.append(i)
        share += p[i] / total
    return found


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    ("top_k", "top_p"), [(None, 1.0), (3, 1.0), (None, 0.7), (4, 0.5), (99, 1)]
)
def test_what_stays_is_what_a_sort_says(top_k, top_p, temperature):
    generator = torch.Generator().manual_seed(0)
    logits_NV = torch.randn(50, 7, generator=generator) * 2
    found_NV = cut(logits_NV, temperature, top_k, top_p)
    for logits_V, cut_V in zip(logits_NV, found_NV, strict=True):
        want = kept((logits_V.double() / temperature).softmax(-1).tolist(), top_k, top_p)
        assert torch.isfinite(cut_V).nonzero()[:, 0].tolist() == sorted(want)
        assert torch.equal(cut_V[want], logits_V[want])


def test_the_rest_is_drawn_by_its_renormalised_probabilities():
    p_V = torch.tensor([0.4, 0.3, 0.2, 0.1])
    logits_NV = cut(p_V.log().expand(20_000, 4), 1.0, None, 0.85)
    chosen_N = choose(logits_NV, 1.0, torch.Generator().manual_seed(0))
    share_V = torch.bincount(chosen_N, minlength=4) / 20_000
    want_V = torch.tensor([4, 3, 2, 0]) / 9
    # Four standard deviations.
    assert (share_V - want_V).abs().max() < 4 * 0.5 / 20_000**0.5
    assert share_V[3] == 0


def test_the_best_token_is_never_cut():
    logits_NV = torch.tensor([[0.0, 0.0, 5.0]])
    assert torch.isfinite(cut(logits_NV, 1.0, 1, 1e-9)).tolist() == [[False, False, True]]
    assert torch.equal(cut(logits_NV, 0.0, 1, 0.5), logits_NV), "greedy takes it anyway"


@pytest.mark.parametrize("method", ["ancestral", "confidence", "entropy", "autoregressive"])
def test_every_sampler_chooses_among_the_top(method, toy_law):
    """With the one likeliest letter at each place, chance has nothing left to decide."""
    law = toy_law()
    prompt_BP = torch.zeros(4, 0, dtype=torch.int64)
    given = {"length": 3, "method": method, "seed": 5}
    greedy = sample_ids(law, prompt_BP, temperature=0.0, **given)
    if method in ("confidence", "entropy", "autoregressive"):  # in ancestral the order is by chance
        assert torch.equal(sample_ids(law, prompt_BP, top_k=1, **given), greedy)
    assert torch.equal(
        sample_ids(law, prompt_BP, top_k=1, **given),
        sample_ids(law, prompt_BP, top_p=1e-6, **given),
    )
