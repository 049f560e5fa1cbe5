"""A user's rack, trained on the user's own batches.

It computes what a run computes: the corruption of `objective.py`, the loss of
`training/step.py`. The loop is in `loop.py`, the same for other modules in `module.py`.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stackwise.by_stage import in_blocks
from stackwise.config import Experiment
from stackwise.data.batches import Batch
from stackwise.model.init import begin_as
from stackwise.model.rack import Rack
from stackwise.objective import Corruption, corrupt, is_causal
from stackwise.own.batches import OwnBatch, ids_of
from stackwise.stage import NewStack, Stage, band_paths, parts_trained, untied_from
from stackwise.training.picking import path_at
from stackwise.training.step import Setting, micro_loss, setting_of
from stackwise.trunk.border import border_of


class OwnRack:
    """A rack of the user's.

    Args:
        model: The rack; stacks that it lacks are added as stages ask for them.
        objective: Name or parameters of the objective.
    """

    sections = frozenset({"optim", "masking", "precision"})

    def __init__(self, model: Rack, objective: Any) -> None:
        self.model, self.objective = model, objective
        self.setting: Setting | None = None
        self.stage: Stage | None = None
        self.rule: Corruption | None = None
        self.parting: Stage | None = None  # from it on, a tied head has a table of its own

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.embedding.table.device

    def experiment(self, values: Any) -> dict[str, Any]:
        """What decides its stages and its corruption."""
        samples, tokens = ids_of(values, self.model.vocab).shape
        return {
            "rack": {**self.model.shape.model_dump(), "vocab": self.model.vocab},
            "attention": self.model.attention,
            "objective": self.objective,
            "data": {"seq_len": tokens},
            "optim": {"batch": samples},
        }

    def parts(self) -> dict[str, nn.Module]:
        """Embedding, stacks, head."""
        return self.model.parts()

    def check(self, stages: tuple[Stage, ...]) -> None:
        """Note from which stage on a tied head is untied; stages() has checked the rest."""
        apart = untied_from(self.model.shape, stages)
        self.parting = None if apart is None else stages[apart]

    def add(self, entry: NewStack, seed: int) -> None:
        """Give a stack its start; at random means the weights that it has, if it is there."""
        if entry.stack not in self.model.stacks:
            self.model.add(entry.stack)
        begin_as(self.model.stacks[entry.stack], entry, self.model.stacks, seed)

    def enter(self, stage: Stage, exp: Experiment, batch: Any) -> None:
        """Resolve what stays the same over the stage's steps."""
        if stage == self.parting and self.model.untie():
            warnings.warn(
                "the rack's head was tied to its token table and now trains apart from it: it got "
                "a copy of its own",
                stacklevel=2,
            )
        objective = in_blocks(exp, stage).objective
        self.model.objective = objective
        for name, module in self.parts().items():
            module.train(name in parts_trained(stage))
        self.setting = setting_of(
            self.model,
            stage,
            causal=is_causal(exp.objective),
            micro_batch=None,
            checkpointing=False,
            compute=getattr(torch, exp.precision.compute),
            device=self.device,
            clip=exp.optim.clip,
            border=border_of(exp.precision),
        )
        self.stage = stage
        self.rule = Corruption(
            objective=objective,
            vocab=self.model.vocab,
            batch_size=exp.optim.batch,
            seed=exp.seed,
            schedule=exp.masking.schedule,
            sampling=exp.masking.sampling,
            band=stage.band,
            bell=exp.masking.bell,
        )

    def loss(self, batch: OwnBatch, step: int, progress: float) -> Tensor:
        """The objective on a batch; its masks follow from the seed and the samples' places."""
        assert self.rule and self.setting and self.stage, "enter comes first"
        setting = self.setting.on(path_at(self.stage, self.rule.seed, step))
        ids_BT = ids_of(batch.values, self.model.vocab).cpu()
        place_B = batch.index * self.rule.batch_size + np.arange(len(ids_BT))
        draw_B = np.full(len(ids_BT), batch.draw)
        noisy = corrupt(self.rule, Batch(ids_BT, place_B, draw_B, place_B), progress=progress)
        return micro_loss(self.model, noisy, setting, noisy.positions)

    def state(self, stacks: set[str]) -> dict[str, dict[str, Tensor]]:
        """Tensors of embedding, head and `stacks`."""
        chosen = stacks | {"embedding", "head"}
        return {k: dict(m.state_dict()) for k, m in self.parts().items() if k in chosen}

    def finish(self, stages: tuple[Stage, ...]) -> None:
        """Let the finished rack run, for every noise, the path that learned it."""
        self.model.paths = band_paths(stages)

    def restore(self) -> None:
        """A rack keeps its stacks while it trains."""
