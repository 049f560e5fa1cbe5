"""Curves: what is taken between, above and below the sizes at which a rate is known."""

from __future__ import annotations

import pytest

from stackwise.planner.curve import rate_at, seconds_for

CURVE = ((10.0, 100.0), (1000.0, 400.0))


def test_a_known_size_has_its_own_rate() -> None:
    assert rate_at(CURVE, 10) == pytest.approx(100) and rate_at(CURVE, 1000) == pytest.approx(400)


def test_between_two_it_lies_on_a_line_in_logarithms() -> None:
    assert rate_at(CURVE, 100) == pytest.approx(200)  # halfway from 10 to 1000, and 100 to 400


def test_above_the_largest_it_stays() -> None:
    assert rate_at(CURVE, 1e9) == 400


def test_below_the_smallest_a_call_takes_as_long_as_the_smallest() -> None:
    assert seconds_for(CURVE, 10) == seconds_for(CURVE, 1) == pytest.approx(0.1)


def test_a_single_point_is_the_rate_of_every_size() -> None:
    assert rate_at(((64.0, 5.0),), 1) == rate_at(((64.0, 5.0),), 1e6) == 5


def test_work_in_pieces_goes_at_the_rate_of_a_piece() -> None:
    assert seconds_for(CURVE, 1000, 100) == pytest.approx(5)
    assert seconds_for(CURVE, 0) == 0
