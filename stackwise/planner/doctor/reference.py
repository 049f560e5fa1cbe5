"""What frozen layers are held against: plain ones, right by construction, and a known fault.

`Plain` is a linear layer over a weight that autograd keeps, as torch's own; `plain_weight` decodes
from the published tables, in float64 on the CPU, without the kernels in use. `Keeps` holds on to
the packed tensors from forward to backward, as the product of bitsandbytes does (its issue 2034):
once their buffer is refilled, outputs and losses are right, and gradients another weight's.

Sources: Dettmers et al., QLoRA (2023), appendix E, for the values of nf4; the fp4 and int8 of
bitsandbytes. `tests/unit/test_the_doctors_layers.py` holds both against the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stackwise.model.codes import BLOCK, SCALE, Shape, Tensors
from stackwise.model.frozen import FrozenLinear

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
MAGNITUDES = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)  # of fp4, in twelfths
FP4 = tuple(sign * value / 12 for sign in (1, -1) for value in MAGNITUDES)


def plain_weight(name: str, tensors: Tensors, shape: Shape) -> Tensor:
    """What the codes of a format mean, float64 on the CPU, (outputs, inputs)."""
    kept = {key: tensor.detach().cpu() for key, tensor in tensors.items()}
    return DECODES.get(name, _cast)(name, kept, shape)


def _cast(name: str, kept: Tensors, shape: Shape) -> Tensor:
    return kept[name].double()


def _rows(name: str, kept: Tensors, shape: Shape) -> Tensor:
    largest = {"int8": 127.0, "fp8": 1.0}[name]
    return kept[name].double() * kept[SCALE].double()[:, None] / largest


def _blocks(name: str, kept: Tensors, shape: Shape) -> Tensor:
    values = torch.tensor({"nf4": NF4, "fp4": FP4}[name], dtype=torch.float64)
    pairs = kept[name].reshape(-1, 1).long()
    codes = torch.cat([pairs >> 4, pairs & 15], 1).reshape(-1, BLOCK)
    made = values[codes] * kept[SCALE].double()[:, None]
    return made.reshape(-1)[: shape[0] * shape[1]].reshape(shape)


DECODES: Mapping[str, Callable[[str, Tensors, Shape], Tensor]] = {
    "fp8": _rows,
    "int8": _rows,
    "nf4": _blocks,
    "fp4": _blocks,
}


class Plain(FrozenLinear):
    """Dequantise, then torch's own linear: autograd keeps the weight, and reads no codes again."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return F.linear(x, self.weight, self.bias)


class Keeps(FrozenLinear):
    """The fault: backward reads the tensors of forward, whatever their buffer holds by then."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        tensors = self.tensors()
        weight_OI = self.weight
        y: Tensor = _Kept.apply(x.to(weight_OI.dtype), weight_OI, dict(tensors), self)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, tensors: Tensors, layer: Keeps) -> Tensor:
        ctx.tensors, ctx.layer = tensors, layer
        return F.linear(x, weight_OI)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        layer: Keeps = ctx.layer
        return grad @ layer.format.unpack(ctx.tensors, layer.shape, grad.dtype), None, None, None


def become(module: torch.nn.Module, kind: type[FrozenLinear]) -> None:
    """Turn every frozen layer of a module into another kind, in its place and with its tensors."""
    for layer in module.modules():
        if isinstance(layer, FrozenLinear):
            layer.__class__ = kind
