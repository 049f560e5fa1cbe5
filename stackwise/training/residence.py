"""Which stacks lie in memory in a stage, and in what form.

A stack that trains is there as it trains. A frozen one is there as it trained, or packed in the
format of `precision.frozen`; or it is lent, its matrices being read from where they lie when a step
needs them, a block at a time. So what a stage takes does not grow with the stacks that are done.

How a stack is packed is in `model/frozen.py`, how lent matrices are read ahead in `trunk/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stackwise.completion import packing
from stackwise.model.freezing import freeze_linears
from stackwise.model.init import begin_as
from stackwise.runs.records import MANIFEST
from stackwise.stage import NewStack
from stackwise.training.checkpoint import Written, write_ahead
from stackwise.training.manifest import read_manifest, read_part
from stackwise.training.optim import Optimizer
from stackwise.training.ownership import RACK
from stackwise.training.part_names import MASTER
from stackwise.training.parts import put
from stackwise.training.saved import MASTERS, save_parts
from stackwise.training.tensorfile import LazyTensor
from stackwise.training.trained import Named
from stackwise.training.wearing import lay_off, lay_on, merge_into
from stackwise.training.work import Work

if TYPE_CHECKING:
    from stackwise.interop.kept import Beginning


def arrange(work: Work, number: int) -> None:
    """Bring every stack into the form that a stage needs, one after the other.

    New ones are made, those that train are loaded if they are not there, and the others are put
    away. Afterwards the lent ones are read in the order of the stage's path, and adapters are on.
    """
    stage = work.stages[number]
    trains = set(stage.active or ())
    lay_off(work)
    for stack in work.rack.held():
        if stack in trains:
            bring_back(work, stack)
        else:
            put_away(work, number, stack)
    for entry in stage.new or ():
        if entry.stack not in work.rack.stacks:
            add_stack(work, entry)
            if entry.stack not in trains:
                put_away(work, number, entry.stack)
    if work.shelf is not None:
        work.shelf.order(stage.path)
    merge_into(work, number, trains)
    lay_on(work, number)


def gather(work: Work) -> None:
    """Have every stack there, or lent, though a run resumed at its end enters no stage."""
    for stack in sorted(work.empty):
        put_away(work, len(work.stages) - 1, stack)
    if work.shelf is not None:
        work.shelf.order(work.rack.held())
    lay_on(work, len(work.stages) - 1)


def add_stack(work: Work, entry: NewStack) -> None:
    """Put a new stack into the rack, initialised as the stage says."""
    model = work.model if entry.init == "random" else None
    stack = work.rack.add(entry.stack, empty=model is not None)
    if model is not None:
        begin(work, model, entry.stack)
        return
    begin_as(stack, entry, work.rack.stacks, work.exp.seed)


def begin_ends(work: Work) -> None:
    """Give embedding and head, unless a checkpoint has them, the weights of a model."""
    missing = [name for name in ("embedding", "head") if name not in work.on_disk]
    if missing and work.model is not None:
        for name in missing:
            begin(work, work.model, name)


def begin(work: Work, model: Beginning, name: str) -> None:
    """Give a part the weights that it has in a model."""
    put(work.rack, name, model.part(name), model.path)


def put_away(work: Work, number: int, stack: str) -> None:
    """Let a stack that does not train take no more memory than it must."""
    form = packing(work.exp.precision)
    masters: dict[str, Written] = {}
    if form is not None and stack not in work.packed and stack not in work.empty:
        masters = pack(work, number, [stack])
        work.on_disk.discard(stack)
    if stack not in work.on_disk and (form is not None or work.shelf is not None):
        save_parts(work, number, {stack}, masters)
    if work.shelf is not None:
        if stack not in work.lent:
            work.shelf.lend(stack, loaded=stack not in work.empty)
            work.lent.add(stack)
    elif stack in work.empty:
        load(work, stack, form if stack in work.packed else None)
    work.empty.discard(stack)


def pack(
    work: Work, number: int, stacks: Sequence[str], optimizer: Optimizer | None = None
) -> dict[str, Written]:
    """Freeze stacks to the experiment's format, in place, a block at a time.

    Masters are on disk before: of the old matrices nothing is left, whoever still names them.

    Args:
        work: The run.
        number: The stage in which it is done.
        stacks: As they train.
        optimizer: Knows the exact values of bfloat16 weights; None if they have never moved.

    Returns:
        Their masters by stack, if they are kept: what is packed in the dtype of
        `precision.master`, the rest as it trains.
    """
    form, kept = packing(work.exp.precision), {}
    dtype = MASTERS[work.exp.precision.master]
    assert form is not None, "these stacks freeze as they trained"
    for stack in stacks:
        module = work.rack.stacks[stack]
        if dtype is not None:
            values = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            packed = {id(each.weight) for each in module.modules() if isinstance(each, nn.Linear)}
            masters = {
                key: master(value, dtype if id(value) in packed else value.dtype, optimizer)
                for key, value in values.items()
            }
            name = f"{stack}.{MASTER}"
            kept[stack] = write_ahead(work.run.path / RACK, name, masters, written_in=number)
        for block in work.rack.blocks([stack]):
            weights = [each.weight for each in block.modules() if isinstance(each, nn.Linear)]
            freeze_linears(block, form)
            for weight in weights:
                weight.data = weight.data.new_empty(0)
        work.packed.add(stack)
    return kept


def master(value: Tensor, dtype: torch.dtype, optimizer: Optimizer | None) -> LazyTensor:
    """A weight as a master is written: some rows at a time, from its exact value."""
    width = value.shape[1:].numel()

    def rows(start: int, stop: int) -> Tensor:
        if optimizer is not None and isinstance(value, nn.Parameter) and value.dtype != dtype:
            exact_n = optimizer.exact_n(value, start * width, stop * width)
            return exact_n.view(-1, *value.shape[1:]).to(dtype)
        return value.detach()[start:stop].to(dtype)

    return LazyTensor(dtype, tuple(value.shape), rows)


def bring_back(work: Work, stack: str) -> None:
    """Load a stack that is about to train, as it trains: from its master if it was packed."""
    if not {stack} & (work.packed | work.lent | work.empty):
        return
    if work.shelf is not None:
        work.shelf.take(stack)
    del work.rack.stacks[stack]
    work.rack.add(stack, empty=True)
    load(work, stack, None)
    for names in (work.packed, work.lent, work.empty):
        names.discard(stack)


@torch.no_grad()
def take_masters(work: Work, named: Named, optimizer: Optimizer) -> None:
    """Let bfloat16 weights go on from the float32 values that their masters kept."""
    precision, folder = work.exp.precision, work.run.path / RACK
    if precision.master != "fp32" or precision.weights == "float32":
        return
    if not (folder / MANIFEST).exists():  # the first stage of all
        return
    manifest = read_manifest(folder)
    for part in sorted({part for part, _ in named} & work.rack.stacks.keys()):
        if f"{part}.{MASTER}" in manifest["parts"]:  # verified when the stack was loaded from it
            values = read_part(folder, manifest, f"{part}.{MASTER}", verify=False)
            for (owner, name), parameter in named.items():
                if owner == part:
                    exact = values[name].to(parameter.device)
                    delta = work.merged.get(part, {}).get(name)
                    optimizer.put(parameter, exact if delta is None else exact + delta)


def load(work: Work, stack: str, form: str | None) -> None:
    """Fill a stack from the last checkpoint."""
    folder = work.run.path / RACK
    manifest = read_manifest(folder)
    master = f"{stack}.{MASTER}"
    name = master if form is None and master in manifest["parts"] else stack
    put(work.rack, stack, read_part(folder, manifest, name), folder, form)
    work.rack.stacks[stack].to(work.device)
