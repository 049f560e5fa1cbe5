"""The judge of the plan: the real step, run on tensors that have no memory, with a tracker.

    found = trace_stage(exp, placement, 1)      # bytes by category at the peak of stage 1

What is run is `training_step` itself, with the rack, the stage's `Trainee`, its optimizer, frozen
layers and averages, twice, since the optimizer's state is there from the second step on. Tensors
are torch's fake ones, pinned to `cpu`: other devices have other attention kernels. It is what torch
allocates; what kernels take inside of an operator is not seen, nor what an allocator adds. Of lent
blocks there are slots, which nothing fills; the batch is there, and no thread that makes the next.

Its hooks are the whole process's, so that it runs in one of its own. The arithmetic that it judges
is in `peak.py`: `tests/integration/memory/test_the_plan_is_what_a_traced_step_takes.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker, _MemRefType

from stackwise.adapters import carried_after
from stackwise.block_diffusion import read_as, rows_read
from stackwise.by_stage import as_read
from stackwise.completion import packing
from stackwise.config import Experiment, Placement
from stackwise.curriculum import stages
from stackwise.memory.counted import most_counted
from stackwise.memory.flops import vocab_size
from stackwise.model.adapters import put_on
from stackwise.model.formats import format_called
from stackwise.model.freezing import replace_linears
from stackwise.model.frozen import FrozenLinear
from stackwise.model.rack import Rack
from stackwise.model.workspace import workspace
from stackwise.objective import Corrupted, is_causal
from stackwise.stage import Stage, as_run, trunk_of, untied_from
from stackwise.training.average import Average
from stackwise.training.holding import holding_of
from stackwise.training.in_backward import stepping_of
from stackwise.training.optim import Optimizer
from stackwise.training.step import Trainee, setting_of, training_step
from stackwise.training.trained import freeze_all_but
from stackwise.trunk.border import border_of
from stackwise.trunk.shelf import AS_TRAINED
from stackwise.trunk.stream import SLOTS

CPU = torch.device("cpu")
STEPS = 2


def trace_stage(exp: Experiment, placement: Placement, number: int) -> dict[str, int]:
    """Bytes by category at the highest moment of a stage's step, in a process of its own.

    Args:
        exp: The experiment.
        placement: How it is carried out; compiled code is not traced, nor a cache read.
        number: The stage.

    Returns:
        `Parameter`, `Buffer`, `Gradient`, `Optstate`, `Activation`, `Temp`, `Other` and `Total`.

    Raises:
        RuntimeError: If the step cannot be traced; with what was said.
    """
    told = json.dumps(
        {
            "exp": exp.model_dump(mode="json"),
            "placement": placement.model_dump(mode="json"),
            "number": number,
        }
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", "stackwise.memory.trace"],
        input=told,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"stage {number} cannot be traced: {done.stderr.strip()[-2000:]}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


class Counted(FakeTensorMode):
    """Fake tensors that answer what depends on data: numbers are one, masks choose `chosen`."""

    chosen = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself, so that copies of its tensors are its own."""
        return self

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """The operator on shapes alone."""
        aten = torch.ops.aten
        if func is aten._local_scalar_dense.default:
            return 1.0 if args[0].dtype.is_floating_point else 1
        mask = args[1][0] if func is aten.index.Tensor else None
        if mask is not None and mask.dtype == torch.bool:
            return args[0].new_empty((self.chosen, *args[0].shape[mask.ndim :]))
        if func is aten.nonzero.default:
            return args[0].new_empty((self.chosen, args[0].ndim), dtype=torch.int64)
        if func is aten.repeat_interleave.Tensor:
            return args[0].new_empty((self.chosen,), dtype=torch.int64)
        return super().__torch_dispatch__(func, types, args, kwargs)


class Tracker(MemTracker):
    """torch's tracker, which takes modules that do not train as well."""

    def _track_module_params_and_buffers(
        self, module: nn.Module, install_grad_hooks: bool = True
    ) -> tuple[int, int]:
        trains = all(parameter.requires_grad for parameter in module.parameters())
        return super()._track_module_params_and_buffers(module, install_grad_hooks and trains)

    def _pre_fw_hook(self, module: nn.Module, inputs: Any) -> None:
        """Anew for what stands still, which the rack before a stage has called already."""
        still = not any(parameter.requires_grad for parameter in module.parameters())
        if still and not self._mod_tracker.is_bw and module in self.memory_tracking:
            del self.memory_tracking[module]
        super()._pre_fw_hook(module, inputs)

    def _post_bw_hook(self, module: nn.Module, args: Any) -> None:
        """Of a module that was called; the head's parts are called without it."""
        if module in self.memory_tracking:
            super()._post_bw_hook(module, args)


@dataclass(frozen=True)
class Batch(Corrupted):
    """A batch whose micro-batches begin the tracker's account of modules anew, one call each."""

    tracker: ClassVar[Tracker]
    mode: ClassVar[Counted]
    counted: ClassVar[int]

    def split(self, samples: int) -> Iterator[Corrupted]:
        """The same, in parts."""
        for part in Corrupted(**self.tensors(), blocks=self.blocks).split(samples):
            self.tracker.reset_mod_stats()
            self.mode.chosen = max(1, min(self.counted, part.positions))
            yield part


