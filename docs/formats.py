"""Writes docs/formats.md: `python docs/formats.py`. All its numbers come from the code.

`tests/unit/test_the_formats_page_is_current.py` makes the page again and compares.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from stackwise.model.attention.mha import Mha
from stackwise.model.block import Block
from stackwise.model.formats import FORMATS
from stackwise.model.freezing import freeze_linears
from stackwise.model.shape import RackShape

OUTPUTS, INPUTS, STD = 512, 2048, 0.02
WIDTH, TOKENS = 256, 64
UPDATES = (0.003, 0.01, 0.03)
LOSSY = {name: kept for name, kept in FORMATS.items() if torch.float32 not in kept.keeps}
PLAIN = {"fp16": 10, "bf16": 7}  # bits of the mantissa

PAGE = """\
# What a frozen weight is kept in

Written by `python docs/formats.py`; a test makes it again and compares.

A stack that stops training can be kept in fewer bytes: `freeze_linears(stack, "nf4")` puts a
`FrozenLinear` in the place of every linear. Norms and biases stay as they are. A frozen linear is
the linear of its dequantised weight, bit for bit, in forward and, where its input is contiguous, in
backward; its weight gets no gradient, and is dequantised again in backward.

The tensors in the state dict of a linear called `qkv`, with O outputs, I inputs and N blocks of 64
numbers along the rows:

| format | codes | `qkv.scale`, float32 |
| --- | --- | --- |
| `fp32`, `fp16`, `bf16` | `qkv.fp16` (O, I): the weight, rounded | |
| `fp8` | `qkv.fp8` (O, I): float8_e4m3fn of w / scale | (O): the row's largest over 448 |
| `int8` | `qkv.int8` (O, I): round(127 w / scale) | (O): the row's largest |
| `nf4`, `fp4` | `qkv.nf4` (N, 32) uint8: two codes each | (N): the block's largest |

Codes and scales of the last three are bitsandbytes' own, in a layout that is the same on every
device: `tests/unit/test_frozen_weights_are_what_bitsandbytes_makes.py`. The tensor of codes is
called as its format, so that one is never read as another. `fp32` loses nothing of a stack that
trained in float32, and `bf16` nothing of one that trained in bfloat16. `benchmarks/formats.py`
prints how fast each is made and read on the machine at hand.

`int8`, `nf4` and `fp4` need bitsandbytes: `pip install "stackwise[quant]"`.

## What each loses

Normal weights of standard deviation {std}, {outputs} x {inputs}. Errors are relative: the root mean
square of the difference over that of the weights. Expected: the same by integration over the law
of the weights and, where numbers share a scale, over that of the largest of them. Largest: the
largest difference over the weights' root mean square. Block: the error of what a pre-norm block of
width {width} adds to its input, {tokens} tokens of it.

{errors}

## Why there are masters

A stack that trains again starts from its dequantised weights, which lie on codes; what moves it
less than half way to the next code is rounded away. The share of a random update, of so many per
cent of the weights' root mean square, that is left after freezing again (the projection on it):

{kept}

Of NF4 little more is left than the largest number of each block of 64, which is kept exactly. So
a curriculum that returns to a stack keeps a master of it, `precision.master`.

## Adapters

`FrozenLinear` is an `nn.Linear`, so adapters of peft (`pip install "stackwise[adapters]"`) go on
it. Their gradients are those on the dequantised weights, bit for bit.

```python
from peft import LoraConfig, get_peft_model

import stackwise as sw
from stackwise.model.freezing import freeze_linears, thaw_linears

exp = sw.Experiment.preset("toy")
rack = sw.Rack(exp.rack, exp.attention, vocab=256)
freeze_linears(rack.stacks, "nf4")
model = get_peft_model(rack, LoraConfig(target_modules=["qkv", "out", "gate", "up", "down"]))
```

A frozen linear makes `weight` when it is read, so what is written to it is lost without a word:
thaw before merging, or before whatever else of peft changes the weights.

```python
thaw_linears(model)
rack = model.merge_and_unload()
```
"""


def page() -> str:
    """The whole text."""
    return PAGE.format(
        std=STD,
        outputs=OUTPUTS,
        inputs=f"{INPUTS:,}",
        width=WIDTH,
        tokens=TOKENS,
        errors=errors(),
        kept=kept(),
    )


def weights() -> Tensor:
    """The page's weights, (O, I)."""
    return torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(0)) * STD


def through(name: str, weight_OI: Tensor) -> Tensor:
    """Frozen and back, in float32."""
    shape = (weight_OI.shape[0], weight_OI.shape[1])
    return FORMATS[name].unpack(FORMATS[name].pack(weight_OI), shape, torch.float32)


