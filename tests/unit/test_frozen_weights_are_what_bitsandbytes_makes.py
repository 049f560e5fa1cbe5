"""Codes and scales against bitsandbytes' own functions and parameters, and against slow references.

What comes back is compared with the definition: the 16 values written out, times the scale.
"""

import re
from dataclasses import replace
from math import gcd
from pathlib import Path

import bitsandbytes as bnb
import bitsandbytes.functional as reference
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stackwise.model import codes
from stackwise.model.formats import FORMATS
from stackwise.model.frozen import FrozenLinear

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
FOUR_BIT = ("nf4", "fp4")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Whole blocks; blocks across rows; a last block that is not full; an odd number of numbers.
SHAPES = [(64, 96), (6, 128), (5, 96), (3, 34), (9, 63), (7, 7), (1, 1), (130, 10)]


def normal(shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 0.02).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FOUR_BIT)
def test_four_bit_codes_and_scales_are_those_of_the_functional(name, dtype, shape):
    weight_OI = normal(shape, dtype)
    code, state = reference.quantize_4bit(weight_OI, blocksize=64, quant_type=name)
    packed = FORMATS[name].pack(weight_OI)
    assert torch.equal(packed["scale"], state.absmax)
    assert torch.equal(packed[name].view(-1)[: code.numel()], code.view(-1))
    assert not packed[name].view(-1)[code.numel() :].any()  # padding


@pytest.mark.parametrize("name", FOUR_BIT)
def test_four_bit_codes_and_scales_are_those_of_its_layer(name):
    weight_OI = normal((32, 64))
    theirs = bnb.nn.Params4bit(
        weight_OI.clone(), requires_grad=False, quant_type=name, compress_statistics=False
    ).to("cpu")
    packed = FORMATS[name].pack(weight_OI)
    assert torch.equal(packed[name].view(-1), theirs.data.view(-1))
    assert torch.equal(packed["scale"], theirs.quant_state.absmax)


@pytest.mark.parametrize("dtype", DTYPES)
def test_eight_bit_codes_and_scales_are_those_of_its_layer(dtype):
    weight_OI = normal((33, 65), dtype)
    theirs = bnb.nn.Int8Params(weight_OI.clone(), requires_grad=False).to("cpu")
    packed = FORMATS["int8"].pack(weight_OI)
    assert torch.equal(packed["int8"], theirs.CB)
    assert torch.equal(packed["scale"], theirs.SCB)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", (*DTYPES, torch.float64))
@pytest.mark.parametrize("name", FOUR_BIT)
def test_four_bits_come_back_as_value_times_scale(name, dtype, shape):
    packed = FORMATS[name].pack(normal(shape))
    bytes_ = packed[name].view(-1).long()
    values = reference.get_4bit_type(name, device="cpu")[torch.stack([bytes_ >> 4, bytes_ & 15], 1)]
    slow = (values.view(-1, 64) * packed["scale"][:, None]).view(-1)
    slow_OI = slow[: shape[0] * shape[1]].view(shape).to(dtype)
    assert torch.equal(FORMATS[name].unpack(packed, shape, dtype), slow_OI)


@pytest.mark.parametrize("dtype", (*DTYPES, torch.float64))
def test_a_byte_comes_back_as_code_times_scale(dtype):
    weight_OI = normal((33, 65))
    fp8, int8 = (FORMATS[name].pack(weight_OI) for name in ("fp8", "int8"))
    slow_OI = fp8["fp8"].float() * fp8["scale"][:, None]
    assert torch.equal(FORMATS["fp8"].unpack(fp8, (33, 65), dtype), slow_OI.to(dtype))
    slow_OI = int8["int8"].float() * int8["scale"][:, None]
    # bitsandbytes multiplies by 1/127 in float32, which is off by half a unit in the last place.
    found_OI = FORMATS["int8"].unpack(int8, (33, 65), dtype)
    assert torch.allclose(found_OI.double(), slow_OI.double() / 127, rtol=torch.finfo(dtype).eps)


def test_every_code_of_fp8_comes_back():
    """All 254 that are numbers, with a scale that is no power of two."""
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    every = every[~every.float().isnan()].view(1, -1)
    kept = {"fp8": every, "scale": torch.tensor([0.3])}
    assert every.numel() == 254
    found = FORMATS["fp8"].unpack(kept, (1, 254), torch.float32)
    assert torch.equal(found, every.float() * 0.3)


def test_fp8_spans_each_row_and_rounds_once():
    weight_OI = normal((16, 200)) * torch.logspace(-30, 30, 16)[:, None]
    packed = FORMATS["fp8"].pack(weight_OI)
    assert torch.equal(packed["fp8"].float().abs().amax(1), torch.full((16,), 448.0))
    found_OI = FORMATS["fp8"].unpack(packed, (16, 200), torch.float32)
    # Half of the last of 3 bits, or of the smallest step, 2^-9, where numbers are small.
    most_OI = torch.maximum(weight_OI.abs() * 2**-4, packed["scale"][:, None] * 2**-10)
    assert ((found_OI - weight_OI).abs() <= most_OI * (1 + 1e-6)).all()