def traced(exp: Experiment, placement: Placement, number: int) -> dict[str, int]:
    """The same in this process, whose hooks it changes for good."""
    made = stages(exp)
    stage, apart = made[number], untied_from(exp.rack, made)
    with Counted() as mode:
        rack = rack_of(exp, placement, made[: number + 1])
        if apart is not None and number >= apart:
            rack.untie()
        holding = holding_of(rack, stage, causal=is_causal(exp.objective))
        named = freeze_all_but(rack.parts(), stage)
        optimizer = Optimizer(exp.optim, named, rounding=exp.precision.rounding, shape=exp.rack)
        average = None if exp.optim.ema is None else Average(named, exp.optim.ema, optimizer)
        stepping = stepping_of(exp.optim, named, optimizer, rack, compiled=False)
        trainee = Trainee(number, stage, named, optimizer, average, stepping, holding=holding)
        setting = setting_of(
            rack,
            as_run(stage),
            causal=is_causal(exp.objective),
            micro_batch=placement.micro_batch,
            checkpointing=placement.checkpointing,
            compute=getattr(torch, exp.precision.compute),
            device=CPU,
            clip=exp.optim.clip,
            border=border_of(exp.precision),
            in_backward=stepping,
            holding=holding,
        )
        tracker = Tracker()
        batch = batch_of(exp, placement, stage, tracker, mode)
        others = batch.tensors().values()
        averages = [] if average is None else [*average.values.values()]
        before = {} if holding is None else holding.state()
        copies = [tensor for part in before.values() for tensor in part.values()]
        tracker.track_external(rack, *copies, *lent_to(rack), *others, *averages)
        with tracker, workspace(small=True):
            for _ in range(STEPS):
                training_step(rack, batch, setting, trainee, exp.optim.lr)
                tracker._track_optimizer_states(_MemRefType.OPT, optimizer)  # type: ignore[arg-type]
        (found,) = tracker.get_tracker_snapshot("peak").values()
    return {getattr(key, "value", key): count for key, count in found.items()}


def rack_of(exp: Experiment, placement: Placement, begun: Sequence[Stage]) -> Rack:
    """The rack as it is in the last of these stages."""
    dtype = getattr(torch, exp.precision.weights)
    held = {entry.stack for stage in begun for entry in stage.new or ()}
    rack = Rack(exp.rack, exp.attention, vocab_size(exp), stacks=(), dtype=dtype)
    slots: list[dict[str, dict[str, Tensor]]] = []
    for stack in sorted(held, key=lambda s: int(s[1:])):
        module = rack.add(stack, empty=True)
        if stack in (begun[-1].active or ()):
            continue
        for block in module.blocks:
            if placement.trunk == "recompute":
                freeze(block, packing(exp.precision))
            else:
                lend(block, packing(exp.precision) or AS_TRAINED[dtype], slots)
    for stack, adapter in carried_after(begun).items():
        put_on(rack.stacks[stack], adapter, generator=torch.Generator())
    return rack


def freeze(block: nn.Module, form: str | None) -> None:
    """Keep a block's matrices in a format, without ever having had them."""
    if form is None:
        return
    chosen = format_called(form)

    def frozen(name: str, linear: nn.Linear) -> FrozenLinear:
        shape = (linear.out_features, linear.in_features)
        made = FrozenLinear(chosen, shape, chosen.blank(shape), linear.bias)
        return made.requires_grad_(False)

    replace_linears(block, frozen)


def lend(block: nn.Module, form: str, slots: list[dict[str, dict[str, Tensor]]]) -> None:
    """Lend a block's matrices from one of a few slots."""
    chosen, turn = format_called(form), sum(isinstance(m, FrozenLinear) for m in block.modules())
    assert not turn, "a block is lent once"
    if len(slots) < SLOTS:
        slots.append({})
    slot = slots[len(slots) - 1]

    def lent(name: str, linear: nn.Linear) -> FrozenLinear:
        shape = (linear.out_features, linear.in_features)
        tensors = slot.setdefault(name, chosen.blank(shape))
        made = FrozenLinear(chosen, shape, chosen.blank(shape, "meta"), linear.bias)
        made.lend(lambda: tensors)
        return made.requires_grad_(False)

    replace_linears(block, lent)


def lent_to(rack: Rack) -> list[Tensor]:
    """The tensors of all slots."""
    layers = [m for m in rack.modules() if isinstance(m, FrozenLinear) and m.is_lent]
    return [tensor for layer in layers for tensor in layer.tensors().values()]


def batch_of(
    exp: Experiment, placement: Placement, stage: Stage, tracker: Tracker, mode: Counted
) -> Batch:
    """A batch of a stage; with what a cache gives for its trunk."""
    size, own = exp.optim.batch, as_read(exp, stage)
    length = rows_read(own.objective, own.data.seq_len)
    shared = read_as(own.objective, own.data.seq_len)
    blocks = None if shared is None else replace(shared, masks={})  # what is traced stays here
    ids_BT = torch.zeros(size, length, dtype=torch.int64)
    rows = None
    if placement.trunk == "cached" and trunk_of(stage):
        low = border_of(exp.precision) != "float32"
        dtype = torch.bfloat16 if low else torch.float32
        rows = torch.zeros(size, length, exp.rack.d_model, dtype=dtype)
    Batch.tracker, Batch.mode = tracker, mode
    Batch.counted = most_counted(exp, placement, stage)
    one_B = torch.ones(size)
    return Batch(
        ids_BT,
        ids_BT.clone(),
        torch.ones_like(ids_BT, dtype=torch.bool),
        one_B,
        one_B,
        rows,
        weight_BT=None if blocks is None else torch.ones(size, length),
        blocks=blocks,
    )


def main(told: Mapping[str, Any]) -> None:
    """Print what a traced stage takes."""
    exp, placement = Experiment(**told["exp"]), Placement(**told["placement"])
    print(json.dumps(traced(exp, placement, told["number"])))


if __name__ == "__main__":
    main(json.load(sys.stdin))
