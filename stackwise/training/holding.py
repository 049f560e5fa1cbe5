"""The terms that hold a step to the rack before its stage; what they mean is in `preserving.py`.

Parts that the stage trains are kept as they were, of a frozen stack that carries an adapter its A
and B; those that are frozen are the rack's own. Where the rack before begins with the stage's
trunk, it goes on from the output that the step has anyway.

Shapes: B samples, T tokens (rows, where text is read block by block), D width, N counted positions,
V entries of the head.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from stackwise.adapters import SUFFIX
from stackwise.evaluation import LOGITS_AT_ONCE
from stackwise.model.adapters import adapter_state, in_place_of
from stackwise.model.direction import start_of
from stackwise.model.rack import Embedding, Head, Rack, Stack
from stackwise.objective import Corrupted, loss_at
from stackwise.preserving import copied_parts, distils, path_read, shares_trunk
from stackwise.stage import Stage


class Holding:
    """What a step of a stage is held to.

    Args:
        rack: As the stage before left it, with what the stage adds.
        stage: The stage; it has `preserve` and `before`.
        causal: Attention direction.

    Attributes:
        copies: The parts that are kept as they were.
        adapters: A and B as they were, by the stack that carries them.
        noted: Sums over the micro-batches of a step: `loss`, and terms without their weights.
    """

    def __init__(self, rack: Rack, stage: Stage, *, causal: bool) -> None:
        assert stage.preserve is not None and stage.before is not None
        self.rack, self.causal, self.preserve = rack, causal, stage.preserve
        self.path, self.shares, self.distils = path_read(stage), shares_trunk(stage), distils(stage)
        parts, kept = rack.parts(), sorted(copied_parts(stage))
        self.copies = {
            name: copy.deepcopy(parts[name]).requires_grad_(False)
            for name in kept
            if not name.endswith(SUFFIX)
        }
        self.adapters = {
            stack: {key: tensor.clone() for key, tensor in adapter_state(parts[stack]).items()}
            for stack in self.path
            if stack + SUFFIX in kept
        }
        self.noted: dict[str, Tensor] = {}

    @property
    def bytes(self) -> int:
        """Of what is kept as it was."""
        return sum(t.nbytes for part in self.state().values() for t in part.values())

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The parts that are kept, by name."""
        beside = {stack + SUFFIX: tensors for stack, tensors in self.adapters.items()}
        return {name: dict(part.state_dict()) for name, part in self.copies.items()} | beside

    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put back what `state` gave."""
        for name, part in self.copies.items():
            part.load_state_dict(dict(state[name]))
        for stack in self.adapters:
            for key, value in state[stack + SUFFIX].items():
                self.adapters[stack][key] = value.to(self.adapters[stack][key].device)

    @torch.no_grad()
    def hidden(self, noisy: Corrupted, first_BTD: Tensor) -> Tensor | None:
        """What the rack before puts out at the counted positions, (N, D); None if it is not asked.

        Args:
            noisy: A micro-batch.
            first_BTD: What embedding and trunk of the rack in training gave.
        """
        if not self.distils:
            return None
        x_BTD = first_BTD.detach() if self.shares else self.embedding(noisy)
        direction = noisy.direction(self.causal)
        time_B = self.rack.time_of(noisy.input_BT, noisy.level_B)
        for stack in self.path:
            part = cast(Stack, self.copies.get(stack, self.rack.stacks[stack]))
            beside = self.adapters.get(stack)
            tensors = {} if beside is None else in_place_of(part, beside)
            how = {"causal": direction, "time_B": time_B}
            x_BTD = functional_call(part, tensors, (x_BTD,), how) if tensors else part(x_BTD, **how)
        return x_BTD[noisy.counted_BT]

    def loss(
        self,
        noisy: Corrupted,
        chosen_ND: Tensor,
        before_ND: Tensor | None,
        joint_BTD: Tensor | None,
        positions: int,
        plain: Tensor | None,
    ) -> Tensor:
        """The loss of a micro-batch with its terms.

        Args:
            noisy: The micro-batch.
            chosen_ND: What the rack in training puts out at the counted positions.
            before_ND: Of `hidden`.
            joint_BTD: What goes into the suffix, where consistency is asked for.
            positions: Of the whole batch.
            plain: The loss without terms, where it is worked out already.
        """
        terms: dict[str, Tensor] = {}
        if before_ND is not None:
            plain, terms["distill"] = self.distilled(noisy, chosen_ND, before_ND, positions)
        assert plain is not None
        if joint_BTD is not None:
            with torch.no_grad():
                wanted_BTD = self.embedding(noisy)
            terms["consistency"] = strayed(joint_BTD, wanted_BTD, rows_of(noisy, positions))
        for name, value in {"loss": plain, **terms}.items():
            self.noted[name] = self.noted.get(name, 0.0) + value.detach()
        return plain + sum(getattr(self.preserve, name) * value for name, value in terms.items())

    def take(self) -> dict[str, float]:
        """What was noted since the last call."""
        found = {name: float(value) for name, value in self.noted.items()}
        self.noted = {}
        return found

    def embedding(self, noisy: Corrupted) -> Tensor:
        """What the embedding as it was makes of a micro-batch."""
        part = self.copies.get("embedding", self.rack.embedding)
        return cast(Tensor, part(noisy.input_BT, start_of(noisy.direction(self.causal))))

    def logits(self, x_ND: Tensor) -> Tensor:
        """Those of the head as it was."""
        head = cast(Head, self.copies.get("head", self.rack.head))
        table = cast(Embedding, self.copies.get("embedding", self.rack.embedding)).table
        with self.rack.autocast(x_ND.device):
            return cast(Tensor, head(x_ND, table))

    def distilled(
        self, noisy: Corrupted, chosen_ND: Tensor, before_ND: Tensor, positions: int
    ) -> tuple[Tensor, Tensor]:
        """The loss and the divergence of a micro-batch; of many logits a few rows at a time."""

        def some(x_ND: Tensor, old_ND: Tensor, target_N: Tensor, weight_N: Tensor) -> Tensor:
            logits_NV = self.rack.logits(x_ND).float()
            with torch.no_grad():
                old_NV = self.logits(old_ND).float()
            plain = loss_at(logits_NV, target_N, weight_N, positions)
            far_N = softened(old_NV, logits_NV, self.preserve.temperature)
            return torch.stack([plain, (weight_N * far_N).sum() / positions])

        rows = max(1, LOGITS_AT_ONCE // self.rack.vocab)
        inputs = (chosen_ND, before_ND, noisy.target_N, noisy.weight_N)
        if len(chosen_ND) <= rows:
            both = some(*inputs)
        else:
            pieces = zip(*(each.split(rows) for each in inputs), strict=True)
            both = torch.stack([checkpoint(some, *p, use_reentrant=False) for p in pieces]).sum(0)
        return both[0], both[1]


def softened(old_NV: Tensor, new_NV: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(old / T) || softmax(new / T)) of each row, nats."""
    old_NV = (old_NV / temperature).log_softmax(-1)
    new_NV = (new_NV / temperature).log_softmax(-1)
    return temperature**2 * (old_NV.exp() * (old_NV - new_NV)).sum(-1)


def rows_of(noisy: Corrupted, positions: int) -> int:
    """The rows in which a batch of so many positions is read."""
    blocks = noisy.blocks
    return positions if blocks is None else positions // blocks.noisy * blocks.rows


def strayed(x_BTD: Tensor, wanted_BTD: Tensor, positions: int) -> Tensor:
    """|x - wanted|^2 / |wanted|^2 of each position, summed, over the positions of a batch."""
    far_BT = (x_BTD.float() - wanted_BTD).square().sum(-1)
    length_BT = wanted_BTD.float().square().sum(-1)
    tiny = torch.finfo(torch.float32).tiny
    return (far_BT / length_BT.clamp_min(tiny)).sum() / positions


def holding_of(rack: Rack, stage: Stage, *, causal: bool) -> Holding | None:
    """What a stage is held to; None if nothing."""
    return None if stage.preserve is None else Holding(rack, stage, causal=causal)
