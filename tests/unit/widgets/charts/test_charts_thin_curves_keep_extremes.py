"""Thinning leaves out points, and never a lowest, a highest, or one that is no number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackwise_widgets.charts.decimate import (
    columns_joined,
    mean_of_groups,
    running_mean,
    thin,
)

values = st.lists(st.floats(width=32), max_size=400).map(np.array)


@given(values, st.integers(12, 90))
def test_a_thinned_curve_keeps_ends_extremes_and_every_kind(value, most) -> None:
    kept = thin(value, most)
    assert len(kept) <= max(most, 0) or len(value) <= most
    assert (np.diff(kept) > 0).all()
    if not len(value):
        assert not len(kept)
        return
    assert kept[0] == 0 and kept[-1] == len(value) - 1
    finite, left = value[np.isfinite(value)], value[kept]
    if len(finite):
        assert left[np.isfinite(left)].min() == finite.min()
        assert left[np.isfinite(left)].max() == finite.max()
    for kind in (np.isnan, np.isposinf, np.isneginf):
        assert kind(left).any() == kind(value).any()


@given(st.integers(100, 3000), st.integers(0, 2999), st.sampled_from([np.nan, np.inf, -np.inf, 9]))
def test_one_odd_point_among_many_is_kept_where_it_is(count, place, odd) -> None:
    value = np.zeros(count)
    value[place % count] = odd
    assert place % count in thin(value, 40)


def test_a_short_curve_is_left_as_it_is() -> None:
    np.testing.assert_array_equal(thin(np.arange(2000.0)), np.arange(2000))
    assert len(thin(np.random.default_rng(0).random(1_000_000))) <= 2000


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError) as error:
        thin(np.zeros(20), 11)
    assert str(error.value) == "most: 11 points are too few; 12 or more"


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 120))
def test_joined_columns_never_cross_a_border_if_there_is_room(sizes, most) -> None:
    stage = np.repeat(np.arange(len(sizes)), sizes)
    begin = columns_joined(stage, most)
    assert len(begin) <= most and begin[0] == 0
    if len(sizes) <= most:
        assert set(np.flatnonzero(np.diff(stage)) + 1) <= set(begin)


def test_a_group_is_the_mean_of_what_is_there() -> None:
    value = np.array([[1.0, 3.0, np.nan, 5.0], [np.nan, np.nan, np.inf, 2.0]])
    mean = mean_of_groups(value, np.array([0, 2]))
    np.testing.assert_array_equal(mean, [[2.0, 5.0], [np.nan, 2.0]])


@given(st.lists(st.floats(-9, 9) | st.just(np.nan) | st.just(np.inf), max_size=40),
       st.integers(1, 9), st.integers(1, 12))  # fmt: skip
def test_a_running_mean_is_of_the_last_numbers_of_its_stage(found, window, each) -> None:
    value, stage = np.array(found, float), np.arange(len(found)) // each
    slow = np.full(len(found), np.nan)
    for place in range(len(found)):
        first = max(place - window + 1, place // each * each)
        kept = value[first : place + 1][np.isfinite(value[first : place + 1])]
        if np.isfinite(value[place]):
            slow[place] = kept.mean()
    # pandas' rolling sums lose some bits of the largest number that passed through them.
    np.testing.assert_allclose(running_mean(value, stage, window), slow, atol=1e-12)
