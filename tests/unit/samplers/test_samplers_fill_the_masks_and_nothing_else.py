"""For every sampler of the registry, over random shapes: what it may change, and what it must."""

import pytest
import torch

import stackwise as sw
from stackwise.choice import parse
from stackwise.sampling import SAMPLERS, samplers_for, takes_steps
from tests.unit.samplers.conftest import BANDS

DENOISING = samplers_for(causal=False)
KNOBS = {
    "confidence": [{"per_step": 2}, {"schedule": "cosine"}],
    "random": [{"per_step": 3}],
    "margin": [{}],
    "entropy": [{"schedule": "polynomial:3"}],
    "ancestral": [{}, {"schedule": "geometric"}],
    "first_hitting": [{}],
    "remask": [
        {"eta": 0.5},
        {"eta": 0.7, "sigma": "rescale"},
        {"eta": 1.0, "confidence": True},
        {"eta": 0.5, "when": "switch", "t_on": 0.8},
        {"eta": 0.3, "when": "loop", "schedule": "cosine"},
    ],
    "semi_autoregressive": [
        {"block": 2},
        {"block": 3, "inner": {"kind": "remask", "eta": 0.5, "sigma": "rescale"}},
        {"block": 1, "inner": "first_hitting"},
        {"block": 100, "inner": "entropy"},
        {"block": 2, "inner": "random:2"},
    ],
    "through_depth": [{}, {"rule": "margin"}, {"rule": "entropy", "per_step": 2}],
    "autoregressive": [{}],
}
CASES = [(name, knobs) for name in SAMPLERS for knobs in KNOBS[name]]


@pytest.fixture
def start():
    """A batch of a random shape: given tokens and masks anywhere, one sample all masked."""

    def make(seed, vocab):
        generator = torch.Generator().manual_seed(seed)
        shape = torch.randint(1, 5, (1,), generator=generator).item(), 4 + 3 * seed
        ids_BT = torch.randint(vocab, shape, generator=generator)
        masked_BT = torch.rand(shape, generator=generator) < torch.rand(1, generator=generator)
        masked_BT[0] = True
        return ids_BT.masked_fill(masked_BT, vocab)

    return make


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "knobs"), CASES, ids=str)
def test_prompts_stay_no_mask_is_left_and_the_sums_are_right(name, knobs, seed, rack_of, start):
    method = {"kind": name, **knobs}
    rack = rack_of("clm" if name == "autoregressive" else "diffusion", paths=BANDS, seed=seed)
    ids_BT = start(seed, rack.vocab)
    free = takes_steps(parse(SAMPLERS, method, "method", "kind"))
    columns = ids_BT.shape[1]
    for steps in [None, *([columns, 2 * columns + 1] if free else [])]:
        before_BT, filled, back = ids_BT, 0, 0
        for number, step in enumerate(
            sw.stream(rack, ids_BT, method=method, steps=steps, seed=seed), 1
        ):
            assert step.number == number
            given_BT = ids_BT != rack.mask_id
            assert torch.equal(step.ids_BT[given_BT], ids_BT[given_BT])
            held_BT = ~step.new_BT & ~step.back_BT
            assert torch.equal(step.ids_BT[held_BT], before_BT[held_BT])
            filled, back = filled + int(step.new_BT.sum()), back + int(step.back_BT.sum())
            assert step.left == int((step.ids_BT == rack.mask_id).sum())
            before_BT = step.ids_BT
        assert before_BT.max() < rack.vocab and step.left == 0
        assert filled - back == int((ids_BT == rack.mask_id).sum())
        assert back == 0 or name in ("remask", "semi_autoregressive")


def test_every_sampler_is_among_the_cases():
    assert set(KNOBS) == set(SAMPLERS), "give a new sampler its cases here"
    assert any(takes_steps(parse(SAMPLERS, name, "method", "kind")) for name in DENOISING)