@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_zeros_come_back_as_zeros(name):
    weight_OI = normal((4, 64))
    weight_OI[1:3] = 0
    found_OI = FORMATS[name].unpack(FORMATS[name].pack(weight_OI), (4, 64), torch.float32)
    assert torch.equal(found_OI[1:3], torch.zeros(2, 64))
    assert found_OI[[0, 3]].any(1).all()


@pytest.mark.parametrize("shape", [*SHAPES, (40, 33)])
@pytest.mark.parametrize("name", FORMATS)
def test_slices_make_what_the_whole_makes(name, shape, monkeypatch):
    whole = FORMATS[name].pack(normal(shape))
    read = FORMATS[name].unpack(whole, shape, torch.float32)
    calls = []
    monkeypatch.setattr(codes, "CPU_WRITES", 128)
    monkeypatch.setattr(codes, "CPU_READS", 128)
    watched = replace(FORMATS[name], write=lambda *a: (calls.append(1), FORMATS[name].write(*a)))
    sliced = watched.pack(normal(shape))
    assert len(calls) > 1 or shape[0] * shape[1] <= 128 or shape[0] <= 64 // gcd(64, shape[1])
    assert all(torch.equal(sliced[key].float(), whole[key].float()) for key in whole)
    assert torch.equal(FORMATS[name].unpack(whole, shape, torch.float32), read)


@pytest.mark.parametrize("name", FORMATS)
def test_a_weight_that_is_not_contiguous_is_the_same_weight(name):
    weight_OI = normal((24, 40)).t()
    one, other = FORMATS[name].pack(weight_OI), FORMATS[name].pack(weight_OI.contiguous())
    assert all(torch.equal(one[key].float(), other[key].float()) for key in one)


@pytest.fixture
def shown():
    """The format that CONTRIBUTING.md shows, in the registry while a test runs."""
    section = CONTRIBUTING.read_text("utf-8").split("\n## Add a frozen format\n")[1]
    (code, *_) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    before = dict(FORMATS)
    try:
        exec(code, {"__name__": "example"})
        (name,) = set(FORMATS) - set(before)
        yield name
    finally:
        FORMATS.clear()
        FORMATS.update(before)


def test_the_example_in_contributing_keeps_the_contract(shown, monkeypatch):
    for shape in [*SHAPES, (40, 33)]:
        with monkeypatch.context() as patched:
            test_slices_make_what_the_whole_makes(shown, shape, patched)
    test_rows_of_zeros_come_back_as_zeros(shown)
    test_a_weight_that_is_not_contiguous_is_the_same_weight(shown)


@given(st.integers(1, 70), st.integers(1, 200), st.sampled_from(sorted(FORMATS)))
def test_bytes_are_those_that_are_taken(outputs, inputs, name):
    packed = FORMATS[name].pack(torch.ones(outputs, inputs))
    taken = sum(tensor.untyped_storage().nbytes() for tensor in packed.values())
    assert FORMATS[name].bytes_of((outputs, inputs)) == taken
    FORMATS[name].check(packed, (outputs, inputs))


@pytest.mark.parametrize(
    ("name", "bits"), [("fp16", 16), ("bf16", 16), ("fp8", 8), ("int8", 8), ("nf4", 4.5)]
)
def test_bits_per_weight_are_as_stated(name, bits):
    scales = 32 / 8192 if name in ("fp8", "int8") else 0
    assert FORMATS[name].bytes_of((8192, 8192)) * 8 / 8192**2 == bits + scales


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_keeps_exactly_what_it_says(name):
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        weight_OI = normal((16, 64), dtype)
        weight_OI[::2] *= 2**-20
        again_OI = FORMATS[name].unpack(FORMATS[name].pack(weight_OI), (16, 64), dtype)
        assert torch.equal(again_OI, weight_OI) == (dtype in FORMATS[name].keeps)


@pytest.mark.parametrize("name", FORMATS)
def test_a_weight_in_float64_is_packed_as_in_float32(name):
    weight_OI = normal((24, 40))
    packed, double = (FORMATS[name].pack(weight) for weight in (weight_OI, weight_OI.double()))
    assert all(torch.equal(packed[key], double[key]) for key in packed)
    frozen = FrozenLinear.of(torch.nn.Linear(40, 24).double(), FORMATS[name])
    assert frozen(torch.randn(2, 40).double()).dtype == frozen.weight.dtype == torch.float64


def test_a_float64_number_over_the_range_is_shown_as_it_is():
    said = r"^a weight of 1e\+39 does not go into fp16, .*; freeze a stack that is sound$"
    with pytest.raises(ValueError, match=said):
        FORMATS["fp16"].pack(torch.full((2, 2), 1e39, dtype=torch.float64))
