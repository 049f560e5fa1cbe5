"""Adapters on the linear layers of a stack: peft's own layers, put in its place and taken out.

    put_on(stack, adapter, generator=...)    y = x W^T + (alpha / rank) (x A^T) B^T, with B = 0
    bare_state(stack), adapter_state(stack)  what its files hold: W as ever, and A and B
    take_off(stack)                          the stack as it was

While a stack carries an adapter its parameters have other names (`qkv.base_layer.weight`,
`qkv.lora_A.default.weight`). The functions here are where those names are known: files, optimizers
and gradients go by `blocks.0.attention.qkv.weight` and `blocks.0.attention.qkv.lora_A.weight`.
A and B are float32 whatever the stack is kept in. W may be frozen to less, or lent.
What stages ask for is in `stackwise/adapters.py`; peft's folders are in `interop/peft_folder.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from stackwise.adapters import Adapter, is_for
from stackwise.errors import ExperimentError
from stackwise.model.codes import operators
from stackwise.model.frozen import FrozenLinear
from stackwise.model.init import Unfilled

if TYPE_CHECKING:
    from stackwise.model.rack import Rack

NAME = "default"  # peft's, of the one adapter that a layer has
PLAIN = ".base_layer"
MISSING = (
    "adapters: need the package peft, which is not installed; pip install 'stackwise[adapters]', "
    "or leave adapters.on at none"
)


@cache
def layer_class() -> type[Any]:
    """The linear layer of peft with A and B.

    It would read their sizes, device and dtype off the weight, which a frozen layer makes anew each
    time, and a lent one reads from its file: `put_on` says them.
    """
    check_package()
    from peft.tuners.lora import Linear

    class Adapted(Linear):
        def _move_adapter_to_device_of_base_layer(
            self, adapter_name: str, device: torch.device | None = None
        ) -> None:
            """Leave A and B where they are."""

        def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
            assert isinstance(module, nn.Linear)
            return module.in_features, module.out_features

    return Adapted


def config_of(adapter: Adapter, **more: Any) -> Any:
    """What peft calls a configuration."""
    check_package()
    from peft import LoraConfig

    alpha = cast(int, adapter.alpha)  # peft divides it by the rank
    return LoraConfig(r=adapter.rank, lora_alpha=alpha, init_lora_weights=False, **more)


def check_package() -> None:
    """Raise ExperimentError if peft is not here."""
    if find_spec("peft") is None:
        raise ExperimentError(MISSING)
    if find_spec("bitsandbytes") is not None:
        operators()  # peft imports it, and then it says what we keep to ourselves


def put_on(
    stack: nn.Module,
    adapter: Adapter,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Give a stack an adapter, in place; its own weights are not touched.

    Without tensors A begins as peft has it, uniform in +-1/sqrt(inputs), drawn from the generator,
    and B at zero: what the stack computes is unchanged, to the bit.

    Args:
        stack: Its matrices train, are frozen, or are lent.
        adapter: Rank, alpha and targets.
        tensors: A and B, as `adapter_state` gives them; None for a new one.
        generator: Of a new one, on the CPU.

    Raises:
        ExperimentError: If peft is not here.
        ValueError: If the tensors are of another rank or stack.
    """
    device = next(stack.parameters()).device  # of a norm: it is in memory wherever matrices are
    config, made = config_of(adapter), layer_class()
    linears = {name: m for name, m in stack.named_modules() if isinstance(m, nn.Linear)}
    for name, linear in linears.items():
        if is_for(adapter.targets, name.split(".")[2]):  # blocks.0.attention.qkv
            with Unfilled():
                layer = made(linear, NAME, config, r=adapter.rank, lora_alpha=adapter.alpha)
            layer.cast_input_dtype_enabled = False  # autocast says what products are in
            for pair in (layer.lora_A, layer.lora_B):
                shape = pair[NAME].weight.shape
                pair[NAME].weight = nn.Parameter(torch.empty(shape, device=device))
            stack.set_submodule(name, layer.train(linear.training), strict=True)
    fill(stack, tensors, generator)


@torch.no_grad()
def fill(
    stack: nn.Module, tensors: Mapping[str, Tensor] | None, generator: torch.Generator | None
) -> None:
    """Give the A and B of a stack their start, or what was kept of them."""
    for name, parameter in adapter_parameters(stack):
        if parameter.is_meta:
            continue
        if tensors is not None:
            if name not in tensors or tensors[name].shape != parameter.shape:
                raise ValueError(f"{name}: is not {tuple(parameter.shape)} in what is loaded")
            parameter.copy_(tensors[name])
        elif ".lora_A" in name:
            bound = 1 / math.sqrt(parameter.shape[1])
            drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
            parameter.copy_(drawn)
        else:
            parameter.zero_()


