"""The gate over frozen layers passes what is right, and finds what can be wrong with one.

Faults are put into StackWise's own code, or into the gate, which has to say that it is blind then.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stackwise.model import formats
from stackwise.model.formats import FORMATS
from stackwise.model.frozen import FrozenLinear
from stackwise.planner.doctor import layers, reference
from stackwise.planner.doctor.reference import Keeps, plain_weight

everywhere = pytest.mark.parametrize("name", FORMATS)


def finding_of(*names: str):
    return layers.judged([layers.row(name, "float32", "cpu") for name in names], "cpu")


def test_all_formats_pass_here(visit) -> None:
    found = layers.frozen_layers(visit())
    assert found.state == "ok"
    assert found.measured.startswith(
        "fp32, fp16, bf16, fp8, int8, nf4, fp4: the same bits as plain"
    )
    assert {row["format"] for row in found.figures["rows"]} == set(FORMATS)


@everywhere
@pytest.mark.parametrize("shape", [(64, 128), (33, 130), (3, 5)])
def test_codes_mean_what_the_published_tables_say(name, shape) -> None:
    packed = FORMATS[name].pack(torch.randn(shape) * 0.02)
    kernels = FORMATS[name].unpack(packed, shape, torch.float32).double()
    # One or two roundings of float32 in the product of a code and a scale.
    torch.testing.assert_close(kernels, plain_weight(name, packed, shape), rtol=2**-22, atol=0)


@everywhere
def test_what_freezing_may_lose_is_a_fourth_over_what_it_does(name) -> None:
    found, most = layers.row(name, "float32", "cpu")["lost"], layers.LOSSES[name]
    assert found <= most
    assert name == "fp32" or most <= 1.3 * found


@everywhere
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_known_fault_has_a_right_output_and_anothers_gradient(name, dtype) -> None:
    row = layers.row(name, dtype, "cpu")
    assert row["control_forward"] == 0
    # |g (B - A)| / |g A| of independent weights: the root of two, less than a tenth of sampling.
    assert row["control_gradient"] == pytest.approx(2**0.5, rel=0.1)


def test_a_layer_that_keeps_its_buffer_fails(monkeypatch) -> None:
    monkeypatch.setattr(FrozenLinear, "forward", Keeps.forward)
    found = finding_of("nf4")
    assert found.state == "failed"
    assert "nf4 in float32: the gradient is off by 1.4e+00, over 0.0e+00" in found.measured
    assert "do not freeze to these formats here" in found.to_do


def test_a_layer_whose_output_is_off_fails(monkeypatch) -> None:
    right = FrozenLinear.passing
    monkeypatch.setattr(FrozenLinear, "passing", lambda self, dtype: 1.001 * right(self, dtype))
    assert "the output is off by 2.0e-03" in finding_of("bf16").measured


def test_kernels_that_read_other_numbers_fail(monkeypatch) -> None:
    def wrong(tensors, shape, dtype, into):
        return FORMATS["fp4"].read(
            {"fp4": tensors["nf4"], "scale": tensors["scale"]}, shape, dtype, into
        )

    monkeypatch.setitem(FORMATS, "nf4", replace(FORMATS["nf4"], read=wrong))
    found = finding_of("nf4")
    assert found.state == "failed" and "what codes are read as is off by" in found.measured


def test_kernels_that_freeze_badly_fail(monkeypatch) -> None:
    right = FORMATS["nf4"].write

    def wrong(part_RI, first, tensors):
        right(part_RI.sign() * 0.02, first, tensors)

    monkeypatch.setitem(FORMATS, "nf4", replace(FORMATS["nf4"], write=wrong))
    found = finding_of("nf4")
    assert found.state == "failed" and "nf4 in float32: freezing loses" in found.measured


def test_a_gate_that_does_not_see_the_fault_says_that_it_cannot_be_trusted(monkeypatch) -> None:
    monkeypatch.setattr(Keeps, "forward", FrozenLinear.forward)
    found = finding_of("nf4", "bf16")
    assert found.state == "failed"
    assert found.measured == "the known fault is not found in nf4 in float32; bf16 in float32"
    assert found.means.startswith("this doctor cannot be trusted here")


def test_what_is_no_number_passes_no_gate() -> None:
    row = layers.row("bf16", "float32", "cpu")
    for key in ("forward", "gradient", "decoded", "lost", "control_gradient"):
        assert layers.judged([{**row, key: float("nan")}], "cpu").state == "failed", key


def test_a_card_may_add_in_another_order_and_no_more() -> None:
    row = {**layers.row("bf16", "float32", "cpu"), "forward": 1e-6}
    assert layers.judged([row], "cpu").state == "failed"
    assert layers.judged([row], "cuda").state == "ok"
    assert layers.judged([{**row, "gradient": 1e-3}], "cuda").state == "failed"


def test_formats_without_their_package_are_named_and_left_out(visit, monkeypatch) -> None:
    formats._load.cache_clear()
    monkeypatch.setattr(formats, "lacking", lambda: "needs a package")
    try:
        found = layers.frozen_layers(visit())
    finally:
        formats._load.cache_clear()
    assert found.state == "ok"
    assert found.measured.startswith("fp32, fp16, bf16, fp8: the same bits")
    assert (
        "nf4 is not looked at: nf4 needs a package, or choose fp16, bf16 or fp8" in found.measured
    )


def test_become_turns_every_frozen_layer() -> None:
    layer = FrozenLinear(FORMATS["bf16"], (4, 4), FORMATS["bf16"].pack(torch.eye(4)))
    module = torch.nn.Sequential(layer, torch.nn.Linear(4, 4))
    reference.become(module, Keeps)
    assert [type(each) for each in module] == [Keeps, torch.nn.Linear]
