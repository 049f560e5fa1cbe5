"""How parts start: at random from a generator of their own, or from another stack.

Each part draws from (seed, part id), so that a stack starts the same whichever others exist.
Matrices are normal with `init_std`, those that write to the residual stream narrower by
1/sqrt(2 L) with L the finished rack's blocks (GPT-2); norms start at one, biases at zero.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from torch import nn

from stackwise.model.shape import RackShape, total_blocks

INTO_RESIDUAL = (".out.weight", ".down.weight")


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
    narrow = shape.init_std / (2 * total_blocks(shape)) ** 0.5
    with torch.no_grad():
        for key, parameter in part.named_parameters():
            if parameter.is_meta:
                continue
            if parameter.ndim >= 2:
                std = narrow if key.endswith(INTO_RESIDUAL) else shape.init_std
                parameter.normal_(0.0, std, generator=generator)
            else:
                parameter.fill_(0.0 if key.endswith("bias") else 1.0)


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
        stack.load_state_dict(source.state_dict())
    elif init == "zero_output":
        with torch.no_grad():
            for key, parameter in stack.named_parameters():
                if key.endswith((*INTO_RESIDUAL, ".out.bias", ".down.bias")):
                    parameter.zero_()
