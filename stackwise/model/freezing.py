"""Replace the linears of a module in place, one at a time: freeze them, and the way back.

Beside the module this holds one linear: the one in hand. Norms, biases and whatever else is no
linear stay as they are. The layer that is put in is `frozen.FrozenLinear`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from stackwise.model.formats import Format, format_called
from stackwise.model.frozen import FrozenLinear

Make = Callable[[str, nn.Linear], nn.Module | None]


def replace_linears(module: nn.Module, make: Make) -> list[str]:
    """Put what `make` gives in the place of each `nn.Linear` inside a module.

    A linear that is in several places is made once, and put in all of them.

    Args:
        module: Changed in place. Subclasses of `nn.Linear` count, frozen ones too.
        make: Takes the linear's name and the linear; gives the new one, or None to leave it.

    Returns:
        Names of the places that have a new module, in order.

    Raises:
        ValueError: If `module` is itself a linear, which cannot be replaced in place.
    """
    if isinstance(module, nn.Linear):
        raise ValueError(
            f"{type(module).__name__} has no place to be replaced in; "
            "give the module that holds it, or nn.Sequential(it)"
        )
    replaced = []
    for names in _places(module):
        linear = module.get_submodule(names[0])
        assert isinstance(linear, nn.Linear)
        made = make(names[0], linear)
        if made is None:
            continue
        for name in names:
            module.set_submodule(name, made, strict=True)
        replaced += names
    return replaced


def _places(module: nn.Module) -> list[list[str]]:
    """Names of linears, those of one and the same linear together. No linear is held by it."""
    found: dict[int, list[str]] = {}
    for name, inner in module.named_modules(remove_duplicate=False):
        if isinstance(inner, nn.Linear):
            found.setdefault(id(inner), []).append(name)
    return list(found.values())


def freeze_linears(module: nn.Module, format: str | Format) -> list[str]:
    """Make every linear inside a module a `FrozenLinear`; those that are frozen stay.

    Their biases are frozen with them. The rest of the module keeps what `requires_grad` it has.

    Args:
        module: Changed in place.
        format: A name of `FORMATS`, or one of its values.

    Returns:
        Names of the linears that were frozen now.

    Raises:
        ExperimentError: If the format is unknown, or its package is missing.
        ValueError: If `module` is itself a linear, or a weight does not go into the format. Those
            before it are frozen then.
    """
    chosen = format_called(format) if isinstance(format, str) else format
    chosen.load()

    def frozen(name: str, linear: nn.Linear) -> nn.Module | None:
        if isinstance(linear, FrozenLinear):
            return None
        try:
            made = FrozenLinear.of(linear, chosen)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        return made.requires_grad_(False).train(linear.training)

    return replace_linears(module, frozen)


def thaw_linears(module: nn.Module, dtype: torch.dtype | None = None) -> list[str]:
    """Make every `FrozenLinear` inside a module an `nn.Linear` that trains.

    It has the dequantised weights: what was lost in freezing stays lost.

    Args:
        module: Changed in place.
        dtype: Of the new weights and biases; None for each layer's own.

    Returns:
        Names of the linears that were thawed.

    Raises:
        ValueError: If `module` is itself a linear.
    """

    def thawed(name: str, linear: nn.Linear) -> nn.Module | None:
        if not isinstance(linear, FrozenLinear):
            return None
        made = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
        wanted = linear.dtype if dtype is None else dtype
        made.weight = nn.Parameter(linear.dequantised(wanted))
        if linear.bias is not None:
            made.bias = nn.Parameter(linear.bias.detach().to(wanted))
        return made.train(linear.training)

    return replace_linears(module, thawed)
