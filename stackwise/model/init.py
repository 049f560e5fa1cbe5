"""How parts start: at random from a generator of their own, or from another stack.

Each part draws from (seed, part id), so that a stack starts the same whichever others exist.
Matrices are normal with `init_std`, those that write to the residual stream narrower by
1/sqrt(2 L) with L the finished rack's blocks (GPT-2), or those of `depth_base` where that is given,
since a start must not depend on depth then; norms start at one, biases at zero. What
reads the noise level starts at zero and draws nothing, so that all else starts as without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stackwise.model.shape import RackShape, total_blocks
from stackwise.model.spectral import start_normed

INTO_RESIDUAL = (".out.weight", ".down.weight")
FROM_TIME = ".time.readout.weight"
DRAWS = (nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_)
PIECE = 1 << 22  # numbers drawn at once; a multiple of 16 gives those of one draw of all


class Unfilled(TorchFunctionMode):
    """Inside, layers are made without torch's own random start, which `start` writes over.

    What is not written takes no memory until it is: a stack of any size is made for nothing.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Leave parameters as they are where they would be drawn."""
        kwargs = kwargs or {}
        if func in DRAWS:
            return kwargs.get("tensor", args[0] if args else None)
        return func(*args, **kwargs)


def shelled(make: Callable[[], nn.Module], dtype: torch.dtype) -> Any:
    """A module whose parameters hold nothing yet: matrices in `dtype`, vectors in float32."""
    with Unfilled():
        made = make()
    for parameter in made.parameters():
        if parameter.ndim >= 2 and parameter.dtype != dtype:
            parameter.data = torch.empty_like(parameter, dtype=dtype)
    return made


def generator_for(seed: int, part: str) -> torch.Generator:
    """A CPU generator that depends on the seed and the part's name alone."""
    digest = hashlib.sha256(f"{seed}/{part}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def start(part: nn.Module, shape: RackShape, seed: int, name: str) -> None:
    """Give a part its random start, in place.

    Args:
        part: Embedding, stack or head, on the CPU (or on `meta`, which is left alone).
        shape: The rack's.
        seed: The run's.
        name: `embedding`, `head` or the stack's id.
    """
    generator = generator_for(seed, name)
    narrow = shape.init_std / (2 * (shape.depth_base or total_blocks(shape))) ** 0.5
    with torch.no_grad():
        for key, parameter in part.named_parameters():
            if parameter.is_meta:
                continue
            if key.endswith(FROM_TIME):
                parameter.zero_()
            elif parameter.ndim >= 2:
                std = narrow if key.endswith(INTO_RESIDUAL) else shape.init_std
                draw_(parameter, std, generator)
            else:
                parameter.fill_(0.0 if key.endswith("bias") else 1.0)
    if shape.spectral_norm and name not in ("embedding", "head"):
        start_normed(part, generator)


def draw_(parameter: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill with normal numbers, a piece at a time: a float32 copy of all is never held.

    The numbers are those of `parameter.normal_` in float32, rounded to the parameter's dtype.
    """
    flat, start = parameter.view(-1), 0
    while start < len(flat):
        end = start + PIECE
        end = end if end + 16 <= len(flat) else len(flat)  # torch draws a shorter rest otherwise
        drawn = torch.empty(end - start, device="cpu").normal_(0.0, std, generator=generator)
        flat[start:end] = drawn
        del drawn  # before the next one is made
        start = end


def copy_(stack: nn.Module, source: nn.Module) -> None:
    """Give a stack the weights of another, which may be frozen or lent, one at a time."""
    with torch.no_grad():
        for name, value in [*stack.named_parameters(), *stack.named_buffers()]:
            owner, _, key = name.rpartition(".")
            value.copy_(getattr(source.get_submodule(owner), key))


def grow(
    stack: nn.Module,
    init: Literal["random", "copy", "zero_output"],
    source: nn.Module | None = None,
) -> None:
    """Turn a stack's random start into what growth asks for, in place.

    `copy` takes the weights of `source`. `zero_output` zeroes what writes to the residual stream,
    so that in a pre-norm rack the new stack passes its input on unchanged.

    Raises:
        ValueError: If `copy` has no source.
    """
    if init == "copy":
        if source is None:
            raise ValueError("init='copy' needs the stack to copy from; give source")
        copy_(stack, source)
    elif init == "zero_output":
        with torch.no_grad():
            for key, parameter in stack.named_parameters():
                if key.endswith((*INTO_RESIDUAL, ".out.bias", ".down.bias")):
                    parameter.zero_()
