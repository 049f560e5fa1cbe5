"""Few seeds: Student's t and not the normal, and the seeds that a spread asks for."""

from __future__ import annotations

import math

import pytest

from stackwise.study.statistics import edge_of, paired, power, seeds_needed

# Two-sided 5 % and 1 % points of Student's t, as any table prints them (three decimals).
TABLE = {1: (12.706, 63.657), 2: (4.303, 9.925), 3: (3.182, 5.841), 4: (2.776, 4.604),
         7: (2.365, 3.499), 9: (2.262, 3.250), 30: (2.042, 2.750), 120: (1.980, 2.617)}  # fmt: skip


@pytest.mark.parametrize(("df", "points"), TABLE.items())
def test_quantiles_are_those_of_the_table(df, points) -> None:
    for level, expected in zip((0.95, 0.99), points, strict=True):
        assert edge_of(level, df) == pytest.approx(expected, abs=6e-4)


def test_an_interval_of_three_seeds_by_hand() -> None:
    """1, 2, 3: mean 2, sd 1, half width 4.3027 / sqrt 3."""
    found = paired([1.0, 2.0, 3.0])
    assert (found.mean, found.sd, found.n) == (2.0, 1.0, 3)
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert found.mean - found.low == pytest.approx(found.high - found.mean, abs=1e-12)


def test_what_is_missing_is_left_out_and_one_has_no_interval() -> None:
    assert paired([1.0, math.nan, 3.0]).n == 2
    assert paired([1.0]).mean == 1.0 and math.isnan(paired([1.0]).low)
    assert math.isnan(paired([]).mean) and paired([math.nan]).n == 0


@pytest.mark.parametrize(
    ("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (1.5, 6)]
)
def test_seeds_are_those_of_the_tables_of_power(effect, seeds) -> None:
    """Paired, two-sided 5 %, power 0.8, as G*Power gives them by the exact noncentral t."""
    assert seeds_needed(effect, 1.0) == seeds_needed(-10 * effect, 10.0) == seeds
    assert power(effect, 1.0, seeds) >= 0.8 > power(effect, 1.0, seeds - 1)


def test_three_seeds_are_the_least_and_nothing_needs_no_number() -> None:
    assert seeds_needed(5.0, 0.1) == seeds_needed(1.0, 0.0) == 3
    for effect, sd in ((0.0, 1.0), (math.nan, 1.0), (1.0, math.nan), (1e-9, 1.0)):
        assert seeds_needed(effect, sd) is None


def test_without_a_difference_the_test_errs_as_often_as_it_says() -> None:
    assert power(0.0, 1.0, 5) == pytest.approx(0.05, abs=1e-6)