def errors() -> str:
    """One row per format."""
    weight_OI, rows = weights(), []
    for name, kept_in in LOSSY.items():
        lost_OI = through(name, weight_OI) - weight_OI
        numbers = (
            8 * kept_in.bytes_of((OUTPUTS, INPUTS)) / weight_OI.numel(),
            rms(lost_OI) / rms(weight_OI),
            expected(name),
            float(lost_OI.abs().max()) / rms(weight_OI),
            block_error(name),
        )
        shown = [f"{numbers[0]:.4g}", *(f"{number:.2g}" for number in numbers[1:])]
        rows.append([f"`{name}`", *shown])
    head = ["format", "bits per weight", "error", "expected", "largest", "block"]
    return table(head, rows)


def rms(x: Tensor) -> float:
    """Root mean square."""
    return float(x.double().square().mean().sqrt())


def block_error(name: str) -> float:
    """Relative error of what a block adds to its input."""
    generator = torch.Generator().manual_seed(1)
    block = Block(RackShape(d_model=WIDTH, heads=4), Mha(), 0)
    with torch.no_grad():
        for parameter in block.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, STD, generator=generator)
        x_BTD = torch.randn(1, TOKENS, WIDTH, generator=generator)
        exact_BTD = block(x_BTD, causal=True) - x_BTD
        freeze_linears(block, name)
        return rms(block(x_BTD, causal=True) - x_BTD - exact_BTD) / rms(exact_BTD)


def expected(name: str) -> float:
    """Relative error by integration."""
    if name in PLAIN:
        return error_of_floats(PLAIN[name])
    if name in ("nf4", "fp4"):
        return error_of_codes(values_of(name), 64)
    if name == "int8":
        return error_of_codes(torch.arange(-127, 128).double() / 127, INPUTS)
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double()
    return error_of_codes(every[every.isfinite()] / 448, INPUTS)


def values_of(name: str) -> Tensor:
    """The values that the 16 codes of 4 bit stand for, with a scale of one."""
    first = torch.arange(0, 16, 2, dtype=torch.uint8)
    every = ((first << 4) | (first + 1)).repeat(4)[None]
    made = FORMATS[name].unpack({name: every, "scale": torch.ones(1)}, (1, 64), torch.float32)
    return made.double()


def error_of_floats(bits: int) -> float:
    """Of normal weights as floats: a step of 2^(e - bits) for those from 2^e to 2^(e + 1)."""
    exponents = torch.arange(-24, 4).double()
    within = torch.erf(2.0 ** torch.stack([exponents + 1, exponents]) / STD / 2**0.5)
    share = within[0] - within[1]
    return float((share * 4.0 ** (exponents - bits) / 12).sum().sqrt()) / STD


def error_of_codes(values: Tensor, count: int) -> float:
    """Of `count` normal weights with one scale, the largest of them, as the nearest of `values`.

    Given the largest, m, the others are normal within (-m, m); m has the law of the largest of
    `count`. The largest itself is exact.
    """
    values = values.unique()
    edges = torch.cat([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]])
    grid_M = torch.linspace(0.5, 8, 2000, dtype=torch.float64)
    below_M = torch.erf(grid_M / 2**0.5) ** count
    law_M = (below_M[1:] - below_M[:-1]) / (below_M[-1] - below_M[0])
    m_M1 = ((grid_M[1:] + grid_M[:-1]) / 2)[:, None]
    edge_MC, value_MC = m_M1 * edges, m_M1 * values
    mass_MC = torch.erf(edge_MC / 2**0.5) / 2
    density_MC = torch.exp(-(edge_MC**2) / 2) / math.sqrt(2 * math.pi)
    # Integrals of 1, z and z^2 times the normal density, cell by cell.
    zero = mass_MC.diff(dim=1)
    one = -density_MC.diff(dim=1)
    two = zero - (edge_MC * density_MC).diff(dim=1)
    square_M = (two - 2 * value_MC * one + value_MC**2 * zero).sum(1) / zero.sum(1)
    return float(((law_M * square_M).sum() * (count - 1) / count).sqrt())


def kept() -> str:
    """One row per format, one column per size of the update."""
    start_OI = weights()
    drawn = torch.randn(start_OI.shape, generator=torch.Generator().manual_seed(2))
    rows = []
    for name in LOSSY:
        frozen_OI = through(name, start_OI)
        shares = [share_kept(name, frozen_OI, drawn * STD * size) for size in UPDATES]
        rows.append([f"`{name}`", *(f"{100 * share:.1f} %" for share in shares)])
    return table(["update", *(f"{100 * size:g} %" for size in UPDATES)], rows)


def share_kept(name: str, frozen_OI: Tensor, update_OI: Tensor) -> float:
    """What is left of an update to dequantised weights after freezing again."""
    moved_OI = through(name, frozen_OI + update_OI) - frozen_OI
    return float((moved_OI * update_OI).double().sum() / update_OI.double().square().sum())


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), "utf-8")