def take_off(stack: nn.Module) -> dict[str, Tensor]:
    """Put the plain layers back; gives A and B, empty where there are none."""
    found = adapter_state(stack)
    for name, layer in list(layers_of(stack)):
        stack.set_submodule(name, layer.base_layer, strict=True)
    return found


def layers_of(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers with an adapter inside a module, by name."""
    for name, inner in module.named_modules():
        if is_adapted(inner):
            yield name, inner


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is a linear layer of peft's, with its A and B."""
    return "base_layer" in module._modules and "lora_A" in module._modules


def bare_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a module by name, as if there were no adapters."""
    for name, parameter in module.named_parameters():
        if ".lora_" not in name:
            yield name.replace(PLAIN, ""), parameter


def adapter_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A and B by name: `blocks.0.attention.qkv.lora_A.weight`."""
    for name, parameter in module.named_parameters():
        if ".lora_" in name:
            yield name.replace(f".{NAME}", ""), parameter


def bare_state(module: nn.Module) -> dict[str, Tensor]:
    """A module's state dict as if there were no adapters."""
    state = module.state_dict()
    return {name.replace(PLAIN, ""): t for name, t in state.items() if ".lora_" not in name}


def adapter_state(module: nn.Module) -> dict[str, Tensor]:
    """A and B of a module, by the names that files give them; empty without an adapter."""
    return {name: parameter.detach() for name, parameter in adapter_parameters(module)}


def in_place_of(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Other A and B for a module, by the names of its parameters, as a functional call takes them.

    Args:
        module: It carries an adapter.
        tensors: As `adapter_state` gives them.
    """
    names = (name for name, _ in module.named_parameters() if ".lora_" in name)
    return {name: tensors[name.replace(f".{NAME}", "")] for name in names}


def pairs_of(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name of each linear layer with its A (rank, inputs) and B (outputs, rank)."""
    for name, a_RI in tensors.items():
        owner, found, _ = name.partition(".lora_A")
        if found:
            yield owner, a_RI, tensors[f"{owner}.lora_B.weight"]


def deltas_of(tensors: Mapping[str, Tensor], adapter: Adapter) -> Iterator[tuple[str, Tensor]]:
    """Name of each matrix and what its adapter adds to it: (alpha / rank) B A, float32."""
    for owner, a_RI, b_OR in pairs_of(tensors):
        yield f"{owner}.weight", (b_OR.float() @ a_RI.float()) * (adapter.alpha / adapter.rank)


def weight_of(linear: nn.Module) -> Tensor:
    """The matrix that a linear layer multiplies with, what its adapter adds to it included."""
    if not is_adapted(linear):
        return cast(Tensor, linear.weight)
    layer: Any = linear
    return cast(Tensor, layer.base_layer.weight + layer.get_delta_weight(NAME))


@torch.no_grad()
def merge_adapters(rack: Rack) -> list[str]:
    """Add the adapters of a rack to its weights, and take them off.

    W + (alpha / rank) B A is worked out in float32 and rounded to what W is kept in. Frozen
    matrices become plain ones first, since a format would lose most of what an adapter has learnt.

    Args:
        rack: Changed in place; its logits stay the same but for rounding.

    Returns:
        The stacks that had one.
    """
    merged = []
    for stack, module in rack.stacks.items():
        found = [(name, layer) for name, layer in layers_of(module)]
        for name, layer in found:
            module.set_submodule(name, merged_linear(layer), strict=True)
        merged += [stack] if found else []
    return merged


def merged_linear(layer: Any) -> nn.Linear:
    """A plain linear layer of what one with an adapter computes."""
    base, delta = layer.base_layer, layer.get_delta_weight(NAME)
    if isinstance(base, FrozenLinear):
        made = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
        made.weight = nn.Parameter(base.dequantised(torch.float32))
        made.bias = base.bias
        made.weight.add_(delta)
        made.weight.data = made.weight.data.to(base.dtype)
        return made.train(base.training)
    base.weight.copy_((base.weight.float() + delta).to(base.weight.dtype))
    return cast(nn.Linear, base)
