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
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stackwise.model.shape import RackShape, total_blocks
from stackwise.model.spectral import start_normed
from stackwise.stage import Init, NewStack

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


@torch.no_grad()
def average_(stack: nn.Module, other: nn.Module) -> None:
    """Move a stack half way to another one, one tensor at a time."""
    for name, value in [*stack.named_parameters(), *stack.named_buffers()]:
        owner, _, key = name.rpartition(".")
        if value.is_floating_point():
            value.lerp_(getattr(other.get_submodule(owner), key).to(value), 0.5)


@torch.no_grad()
def add_noise_(stack: nn.Module, part: float, generator: torch.Generator) -> None:
    """Add normal numbers to each matrix, of `part` times its root mean square; vectors stay."""
    for parameter in stack.parameters():
        if parameter.ndim >= 2 and not parameter.is_meta:
            noise = torch.empty_like(parameter, device="cpu")
            rms = float(torch.linalg.vector_norm(parameter, dtype=torch.float32))
            draw_(noise, part * rms / parameter.numel() ** 0.5, generator)
            parameter.add_(noise.to(parameter.device))


def grow(
    stack: nn.Module,
    init: Init,
    source: nn.Module | None = None,
    *,
    other: nn.Module | None = None,
    noise: float | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Turn a stack's random start into what growth asks for, in place.

    Args:
        stack: The new stack.
        init: `copy` takes the weights of `source`; `copy+noise` moves its matrices a little;
            `interpolate` takes the mean of `source` and `other`; `zero_output` zeroes what writes
            to the residual stream, so that in a pre-norm rack the new stack passes its input on
            unchanged; `random` leaves the start that it has.
        source: The stack that weights come from.
        other: A second one.
        noise: Standard deviation, over each matrix's root mean square.
        generator: Of the noise, on the CPU.

    Raises:
        ValueError: If something is missing that the start needs.
    """
    if init in ("copy", "copy+noise", "interpolate"):
        if source is None:
            raise ValueError(f"init={init!r} needs the stack to copy from; give source")
        copy_(stack, source)
    if init == "interpolate":
        if other is None:
            raise ValueError("init='interpolate' needs a second stack; give other")
        average_(stack, other)
    elif init == "copy+noise":
        if noise is None or generator is None:
            raise ValueError("init='copy+noise' needs noise and its generator; give both")
        add_noise_(stack, noise, generator)
    elif init == "zero_output":
        with torch.no_grad():
            for key, parameter in stack.named_parameters():
                if key.endswith((*INTO_RESIDUAL, ".out.bias", ".down.bias")):
                    parameter.zero_()


def begin_as(
    stack: nn.Module,
    entry: NewStack,
    stacks: Mapping[str, nn.Module] | nn.ModuleDict,
    seed: int,
) -> None:
    """Give a new stack the start that a stage asks for.

    Args:
        stack: The stack, at its random start.
        entry: What the stage says of it.
        stacks: Those that are there, by id.
        seed: The run's.
    """
    source, other = (None if s is None else stacks[s] for s in (entry.source, entry.other))
    generator = generator_for(seed, f"{entry.stack}.noise")
    grow(stack, entry.init, source, other=other, noise=entry.noise, generator=generator)
