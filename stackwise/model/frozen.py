"""A linear layer whose weight does not train and is kept in one of `FORMATS`.

Forward dequantises and multiplies; backward dequantises again, from the tensors it asks for then.
Nothing of the weight is kept in between, so tensors may be lent from a buffer that is refilled: see
`FrozenLinear.lend`. It is an `nn.Linear`, whose `weight` is made when it is read, so that adapters
(peft) go on it. How linears of a module become frozen and come back is in `freezing.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from stackwise.model import workspace
from stackwise.model.codes import Shape, Tensors
from stackwise.model.formats import Format

Source = Callable[[], Mapping[str, Tensor]]


class FrozenLinear(nn.Linear):
    """y = x W^T + b with a W that is kept in few bytes and gets no gradient.

    Output and gradients are those of `F.linear` with the dequantised weight, bit for bit; that of
    an input that is not contiguous, or one number wide, but for rounding: torch may take it as
    (W^T g^T)^T there, summed in another order.

    It computes in the dtype of its input, or in autocast's. The kept tensors are buffers, called as
    in `format.layout`: `qkv.nf4` and `qkv.scale` in a state dict. They stay as they are under
    `.to(dtype)`, which changes `dtype` alone.

    Args:
        format: What the weight is kept in.
        shape: (outputs, inputs).
        tensors: What `format.pack` gave, or `format.blank`.
        bias: (outputs,); a parameter of its own, which may train.
        dtype: Of `weight` when it is read outside autocast.

    Raises:
        ValueError: If the tensors are not those of the format and shape.
    """

    def __init__(
        self,
        format: Format,
        shape: Shape,
        tensors: Tensors,
        bias: nn.Parameter | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        nn.Module.__init__(self)
        format.check(tensors, shape)
        self.out_features, self.in_features = shape
        self.format, self.dtype = format, dtype
        self.register_parameter("bias", bias)
        self._lent: _Lent | None = None
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    @classmethod
    def of(cls, linear: nn.Linear, format: Format) -> Self:
        """A frozen copy of a linear; the bias is the very same parameter."""
        shape = (linear.out_features, linear.in_features)
        packed = format.pack(linear.weight)
        return cls(format, shape, packed, linear.bias, dtype=linear.weight.dtype)

    @property
    def shape(self) -> Shape:
        """(outputs, inputs)."""
        return (self.out_features, self.in_features)

    def tensors(self) -> Mapping[str, Tensor]:
        """The kept tensors as they are now: its own, or what it is lent at this moment.

        Raises:
            ValueError: If what is lent is of another format or shape.
        """
        if self._lent is None:
            return self._kept()
        lent = self._lent.source()
        self.format.check(lent, self.shape)
        return lent

    def _kept(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self._buffers.items() if tensor is not None}

    def lend(self, source: Source) -> None:
        """Take the tensors from `source` from now on, and drop its own.

        Args:
            source: Called once in each forward and once in each backward, in whichever thread
                these run. What it gives is read before the layer returns (on an accelerator, by
                what it has put on the current stream), and never later: it may be refilled then.
        """
        self._lent = _Lent(source)
        self._buffers.clear()

    def own(self, tensors: Tensors) -> None:
        """Keep these tensors as its own, and end a loan.

        Raises:
            ValueError: If they are not those of the format and shape.
        """
        self.format.check(tensors, self.shape)
        self._lent = None
        self._buffers.update(tensors)

    @property
    def is_lent(self) -> bool:
        """Whether the tensors come from a source."""
        return self._lent is not None

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """The weight, (outputs, inputs), made now, in storage of its own."""
        tensors = self.tensors()
        weight_OI = self.format.unpack(tensors, self.shape, dtype)
        aliases = any(weight_OI is tensor for tensor in tensors.values())
        return weight_OI.clone() if aliases else weight_OI

    def passing(self, dtype: torch.dtype) -> Tensor:
        """The weight for one product: in the kept tensor or in `workspace`, gone with the next."""
        tensors = self.tensors()
        into = workspace.room(next(iter(tensors.values())), self.shape, dtype)
        return self.format.unpack(tensors, self.shape, dtype, into)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weight as numbers, in `dtype` or autocast's: made at each reading, never stored.

        What is written to it is lost: `thaw_linears` comes before merging adapters.
        """
        device = next(iter(self.tensors().values())).device
        return self.dequantised(_computed_in(device.type, self.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        x = x.to(_computed_in(x.device.type, x.dtype))
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if not torch.compiler.is_compiling():
            return cast(Tensor, _Product.apply(x, bias, self))
        if self._lent is None and not torch.is_grad_enabled():
            return F.linear(x, self.dequantised(x.dtype), bias)
        return _uncompiled(x, bias, self)

    def extra_repr(self) -> str:
        """What nn.Linear prints, and the format."""
        return f"{super().extra_repr()}, format={self.format.name}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the kept tensors, and change the dtype of what is made of them, not theirs."""
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        kept = self._kept()
        self._buffers.clear()
        super()._apply(fn, recurse)  # the bias
        for name, tensor in kept.items():
            moved = fn(tensor)
            self._buffers[name] = moved if moved.dtype == tensor.dtype else tensor.to(moved.device)
        return self

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """As nn.Module does, without casting codes from another dtype."""
        for name, kept in self._kept().items():
            given = state_dict.get(prefix + name, kept)
            if given.dtype != kept.dtype:
                error_msgs.append(
                    f"{prefix}{name}: {given.dtype} is not {kept.dtype}, what {self.format.name} "
                    "keeps; load what pack gave"
                )
                return
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )


def numbers_in(module: nn.Module) -> int:
    """Weights and biases of a module, whether they train, are frozen, or lent to it."""
    frozen = (layer for layer in module.modules() if isinstance(layer, FrozenLinear))
    kept = sum(layer.out_features * layer.in_features for layer in frozen)
    return kept + sum(parameter.numel() for parameter in module.parameters())


class _Lent:
    """A source, which stays one when the layer is copied."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __deepcopy__(self, memo: dict[int, Any]) -> _Lent:
        return self


def _computed_in(device: str, dtype: torch.dtype) -> torch.dtype:
    """Autocast's dtype where it is on, as for nn.Linear; float64 is left alone, as there."""
    if dtype == torch.float64 or not torch.amp.is_autocast_available(device):
        return dtype
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype


class _Product(torch.autograd.Function):
    """x W^T + b; backward asks the layer for W again, and gives the gradients of x and b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, linear: FrozenLinear) -> Tensor:
        ctx.linear = linear
        return F.linear(x, linear.passing(x.dtype), bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        wants_x, wants_bias, _ = ctx.needs_input_grad
        grad_NO = grad.reshape(-1, grad.shape[-1])
        grad_x = grad_bias = None
        if wants_x:
            grad_NI = grad_NO @ ctx.linear.passing(grad.dtype)
            grad_x = grad_NI.view(*grad.shape[:-1], grad_NI.shape[-1])
        if wants_bias:
            grad_bias = grad_NO.sum(0)
        return grad_x, grad_bias, None


@_disable_dynamo
def _uncompiled(x: Tensor, bias: Tensor | None, linear: FrozenLinear) -> Tensor:
    """What a compiler must not look into: it would keep the tensors of forward for backward."""
    return cast(Tensor, _Product.apply(x, bias, linear))