@pytest.mark.parametrize(("name", "knobs"), CASES, ids=str)
def test_seeds_decide_the_sample(name, knobs, rack_of):
    rack = rack_of(paths=BANDS)
    prompt_BP = torch.zeros(8, 1, dtype=torch.int64)
    first, again, other = (
        sw.sample_ids(rack, prompt_BP, length=6, method={"kind": name, **knobs}, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_remasking_takes_back_what_it_filled_and_no_prompt(rack_of):
    """So that the sums above are not those of a sampler that never takes back."""
    rack = rack_of()
    prompt_BP = torch.ones(4, 6, dtype=torch.int64)
    method = {"kind": "remask", "eta": 0.5}
    steps = list(sw.stream(rack, prompt_BP, length=10, method=method, steps=20))
    assert sum(int(step.back_BT.sum()) for step in steps) > 20
    assert not any(step.back_BT[:, :6].any() for step in steps)
    assert not steps[-1].back_BT.any()


@pytest.mark.parametrize("inner", ["ancestral", "first_hitting", "margin", "remask"])
def test_windows_are_filled_from_left_to_right(inner, rack_of):
    rack = rack_of()
    method = {"kind": "semi_autoregressive", "block": 4, "inner": inner}
    steps = sw.stream(rack, [[0, 0, 0], [1, 1, 1]], length=10, method=method)
    for step in steps:
        left_BT = (step.ids_BT == rack.mask_id)[:, 3:]
        for number in range(2):
            later_BT = left_BT[:, 4 * number + 4 :]
            if not later_BT.all():
                assert not left_BT[:, 4 * number : 4 * number + 4].any()


@pytest.mark.parametrize("rule", ["random", "confidence", "margin", "entropy"])
@pytest.mark.parametrize("steps", [None, 3, 7])
def test_through_depth_runs_band_after_band(rule, steps, rack_of):
    """One path at a time, heavy to light, for samples with different numbers of masks."""
    rack = rack_of("diffusion", paths=BANDS)
    ids_BT = torch.full((3, 10), rack.mask_id)
    ids_BT[1, :4] = 0
    ids_BT[2, :8] = 0
    done, ran = [], ids_BT
    for step in sw.stream(rack, ids_BT, method=f"through_depth:{rule}", steps=steps):
        (path,) = step.paths
        for masked in (ran == rack.mask_id).sum(1)[step.new_BT.any(1)].tolist():
            assert rack.path_for(masked / 10) == path
        done.append(path)
        ran = step.ids_BT
    assert list(dict.fromkeys(done)) == [path for _, _, path in BANDS]
    assert done == sorted(done, key=[path for _, _, path in BANDS].index)
    assert len(done) == (10 if steps is None else steps)


def test_a_time_that_is_drawn_decides_who_is_hit_first(rack_of):
    """Each position comes first equally often: four standard deviations of 2000 draws."""
    rack = rack_of()
    first = next(sw.stream(rack, torch.full((2000, 5), rack.mask_id), method="first_hitting"))
    assert (first.new_BT.sum(1) == 1).all()
    share_T = first.new_BT.double().mean(0)
    assert (share_T - 0.2).abs().max() < 4 * (0.2 * 0.8 / 2000) ** 0.5


def test_ranked_samplers_commit_what_their_rule_says(toy_law):
    """Against each rule written out, greedy, at the first step, over laws that tell them apart."""
    picked = []
    for seed in range(12):
        law = toy_law(length=5, seed=seed)
        ids_BT = torch.full((1, 5), law.mask_id)
        p_TV = law.hidden(ids_BT, causal=False)[0].exp()
        best_TV = p_TV.sort(-1, descending=True).values
        scores = {
            "confidence": best_TV[:, 0],
            "margin": best_TV[:, 0] - best_TV[:, 1],
            "entropy": (p_TV * p_TV.log()).sum(-1),
        }
        for method, score_T in scores.items():
            step = next(sw.stream(law, ids_BT, method=method, temperature=0.0))
            assert step.new_BT[0].nonzero().item() == score_T.argmax(), method
            assert step.ids_BT[0][step.new_BT[0]] == p_TV[score_T.argmax()].argmax()
        picked.append(tuple(int(score_T.argmax()) for score_T in scores.values()))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert any(each[one] != each[other] for each in picked)


def test_maskgits_cosine_commits_few_at_first(rack_of):
    """Of n masks n cos(pi/2 r) are left, rounded up, after a share r of the steps."""
    rack = rack_of()
    method = {"kind": "confidence", "schedule": "cosine"}
    left = [step.left for step in sw.stream(rack, [], length=20, method=method, steps=5)]
    want = [20 * torch.cos(torch.tensor(torch.pi / 2 * r / 5)).item() for r in range(1, 5)]
    assert left == [*(int(-(-count // 1)) for count in want), 0]


def test_a_number_per_step_is_kept_to(rack_of):
    method = {"kind": "entropy", "per_step": 4}
    new = [int(step.new_BT.sum()) for step in sw.stream(rack_of(), [], length=10, method=method)]
    assert new == [4, 4, 2]
