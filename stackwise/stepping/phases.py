"""A training step in pieces: what `training/step.py` does on one screen, halting after each phase.

    batch -> mask -> trunk -> active stacks, suffix, in the order of the path -> loss -> gradients
    -> update

Each phase calls what the step calls, in the step's order; of several micro-batches, forward runs
through all before backward runs through all, which adds up the same numbers in the same order.
That nothing differs is held by `tests/integration/test_a_watched_step_is_the_real_one.py`.

Shapes: B samples, T tokens, D width, N counted positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stackwise.evaluation import LOGITS_AT_ONCE, nats_at
from stackwise.objective import Corrupted
from stackwise.stage import Stage, roles, trunk_of
from stackwise.stepping import words
from stackwise.stepping.measures import (
    KeptTensors,
    Squares,
    blocks_of,
    moved,
    outputs_noted,
    weights_of,
)
from stackwise.stepping.phase import Name, Phase, TokenBatch
from stackwise.training.borders import weight_bytes
from stackwise.training.norms import global_norms
from stackwise.training.optim import optimizer_state
from stackwise.training.picking import stage_at
from stackwise.training.rates import stage_lr
from stackwise.training.step import (
    Setting,
    Trainee,
    autocast,
    backward,
    end_loss,
    refuse_infinite,
    take_step,
    trunk_output,
)
from stackwise.training.work import Work

Segment = tuple[Name, tuple[str, ...]]


def segments_of(stage: Stage) -> list[Segment]:
    """The stacks after the trunk, those that follow each other in one role together."""
    role = roles(stage)
    rest = stage.path[len(trunk_of(stage)) :]
    return [(cast(Name, kind), tuple(found)) for kind, found in groupby(rest, key=role.__getitem__)]


def phase_names(stage: Stage) -> tuple[Name, ...]:
    """The phases of a step of a stage, in order."""
    first: Name = "trunk" if trunk_of(stage) else "embedding"
    middle = [kind for kind, _ in segments_of(stage)]
    return ("batch", "mask", first, *middle, "loss", "gradients", "update")


def phases_of_step(work: Work, trainee: Trainee, setting: Setting) -> Iterator[Phase]:
    """Carry out the step that the counters stand at, a phase for each that is asked for.

    Raises:
        FloatingPointError: As `training_step`.
    """
    stage = stage_at(trainee.stage, work.exp.seed, work.at.total_steps)
    step = StepInHand(work, trainee, setting.on(stage.path), stage)
    yield step.tell("batch", ())
    yield step.tell("mask", ())
    yield step.begin()
    for kind, stacks in segments_of(stage):
        yield step.run(kind, stacks)
    yield step.lose()
    yield step.go_back()
    yield step.update()


class StepInHand:
    """A step that has been carried out as far as its last phase."""

    def __init__(self, work: Work, trainee: Trainee, setting: Setting, stage: Stage) -> None:
        self.work, self.trainee, self.setting = work, trainee, setting
        self.stage, number = stage, trainee.number
        self.rate = stage_lr(work.exp.optim, self.stage, work.at.step, work.steps_of(number))
        noisy = work.noisy_batch(number, work.at.step)
        self.positions, self.counted = noisy.positions, int(noisy.counted_BT.sum())
        self.tokens = token_batch(work, noisy)
        size = setting.micro_batch or len(noisy.input_BT)
        self.micros = [micro.to(setting.device) for micro in noisy.split(size)]
        self.xs: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.before: list[Tensor | None] = []  # what the rack before puts out, where it is asked
        self.joints: list[Tensor | None] = [None] * len(self.micros)  # what goes into the suffix
        self.preserved: dict[str, float] = {}
        if setting.holding is not None:
            setting.holding.take()
        self.kept = KeptTensors(work.rack)
        self.outputs, self.arriving = Squares(), Squares()
        self.told = 0
        self.loss: float | None = None
        self.grad_norm: float | None = None
        self.grad_norms: dict[str, float | None] = {}
        self.flow: dict[str, float | None] = {}
        self.changes: dict[str, float] = {}
        self.relative: dict[str, float] = {}

    @property
    def blocks(self) -> list[str]:
        """The blocks of the path, in order."""
        return [*blocks_of(self.work.rack, self.stage.path)]

    def begin(self) -> Phase:
        """Embedding and trunk."""
        rack, trunk = self.work.rack, trunk_of(self.stage)
        modules = {"embedding": rack.embedding, **blocks_of(rack, trunk)}
        with outputs_noted(modules, self.outputs.add), self.kept:
            for micro in self.micros:
                with autocast(self.setting.device, self.setting.compute):
                    self.xs.append(trunk_output(rack, micro, self.setting))
        holding = self.setting.holding
        with autocast(self.setting.device, self.setting.compute):
            for micro, x_BTD in zip(self.micros, self.xs, strict=True):
                self.before.append(None if holding is None else holding.hidden(micro, x_BTD))
        for x_BTD in self.xs:
            self._watch("embedding", x_BTD)
        return self.tell("trunk" if trunk else "embedding", ("embedding", *trunk))

    def run(self, kind: Name, stacks: tuple[str, ...]) -> Phase:
        """Some stacks after the trunk."""
        setting, found = self.setting, blocks_of(self.work.rack, stacks)
        first = [*blocks_of(self.work.rack, self._rest())].index(next(iter(found)))
        layers = setting.rest[first : first + len(found)]
        with outputs_noted(found, self.outputs.add), self.kept:
            for at, x_BTD in enumerate(self.xs):
                micro = self.micros[at]
                causal = micro.direction(setting.causal)
                time_B = self.work.rack.time_of(micro.input_BT, micro.level_B)
                with autocast(setting.device, setting.compute):
                    for number, (name, layer) in enumerate(zip(found, layers, strict=True), first):
                        if number == setting.joint:
                            self.joints[at] = x_BTD
                        if setting.checkpointing:
                            x_BTD = checkpoint(
                                layer, x_BTD, causal=causal, time_B=time_B, use_reentrant=False
                            )
                        else:
                            x_BTD = layer(x_BTD, causal=causal, time_B=time_B)
                        self._watch(name, x_BTD)
                self.xs[at] = x_BTD
        return self.tell(kind, stacks)

    def lose(self) -> Phase:
        """Final norm, head and loss at the positions that count."""
        total = torch.zeros((), device=self.setting.device)
        with self.kept:
            for given in zip(self.micros, self.xs, self.before, self.joints, strict=True):
                with autocast(self.setting.device, self.setting.compute):
                    loss = end_loss(self.setting, *given, self.positions)
                self.losses.append(loss)
                total += loss.detach()
        refuse_infinite("loss", value := float(total))
        terms = {} if self.setting.holding is None else self.setting.holding.take()
        self.loss = terms.pop("loss", value)
        self.preserved = terms
        self.tokens = self._with_losses()
        return self.tell("loss", ("head",))

    def go_back(self) -> Phase:
        """Backward; with steps in backward, what trains moves meanwhile."""
        self.weights = weights_of(self.work.rack)
        for loss in self.losses:
            backward(self.trainee, loss, self.rate)
        stepping = self.trainee.in_backward
        norm, found = global_norms(self.trainee.named) if stepping is None else stepping.norms()
        refuse_infinite("gradient norm", norm)
        self.grad_norm = norm
        names = ["embedding", *self.blocks, "head"]
        self.grad_norms = {name: found.get(name) for name in names}
        arriving = self.arriving.norms()
        self.flow = {name: arriving.get(name) for name in names if name != "head"}
        self.xs, self.losses, self.before, self.joints = [], [], [], []
        return self.tell("gradients", self._crossed())

    def update(self) -> Phase:
        """Clip, optimizer, average."""
        take_step(self.trainee, self.rate, self.setting.clip)
        self.changes, self.relative = moved(self.work.rack, self.weights)
        del self.weights
        at = self.work.at
        at.step, at.total_steps = at.step + 1, at.total_steps + 1
        at.tokens += self.positions
        trained = {part for part, _ in self.trainee.named}
        order = ("embedding", *self.stage.path, "head")
        return self.tell("update", tuple(part for part in order if part in trained))

    def tell(self, name: Name, parts: tuple[str, ...]) -> Phase:
        """The present state as a frozen value."""
        kept = None if self.setting.checkpointing else self.kept.take()
        number, names = self.told, phase_names(self.stage)
        self.told += 1
        made = Phase(
            stage=self.trainee.number,
            step=self.work.at.step - (name == "update"),
            steps=self.work.steps_of(self.trainee.number),
            number=number,
            names=names,
            name=name,
            parts=parts,
            words="",
            rate=self.rate,
            tokens=self.tokens,
            activations=MappingProxyType(self.outputs.means()),
            kept=kept,
            loss=self.loss,
            counted=self.counted,
            grad_norm=self.grad_norm,
            clip=self.setting.clip,
            grad_norms=MappingProxyType(self.grad_norms),
            flow=MappingProxyType(self.flow),
            changes=MappingProxyType(self.changes),
            relative=MappingProxyType(self.relative),
            memory=MappingProxyType(self._memory()),
            preserved=MappingProxyType(self.preserved),
        )
        return replace(made, words=words.words_of(made, self.work.exp, self.stage))

    def _rest(self) -> tuple[str, ...]:
        return self.stage.path[len(trunk_of(self.stage)) :]

    def _watch(self, name: str, x_BTD: Tensor) -> None:
        """Have the gradient that arrives at a block's output measured, if one will."""
        if x_BTD.requires_grad:
            x_BTD.register_hook(lambda gradient: self.arriving.add(name, gradient))

    def _crossed(self) -> tuple[str, ...]:
        """The parts that gradient reaches or passes through, in the order of the path."""
        first = "embedding" if self.flow["embedding"] is not None else None
        return (*([first] if first else []), *self._rest(), "head")

    def _memory(self) -> dict[str, int | None]:
        """Bytes by category, as they are now."""
        trainee = self.trainee
        moments = optimizer_state(trainee.optimizer, trainee.named)
        averages = trainee.average.state() if trainee.average is not None else {}
        whole = sum(p.grad.nbytes for p in trainee.named.values() if p.grad is not None)
        held = trainee.in_backward.gradient_bytes if trainee.in_backward is not None else whole
        before = trainee.holding.bytes if trainee.holding is not None else 0
        return {
            "weights": weight_bytes(self.work) + before,
            "gradients": held,
            "optimizer": sum(t.nbytes for part in moments.values() for t in part.values()),
            "average": sum(t.nbytes for part in averages.values() for t in part.values()),
            "activations": None if self.setting.checkpointing else self.kept.bytes,
        }

    @torch.no_grad()
    def _with_losses(self) -> TokenBatch:
        """The batch with the loss at each counted position, and what would be guessed there."""
        shape, rack = self.tokens.ids_BT.shape, self.work.rack
        nats_BT, guess_BT = np.full(shape, np.nan), np.full(shape, -1, dtype=np.int64)
        nats, guesses = [], []
        for micro, x_BTD in zip(self.micros, self.xs, strict=True):
            with autocast(self.setting.device, self.setting.compute):
                chosen_ND = x_BTD[micro.counted_BT]
                nats.append(nats_at(rack, chosen_ND, micro.target_N).cpu())
                size = max(1, LOGITS_AT_ONCE // rack.vocab)
                parts = [rack.logits(part).argmax(-1) for part in chosen_ND.split(size)]
                guesses.append(torch.cat(parts).cpu())
        nats_BT[self.tokens.counted_BT] = torch.cat(nats).numpy()
        guess_BT[self.tokens.counted_BT] = torch.cat(guesses).numpy()
        guessed = texts_of(self.work, guess_BT[guess_BT >= 0])
        texts = MappingProxyType({**self.tokens.texts, **guessed})
        return replace(self.tokens, nats_BT=frozen(nats_BT), guess_BT=frozen(guess_BT), texts=texts)


def token_batch(work: Work, noisy: Corrupted) -> TokenBatch:
    """A batch as plain arrays, with the texts of its tokens; without those that are read clean."""
    tokens = noisy.positions // len(noisy.input_BT)
    ids_BT, input_BT, counted_BT = (
        x.numpy()[:, :tokens] for x in (noisy.target_BT, noisy.input_BT, noisy.counted_BT)
    )
    weight_B, weight_BT = noisy.weight_B.numpy(), None
    if noisy.weight_BT is not None:
        weight_BT = noisy.weight_BT.numpy()[:, :tokens]
        weight_B = (weight_BT * counted_BT).sum(1) / np.maximum(counted_BT.sum(1), 1)
    return TokenBatch(
        ids_BT=frozen(ids_BT),
        input_BT=frozen(input_BT),
        counted_BT=frozen(counted_BT),
        mask_frac_B=frozen(noisy.mask_frac_B.numpy()),
        weight_B=frozen(weight_B),
        weight_BT=None if weight_BT is None else frozen(weight_BT),
        vocab=work.rack.vocab,
        texts=MappingProxyType(texts_of(work, np.concatenate([ids_BT, input_BT]))),
    )


def texts_of(work: Work, ids: NDArray[np.int64]) -> dict[int, str]:
    """The text of each id that occurs; empty where it is a part of a character."""
    vocab, decode = work.rack.vocab, work.dataset.tokenizer.decode
    found = {vocab: "[MASK]", vocab + 1: "[START]"}
    for token in np.unique(ids).tolist():
        if token < vocab:
            text = decode([token])
            found[token] = "" if "\ufffd" in text else text
    return found


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A copy that cannot be written to."""
    copy = array.copy()
    copy.setflags(write=False)
    return copy
