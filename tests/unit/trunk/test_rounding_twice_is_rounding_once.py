"""What a row is rounded to: the formats' own rules, and one rounding is all of it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stackwise.trunk.rounding import STORED, decode, encode, fp8, round_to, row_bytes

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
tokens = st.lists(floats, min_size=1, max_size=9)
dtypes = st.sampled_from([torch.float32, torch.bfloat16])


def normal(values, dtype):
    """A token of one dtype, without numbers so small that a processor may take them for 0."""
    x_D = torch.tensor(values).to(dtype)
    return torch.where(x_D.abs() < 1e-30, 0, x_D).clamp(-3e38, 3e38)


@pytest.mark.parametrize("stored", list(STORED))
@given(values=tokens, dtype=dtypes)
def test_rounding_what_was_rounded_changes_nothing(stored, values, dtype):
    once = round_to(normal(values, dtype), stored)
    assert once.dtype == dtype
    assert torch.equal(round_to(once, stored), once)


@pytest.mark.parametrize("stored", list(STORED))
@given(rows=st.integers(1, 3), values=tokens, dtype=dtypes)
def test_it_is_what_keeping_and_reading_gives(stored, rows, values, dtype):
    x_BTD = torch.stack([normal(values, dtype) * 2**-n for n in range(2 * rows)])
    x_BTD = x_BTD.reshape(rows, 2, len(values))
    bytes_BN = encode(x_BTD, stored)
    assert bytes_BN.shape == (rows, row_bytes(2, len(values), stored))
    out_BTD = torch.empty_like(x_BTD)
    decode(bytes_BN, stored, out_BTD)
    assert torch.equal(out_BTD, round_to(x_BTD, stored))


@given(values=tokens)
def test_fp8_takes_the_nearest_code_under_a_power_of_two(values):
    """Against a search through all 256 codes, in float64."""
    x_D = normal(values, torch.float32)
    codes_D, scale = fp8(x_D)
    assert math.log2(scale) % 1 == 0
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double()
    every = every[every.isfinite()]
    largest = float(x_D.abs().max())
    if largest > 1e-30:
        assert 224 < largest / float(scale) <= 448
    distance_D = (x_D.double() / scale.double() - codes_D.double()).abs()
    nearest_D = (x_D.double()[:, None] / scale.double() - every).abs().amin(1)
    assert torch.equal(distance_D, nearest_D)


def test_fp8_is_off_by_a_sixteenth_at_most():
    """3 bits of fraction: half a step is 2 ** -4 of a number with its own exponent.

    Those below 2 ** -6 of 448's scale have none: there the step is 2 ** -9 of the scale.
    """
    x_TD = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    error_TD = (round_to(x_TD, "fp8") - x_TD).abs()
    _, scale_T = fp8(x_TD)
    assert (error_TD <= torch.maximum(x_TD.abs() / 16, scale_T[:, None] * 2**-10)).all()
    assert (error_TD > x_TD.abs() / 20).any()


def test_a_token_that_is_not_finite_is_nan_and_the_others_are_not():
    x_TD = torch.ones(3, 4)
    x_TD[0, 1], x_TD[2, 3] = math.inf, math.nan
    out_TD = round_to(x_TD, "fp8")
    assert out_TD[[0, 2]].isnan().all()
    assert torch.equal(out_TD[1], x_TD[1])


def test_an_unknown_dtype_lists_the_known():
    with pytest.raises(ValueError) as error:
        round_to(torch.ones(1), "fp9")
    assert str(error.value) == (
        "dtype: 'fp9' is not known; did you mean 'fp8'? known: float32, bfloat16, fp8"
    )


@pytest.mark.parametrize(
    ("largest", "scale"), [(448, 1), (448.0001, 2), (224.0001, 1), (224, 0.5), (1, 2**-8)]
)
def test_the_scale_is_the_least_that_holds_the_largest(largest, scale):
    """448 is the largest code."""
    codes_D, found = fp8(torch.tensor([0, -largest]))
    assert codes_D.float().isfinite().all()
    assert float(found) == scale


def test_zeros_stay_zeros():
    assert torch.equal(round_to(torch.zeros(2, 3), "fp8"), torch.zeros(2, 3))
