"""What trains in a stage, by part and tensor name.

Only what trains is ever handed to an optimizer, so that frozen tensors cannot move. How it moves is
in `optim.py`, its moving average in `average.py`, the norms of its gradients in `norms.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

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
        still = frozen_names(module)
        for name, parameter in module.named_parameters():
            learns = part in trains and name not in still
            parameter.requires_grad_(learns)
            if learns:
                named[part, name] = parameter
    return named
