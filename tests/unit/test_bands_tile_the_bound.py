"""Noise bands: they tile (0, 1], the leftmost stack gets the heaviest, and their losses add up."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stackwise as sw
from stackwise.choice import parse
from stackwise.masking import band_edges, stack_bands, unserved
from stackwise.objective import Corruption, corrupt, loss_at
from stackwise.schedules import SCHEDULES, time_schedule
from stackwise.stage import band_paths

OVER_TIME = ["linear", "cosine", "polynomial", "geometric"]
RULES = ["equal_mass", "linear", "exponential", (0.1, 0.6)]


def masking(bands, schedule=None):
    return SimpleNamespace(bands=bands, schedule=schedule, sampling="antithetic")


@given(
    rule=st.sampled_from(["equal_mass", "linear", "exponential"]),
    stacks=st.integers(1, 80),
    name=st.sampled_from(OVER_TIME),
)
def test_bands_tile_all_noise_from_heavy_to_light(rule, stacks, name):
    schedule = parse(SCHEDULES, name, "masking.schedule", "name")
    diffusion = SimpleNamespace(choice="diffusion")
    bands = stack_bands(masking(rule, schedule), stacks, diffusion)
    assert len(bands) == stacks
    assert bands[0][1] == 1 and bands[-1][0] == 0
    assert all(left[0] == right[1] for left, right in pairwise(bands))
    assert all(low < high for low, high in bands)


def test_without_bands_every_stack_sees_all_noise(params):
    assert stack_bands(masking(None), 3, params.objective("diffusion")) == ((0, 1),) * 3


@pytest.mark.parametrize(
    ("rule", "schedule", "edges"),
    [
        ("equal_mass", "linear", (0, 1 / 3, 2 / 3, 1)),
        ("equal_mass", "polynomial:2", (0, 1 / 9, 4 / 9, 1)),
        ("equal_mass", "cosine", (0, 0.5, 3**0.5 / 2, 1)),
        ("linear", "cosine", (0, 1 / 3, 2 / 3, 1)),
        ("exponential", "linear", (0, (16 ** (1 / 3) - 1) / 15, (16 ** (2 / 3) - 1) / 15, 1)),
        ((0.1, 0.6), "linear", (0, 0.1, 0.6, 1)),
    ],
)
def test_edges_have_their_closed_forms(rule, schedule, edges, params):
    found = band_edges(rule, 3, params.schedule(schedule))
    assert found == pytest.approx(edges, abs=1e-12)
    assert (found[0], found[-1]) == (0.0, 1.0)


@pytest.mark.parametrize("name", OVER_TIME)
def test_bands_of_equal_mass_take_equal_time(name, params):
    schedule = params.schedule(name)
    times = time_schedule(schedule).time_of(np.array(band_edges("equal_mass", 5, schedule)))
    assert np.diff(times) == pytest.approx([0.2] * 5, abs=1e-9)


def banded(params, band, schedule, **changes):
    values = {"vocab": 3, "batch_size": 512, "seed": 0, "schedule": params.schedule(schedule)}
    return Corruption(params.objective("diffusion"), band=band, **{**values, **changes})


def test_masked_fractions_stay_inside_the_band(params, batch_of):
    noisy = corrupt(
        banded(params, (0.25, 0.5), "cosine"), batch_of(np.zeros((512, 400), dtype=int))
    )
    # Five standard deviations of a binomial fraction of 400.
    assert noisy.mask_frac_B.min() > 0.25 - 0.125
    assert noisy.mask_frac_B.max() < 0.5 + 0.125
    assert noisy.mask_frac_B.mean() == pytest.approx(0.38, abs=0.01)


def losses(rack, words_BT, how, batch_of):
    noisy = corrupt(how, batch_of(words_BT.numpy()))
    for part in noisy.split(512):
        logits_NV = rack.hidden(part.input_BT, causal=False)[part.counted_BT]
        yield float(loss_at(logits_NV, part.target_N, part.weight_N, part.input_BT.numel()))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("schedule", ["linear", "geometric"])
def test_losses_of_the_bands_add_up_to_the_whole_bound(rule, schedule, toy_law, batch_of, params):
    """A net that knows the law: the whole is the entropy, 3 letters a word."""
    law = toy_law()
    edges = band_edges(rule, 3, params.schedule(schedule))
    means, errors = [], []
    for band in pairwise(edges):
        found = list(losses(law, law.sample(8192), banded(params, band, schedule), batch_of))
        means.append(np.mean(found))
        errors.append(np.std(found, ddof=1) / np.sqrt(len(found)))
    error = np.linalg.norm(errors)
    assert error < 0.02 * law.entropy / 3
    assert sum(means) == pytest.approx(law.entropy / 3, abs=4 * error)


def test_band_losses_of_a_real_rack_are_the_parts_of_its_whole_bound(batch_of, params):
    """Each band by the path that serves it, and all noise at once by the path of each time.

    The same samples have the same numbers in both. Evenly spaced times of the whole that fall into
    a band are as evenly spaced in it, so both are midpoints of one integral: they differ by little,
    and a rack that ran the whole path everywhere, by far more.
    """
    exp = sw.Experiment.preset("toy").replace(
        rack={"stacks": 3, "d_model": 16, "d_ff": 32, "init_std": 1.0},
        curriculum="right_to_left",
        masking={"bands": (0.25, 0.5)},
    )
    made = sw.stages(exp)
    torch.manual_seed(0)
    rack = sw.Rack(exp.rack, exp.attention, 3, stacks=("s0", "s1", "s2"))
    words_BT = torch.randint(3, (8192, 8), generator=torch.Generator().manual_seed(1)).numpy()
    size = len(words_BT)

    def per_token(band, paths):
        """The loss under a band, each sample by the path that holds its time."""
        how = banded(params, band, "linear", batch_size=size)
        noisy = corrupt(how, batch_of(words_BT))
        width = band[1] - band[0]
        time_B = width / noisy.weight_B  # of the linear schedule: the mask probability
        total = 0.0
        for low, high, path in paths:
            here_B = (time_B > low) & (time_B <= high)
            counted_BT = noisy.counted_BT & here_B[:, None]
            with torch.no_grad():
                x_BTD = rack.hidden(noisy.input_BT, causal=False, path=path)
                logits_NV = rack.logits(x_BTD[counted_BT])
            weight_N = noisy.weight_B[:, None].expand_as(counted_BT)[counted_BT]
            total += float(loss_at(logits_NV, noisy.target_BT[counted_BT], weight_N, size * 8))
        return total

    paths = band_paths(made)
    assert [path for *_, path in paths] == [("s2",), ("s1", "s2"), ("s0", "s1", "s2")]
    parts = sum(per_token((low, high), [(low, high, path)]) for low, high, path in paths)
    whole = per_token((0.0, 1.0), paths)
    other = per_token((0.0, 1.0), [(0.0, 1.0, paths[-1][2])])
    # Masks of 2^16 tokens are drawn anew in each band: a hundredth, and the control is far off.
    assert parts == pytest.approx(whole, rel=0.02)
    assert abs(other / whole - 1) > 0.05


def test_without_the_factor_of_the_band_they_do_not_add_up(toy_law, batch_of, params):
    """The failing control: three bands of equal time sum to three times the bound."""
    law, total = toy_law(), 0.0
    for band in pairwise((0, 1 / 3, 2 / 3, 1)):
        how = banded(params, band, "linear")
        total += np.mean(list(losses(law, law.sample(8192), how, batch_of))) * 3
    assert total == pytest.approx(law.entropy, rel=0.05)


def test_the_weight_inside_a_band_is_the_schedules_times_its_span_of_time(params, batch_of):
    band = (0.19, 0.75)
    noisy = corrupt(banded(params, band, "polynomial:2"), batch_of(np.zeros((512, 4), dtype=int)))
    low, high = np.sqrt(band)
    weight_B = np.sort(noisy.weight_B.numpy())
    assert (high - low) * 2 / high <= weight_B[0] < weight_B[-1] <= (high - low) * 2 / low + 1e-5


@pytest.mark.parametrize(
    ("objective", "sampling", "band", "text"),
    [
        ("mlm", "antithetic", (0.0, 0.5), "(0.0, 0.5) goes with masked diffusion alone"),
        ("clm", "antithetic", (0.0, 0.5), "and not with objective=clm, sampling=anti"),
        (
            "diffusion",
            "stratified_k",
            (0.5, 1.0),
            "sampling=stratified_k; leave it out",
        ),
        ("diffusion", "iid", (0.5, 0.5), "(0.5, 0.5) must rise within 0 and 1"),
        ("diffusion", "iid", (0.5, 1.5), "(0.5, 1.5) must rise within 0 and 1"),
    ],
)
def test_a_band_that_leaves_the_bound_undefined_is_refused(objective, sampling, band, text, params):
    with pytest.raises(ValueError) as error:
        Corruption(params.objective(objective), 3, 8, 0, sampling=sampling, band=band)
    assert text in str(error.value)


def test_weights_are_finite_at_the_smallest_time(params, batch_of):
    """The light end of the lightest band; nothing is masked there, and 0 times inf would be NaN."""
    for name in OVER_TIME:
        noisy = corrupt(banded(params, (0.0, 1e-6), name), batch_of(np.zeros((512, 4), dtype=int)))
        assert torch.isfinite(noisy.weight_B).all()


@given(
    length=st.integers(1, 300),
    ends=st.lists(st.fractions(0, 1, max_denominator=300), min_size=2, max_size=2, unique=True),
)
def test_a_band_serves_what_the_rack_asks_of_it(length, ends):
    low, high = sorted(map(float, ends))
    served = any(low < k / length <= high for k in range(1, length + 1))
    assert (unserved((low, high), length) is None) == served
