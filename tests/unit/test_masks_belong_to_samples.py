"""A sample's mask depends on seed, sample, draw and band; not on when or with whom it is drawn."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stackwise.draws import Stream, smallest, time_fracs_B, uniform_BT
from stackwise.objective import Corruption, corrupt

FULL = (0.0, 1.0)
OBJECTIVES = ["diffusion", "mlm", "clm"]
HOW = [("diffusion", sampling) for sampling in ("antithetic", "iid", "stratified_k", "bell")]
HOW += [("mlm", "antithetic"), ("clm", "antithetic")]
PINNED = [[0.4776688005547246, 0.03297273501171183], [0.7921547984533214, 0.29635446909751584]]


@pytest.fixture
def rule(params):
    def make(objective="diffusion", **changes):
        values = {"vocab": 11, "batch_size": 8, "seed": 3, **changes}
        return Corruption(params.objective(objective), **values)

    return make


@pytest.fixture
def ids_BT():
    return np.random.default_rng(0).integers(0, 11, (8, 64))


def rows(batch, index):
    found = {key: value[index] for key, value in vars(batch).items() if value is not None}
    return SimpleNamespace(**found)


def same(a, b):
    ours, theirs = ({k: v for k, v in vars(x).items() if v is not None} for x in (a, b))
    return ours.keys() == theirs.keys() and all(ours[k].equal(theirs[k]) for k in ours)


def test_the_numbers_are_those_of_one_numpy_generator_per_row():
    band = (0.25, 0.5)
    word = int(np.array(band, dtype=np.float32).view(np.uint64)[0])
    found = uniform_BT(7, [5, 6], [2, 2], band, 33, Stream.TIME)
    for sample, row in zip([5, 6], found, strict=True):
        key = np.array([7, Stream.TIME], dtype=np.uint64)
        counter = np.array([0, sample, 2, word], dtype=np.uint64)
        oracle = np.random.Generator(np.random.Philox(key=key, counter=counter)).random(33)
        np.testing.assert_array_equal(row, oracle)


def test_the_numbers_are_pinned_so_that_old_runs_can_be_made_again():
    found = uniform_BT(0, [0, 1], [0, 0], FULL, 2)
    np.testing.assert_array_equal(found, PINNED)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"sample": 1}, {"draw": 1}, {"band": (0.0, 0.5)}, {"stream": Stream.TIME}],
)
def test_everything_that_names_a_draw_changes_it(change):
    names = {"seed": 0, "sample": 0, "draw": 0, "band": FULL, "stream": Stream.MASK}

    def draw(seed, sample, draw, band, stream):
        return uniform_BT(seed, [sample], [draw], band, 64, stream)

    a, b = draw(**names), draw(**{**names, **change})
    assert not np.intersect1d(a, b).size


@pytest.mark.parametrize(("objective", "sampling"), HOW)
def test_order_and_micro_batch_change_no_mask(objective, sampling, rule, batch_of, ids_BT):
    how, batch = rule(objective, sampling=sampling), batch_of(ids_BT, first=16)
    whole = corrupt(how, batch)
    order = np.random.default_rng(1).permutation(8)
    assert same(
        corrupt(how, rows(batch, order)),
        type(whole)(*(x if x is None else x[order] for x in vars(whole).values())),
    )
    for part, micro in zip(whole.split(3), (slice(0, 3), slice(3, 6), slice(6, 8)), strict=True):
        assert same(corrupt(how, rows(batch, micro)), part)


def test_arrays_and_tensors_are_corrupted_alike(rule, batch_of, ids_BT):
    batch = batch_of(ids_BT)
    as_tensors = SimpleNamespace(**{k: torch.as_tensor(v) for k, v in vars(batch).items()})
    assert same(corrupt(rule(), batch), corrupt(rule(), as_tensors))


def test_corruption_leaves_its_input_alone(rule, batch_of, ids_BT):
    before = ids_BT.copy()
    for objective in OBJECTIVES:
        noisy = corrupt(rule(objective), batch_of(ids_BT))
        noisy.target_BT.zero_()
        noisy.input_BT.zero_()
        np.testing.assert_array_equal(ids_BT, before)


def test_a_new_epoch_brings_a_new_mask(rule, batch_of, ids_BT):
    a, b = (corrupt(rule(), batch_of(ids_BT, draw=draw)).counted_BT for draw in (0, 1))
    assert not torch.equal(a, b)


@given(place=st.integers(0, 1000), seed=st.integers(0, 2**31 - 1), batch=st.integers(1, 64))
def test_antithetic_times_of_a_step_are_evenly_spaced(place, seed, batch):
    place_B = place // batch * batch + np.arange(batch)
    sample_B = np.random.default_rng(seed).permutation(batch)
    frac_B = time_fracs_B(seed, sample_B, 0 * place_B, place_B, batch=batch)
    assert ((frac_B > 0) & (frac_B <= 1)).all()
    gaps = np.diff(np.sort(frac_B))
    np.testing.assert_allclose(gaps, 1 / batch, atol=1e-12)
    u = uniform_BT(seed, [place // batch], [0], FULL, 1, Stream.TIME)[0, 0]
    np.testing.assert_allclose(frac_B % 1, (u + np.arange(batch) / batch) % 1, atol=1e-12)


@pytest.mark.parametrize("sampling", ["antithetic", "iid"])
def test_time_0_is_never_drawn_since_its_weight_has_no_bound(sampling, monkeypatch):
    monkeypatch.setattr("stackwise.draws.uniform_BT", lambda *_: np.zeros((4, 1)))
    place_B = np.arange(4)
    frac_B = time_fracs_B(0, place_B, 0 * place_B, place_B, batch=4, sampling=sampling)
    assert frac_B.tolist() == ([1, 0.25, 0.5, 0.75] if sampling == "antithetic" else [1] * 4)


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_smallest_chooses_exactly_as_many(counts):
    u_BT = uniform_BT(0, range(len(counts)), [0] * len(counts), FULL, 9)
    chosen_BT = smallest(u_BT, counts)
    assert chosen_BT.sum(1).tolist() == counts
    for u_T, chosen_T in zip(u_BT, chosen_BT, strict=True):
        assert not chosen_T.any() or chosen_T.all() or u_T[chosen_T].max() < u_T[~chosen_T].min()


def test_mask_frequencies_follow_the_schedule(rule, batch_of, params):
    """Law of large numbers, at 5 standard errors of the count."""
    ids_BT = np.zeros((512, 64), dtype=np.int64)
    how = rule(schedule=params.schedule("cosine"), batch_size=512)
    noisy = corrupt(how, batch_of(ids_BT))
    assert noisy.counted_BT.double().mean() == pytest.approx(2 / np.pi, abs=5 * 0.5 / 512)


def test_mlm_hides_80_10_10(rule, batch_of, ids_BT):
    ids_BT = np.tile(ids_BT, (64, 2))
    noisy = corrupt(rule("mlm"), batch_of(ids_BT))
    assert (noisy.counted_BT.sum(1) == round(0.15 * 128)).all()
    read_N, own_N = noisy.input_BT[noisy.counted_BT], noisy.target_N
    masked, kept = read_N == 11, read_N == own_N
    assert masked.double().mean() == pytest.approx(0.8, abs=0.02)
    # A random id is the own one once in 11 times: 0.1 + 0.1 / 11.
    assert kept.double().mean() == pytest.approx(0.1 + 0.1 / 11, abs=0.02)
    random_N = read_N[~masked & ~kept]
    assert set(random_N.tolist()) == set(range(11))
    elsewhere = ~noisy.counted_BT
    assert torch.equal(noisy.input_BT[elsewhere], noisy.target_BT[elsewhere])


def test_mlm_follows_a_ramp(rule, batch_of, ids_BT, params):
    how = rule("mlm", schedule=params.schedule("ramp"))
    for progress, count in [(0, round(0.15 * 64)), (1, round(0.9 * 64))]:
        noisy = corrupt(how, batch_of(ids_BT), progress=progress)
        assert (noisy.counted_BT.sum(1) == count).all()
        np.testing.assert_allclose(noisy.mask_frac_B, count / 64, rtol=1e-6)


def test_clm_reads_a_start_and_scores_every_token(rule, batch_of, ids_BT):
    noisy = corrupt(rule("clm"), batch_of(ids_BT))
    assert (noisy.input_BT[:, 0] == 12).all()
    np.testing.assert_array_equal(noisy.input_BT[:, 1:], ids_BT[:, :-1])
    np.testing.assert_array_equal(noisy.target_BT, ids_BT)
    assert noisy.counted_BT.all() and (noisy.weight_N == 1).all()


def test_diffusion_counts_what_it_masks_and_nothing_else(rule, batch_of, ids_BT):
    noisy = corrupt(rule(), batch_of(ids_BT))
    assert torch.equal(noisy.input_BT == 11, noisy.counted_BT)
    assert torch.equal(noisy.input_BT[~noisy.counted_BT], noisy.target_BT[~noisy.counted_BT])
    np.testing.assert_allclose(noisy.mask_frac_B, noisy.counted_BT.double().mean(1), rtol=1e-6)
    spread = noisy.weight_B[:, None].expand(8, 64)[noisy.counted_BT]
    assert torch.equal(noisy.weight_N, spread)
