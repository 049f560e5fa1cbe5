"""What cannot be frozen is refused with value, rule and way out; packages are asked for by name."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.model import formats
from stackwise.model.formats import FORMATS, format_called, missing_package
from stackwise.model.freezing import freeze_linears
from stackwise.model.frozen import FrozenLinear
from stackwise.training.parts import put

NEEDY = ("int8", "nf4", "fp4")


@pytest.fixture
def without(monkeypatch):
    """A machine without bitsandbytes, or with an older one."""

    def lacking(version):
        found = None if version is None else object()
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
        monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
        formats._load.cache_clear()

    yield lacking
    formats._load.cache_clear()


def test_a_format_without_its_package_is_refused(without):
    without(None)
    for name in NEEDY:
        sentence = (
            f"{name} needs bitsandbytes 0.50 or newer, which is not installed; "
            'pip install "stackwise[quant]", or choose fp16, bf16 or fp8'
        )
        assert missing_package(name) == sentence
        with pytest.raises(ExperimentError) as caught:
            freeze_linears(nn.Sequential(nn.Linear(8, 8)), name)
        assert str(caught.value) == sentence
        with pytest.raises(ExperimentError):
            FrozenLinear(FORMATS[name], (8, 8), FORMATS[name].blank((8, 8)))
    for name in FORMATS.keys() - NEEDY:
        assert missing_package(name) is None
        freeze_linears(nn.Sequential(nn.Linear(8, 8)), name)


def test_a_part_whose_format_lacks_its_package_says_so(without):
    """And not that the part is another rack's."""
    shape = sw.RackShape(stacks=1, blocks_per_stack=1, d_model=16, heads=2)
    packed, rack = sw.Rack(shape, "mha", 8), sw.Rack(shape, "mha", 8)
    freeze_linears(packed.stacks["s0"], "nf4")
    without(None)
    with pytest.raises(ExperimentError) as caught:
        put(rack, "s0", packed.stacks["s0"].state_dict(), Path("rack"), "nf4")
    assert str(caught.value) == (
        "nf4 needs bitsandbytes 0.50 or newer, which is not installed; "
        'pip install "stackwise[quant]"'
    )


def test_an_old_package_is_refused(without):
    without("0.49.2")
    assert missing_package("nf4") == (
        "nf4 needs bitsandbytes 0.50 or newer, and 0.49.2 is installed; "
        'pip install "stackwise[quant]", or choose fp16, bf16 or fp8'
    )
    without("1.0.0.dev0")
    assert missing_package("nf4") is None


def test_what_is_installed_here_is_enough():
    assert [missing_package(name) for name in FORMATS] == [None] * len(FORMATS)


def test_an_unknown_format_lists_the_known():
    with pytest.raises(ExperimentError) as caught:
        format_called("nf8")
    assert str(caught.value) == (
        "unknown format 'nf8'; did you mean 'nf4'? known: fp32, fp16, bf16, fp8, int8, nf4, fp4"
    )


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("name", FORMATS)
def test_a_weight_that_is_no_number_is_refused_by_name(name, bad):
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with torch.no_grad():
        module[1].weight[7, 7] = bad
    shown = "nan" if bad != bad else "inf"
    most = {"fp16": "65504", "int8": "65504", "bf16": "3.38953e+38"}.get(name, "3.40282e+38")
    with pytest.raises(ValueError) as caught:
        freeze_linears(module, name)
    assert str(caught.value) == (
        f"1: a weight of {shown} does not go into {name}, which takes finite numbers up to {most}; "
        "freeze a stack that is sound"
    )


@pytest.mark.parametrize("name", ["fp16", "int8"])
def test_a_weight_over_the_range_is_refused(name):
    with pytest.raises(ValueError) as caught:
        FORMATS[name].pack(torch.full((2, 2), -7e4))
    assert str(caught.value) == (
        f"a weight of 70000 does not go into {name}, which takes finite numbers up to 65504; "
        "freeze to bf16"
    )
    assert FORMATS[name].pack(torch.full((2, 2), 65504.0))


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.ones(3), "torch.float32 of shape (3,)"),
        (torch.ones(0, 3), "torch.float32 of shape (0, 3)"),
        (torch.ones(2, 3, dtype=torch.int64), "torch.int64 of shape (2, 3)"),
        (torch.ones(2, 3).to(torch.float8_e4m3fn), "torch.float8_e4m3fn of shape (2, 3)"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(weight, said):
    with pytest.raises(ValueError) as caught:
        FORMATS["nf4"].pack(weight)
    assert str(caught.value) == (
        f"{said} cannot be packed; give a matrix of float64, float32, bfloat16 or float16"
    )


def test_tensors_of_another_shape_are_refused():
    with pytest.raises(ValueError) as caught:
        FrozenLinear(FORMATS["nf4"], (8, 16), FORMATS["nf4"].pack(torch.ones(8, 8)))
    assert str(caught.value) == (
        "nf4 uint8[1, 32], scale float32[1] is no nf4 weight of shape (8, 16), which is "
        "nf4 uint8[2, 32], scale float32[2]; make it with FORMATS['nf4'].pack"
    )


def test_strided_tensors_are_refused():
    kept = FORMATS["nf4"].pack(torch.ones(16, 16))
    strided = {**kept, "scale": torch.ones(8)[::2]}
    with pytest.raises(ValueError) as caught:
        FrozenLinear(FORMATS["nf4"], (16, 16), strided)
    assert str(caught.value) == (
        "scale has strides (2,), but is read as it lies in memory; give it contiguous"
    )


def test_bytes_of_one_format_are_not_loaded_as_anothers():
    nf4, fp4 = (nn.Sequential(nn.Linear(8, 8)) for _ in range(2))
    freeze_linears(nf4, "nf4")
    freeze_linears(fp4, "fp4")
    with pytest.raises(RuntimeError, match=r"Missing key.*nf4"):
        nf4.load_state_dict(fp4.state_dict())
    wrong = {**nf4.state_dict(), "0.nf4": nf4.state_dict()["0.nf4"].float()}
    said = "0.nf4: torch.float32 is not torch.uint8, what nf4 keeps; load what pack gave"
    with pytest.raises(RuntimeError, match=said):
        nf4.load_state_dict(wrong)


def test_importing_and_freezing_without_codes_does_not_import_bitsandbytes():
    code = (
        "import sys, torch\n"
        "from stackwise.model.freezing import freeze_linears\n"
        "freeze_linears(torch.nn.Sequential(torch.nn.Linear(8, 8)), 'fp8')\n"
        "print('bitsandbytes' in sys.modules, 'peft' in sys.modules)\n"
        "freeze_linears(torch.nn.Sequential(torch.nn.Linear(8, 8)), 'nf4')\n"
        "print('bitsandbytes' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["False", "False", "True"], "")
