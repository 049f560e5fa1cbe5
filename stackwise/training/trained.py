"""What trains in a stage, by part and tensor name.

Only what trains is ever handed to an optimizer, so that frozen tensors cannot move. How it moves is
in `optim.py`, its moving average in `average.py`, the norms of its gradients in `norms.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from stackwise.adapters import SUFFIX
from stackwise.model.adapters import (
    PLAIN,
    adapter_parameters,
    adapter_state,
    bare_parameters,
    bare_state,
)
from stackwise.model.block import frozen_names
from stackwise.stage import Stage, parts_trained

Named = dict[tuple[str, str], nn.Parameter]
State = dict[str, dict[str, Tensor]]


def freeze_all_but(parts: Mapping[str, nn.Module], stage: Stage) -> Named:
    """Let gradient reach those of `parts` that the stage trains, and nothing else.

    Returns:
        What trains: (part, tensor name) to parameter, in a fixed order.
    """
    trains = parts_trained(stage)
    named: Named = {}
    for part, module in parts.items():
        still = {name.replace(PLAIN, "") for name in frozen_names(module)}
        whole, beside = bare_parameters(module), adapter_parameters(module)
        for owner, found in ((part, whole), (part + SUFFIX, beside)):
            for name, parameter in found:
                learns = owner in trains and name not in still
                parameter.requires_grad_(learns)
                if learns:
                    named[owner, name] = parameter
    return named


def tensors_of(parts: Mapping[str, nn.Module], chosen: Callable[[str], bool]) -> State:
    """The weights of those parts that are chosen by name, adapters (`s1.adapter`) among them."""
    found: State = {}
    for part, module in parts.items():
        if chosen(part):
            found[part] = bare_state(module)
        beside = adapter_state(module) if chosen(part + SUFFIX) else {}
        if beside:
            found[part + SUFFIX] = beside
    return found
