"""FLOPs to a target and the loss at a common budget, on curves whose answer is known."""

from __future__ import annotations

import math

import pytest

from stackwise.study.curves import Look, bits_at, flops_to

# bits = 10 - log2(flops): straight in the logarithm, so that interpolation there is exact.
LAW = [Look(tokens=f / 2, flops=f, bits_per_byte=10 - math.log2(f)) for f in (2.0, 8.0, 64.0)]


@pytest.mark.parametrize("flops", [2.0, 3.0, 8.0, 40.0, 64.0])
def test_a_straight_curve_is_read_exactly(flops) -> None:
    bits = 10 - math.log2(flops)
    assert flops_to(LAW, bits) == pytest.approx(flops, rel=1e-12)
    assert bits_at(LAW, "flops", flops) == pytest.approx(bits, rel=1e-12)
    assert bits_at(LAW, "tokens", flops / 2) == pytest.approx(bits, rel=1e-12)


def test_the_first_crossing_counts() -> None:
    back = [*LAW, Look(100, 200.0, 9.0), Look(200, 400.0, 3.0)]
    assert flops_to(back, 6.0) == pytest.approx(16.0)


def test_what_is_never_reached_is_no_number() -> None:
    assert math.isnan(flops_to(LAW, 3.9)) and math.isnan(flops_to([], 1.0))


def test_a_target_below_which_it_begins_is_reached_at_the_first_look() -> None:
    assert flops_to(LAW, 20.0) == 2.0


def test_nothing_is_said_outside_of_the_looks_but_for_part_of_a_step() -> None:
    assert math.isnan(bits_at(LAW, "flops", 1.9)) and math.isnan(bits_at(LAW, "flops", 65.0))
    assert bits_at(LAW, "flops", 65.0, slack=2.0) == 4.0
    assert math.isnan(bits_at([], "flops", 1.0))
