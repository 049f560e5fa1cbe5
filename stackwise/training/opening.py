"""Bring a run folder to life: under its lock, on its device, from its last checkpoint or nothing.

What is open then is in `work.py`; what a run folder, a placement and this machine amount to in
`start.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext

import torch

from stackwise.atomic import write_text
from stackwise.completion import packing
from stackwise.config import Experiment, Placement
from stackwise.data.batches import epoch_order, samples_per_epoch
from stackwise.memory.bytes import plan_rows
from stackwise.memory.meter import Meter
from stackwise.model.adapters import check_package
from stackwise.model.codes import operators
from stackwise.model.formats import format_called
from stackwise.probing import as_probed, asked_probes, bounded_probes
from stackwise.rules import check_placement
from stackwise.runs import Run, RunWriter
from stackwise.runs.listing import write_plan
from stackwise.stage import Stage
from stackwise.training.caching import caches_of, drop_caches
from stackwise.training.checkpoint import MANIFEST
from stackwise.training.ownership import check_files
from stackwise.training.parts import empty_rack
from stackwise.training.placing import check_disk
from stackwise.training.residence import begin_ends
from stackwise.training.saved import RACK, restore
from stackwise.training.start import (
    data_of,
    device_of,
    lent_from,
    seen_from_here,
    stages_of,
    threads_of,
)
from stackwise.training.updates import OPTIMIZERS
from stackwise.training.work import Work
from stackwise.trunk.shelf import Shelf


@contextmanager
def open_work(run: Run, placement: Placement | None = None) -> Iterator[Work]:
    """Bring a run folder to life, from its last checkpoint or from nothing.

    Args:
        run: The run.
        placement: How to carry it out from here on, its folders seen from the run's; None for the
            one in the folder.

    Raises:
        ExperimentError: If the placement names a device that is not here, or a package is missing,
            or a disk has no room for what is left of the run.
        RunBusy: If another process is training it.
        TrainingError: If the corpus is no longer the one that the run began with.
        CheckpointError: If its checkpoint is damaged.
    """
    before = Placement.load(run.path / "placement.yaml")
    placement = placement or before
    stages = stages_of(run)
    exp = as_probed(run.experiment, stages)
    device = device_of(placement)
    check_placement(exp, placement, goes_on=True)
    dataset = data_of(run, placement)
    old, new = caches_of(run, before), caches_of(run, placement)
    leaves = None if old == new else old
    here, samples = seen_from_here(run.path, placement), samples_per_epoch(dataset, exp.optim.batch)
    check_disk(exp, here, stages, samples, run.path, new, leaves)
    with threads_of(placement), RunWriter(run.path) as writer:
        writer.event("opened", device=name_of(device), threads=torch.get_num_threads())
        load_packages(exp, placement, stages)
        epoch_order(dataset.n_samples, exp.seed, 0)  # kept; it is the data's, not the rack's
        meter = Meter(device)
        if meter.blind is not None:
            writer.event("peak_unknown", why=meter.blind)
        rack = empty_rack(exp, device)
        lent = lent_from(placement)
        shelf = None if lent is None else Shelf(rack, run.path / RACK, device, lent)
        work = Work(run, exp, placement, stages, dataset, device, rack, writer, meter, shelf)
        say_what_is_cut(work)
        if (run.path / RACK / MANIFEST).exists():
            restore(work)
        else:
            check_files(run)
        begin_ends(work)
        if placement != before:
            write_placement(work, before)
            if leaves is not None:
                drop_caches(leaves)
        with closing(shelf) if shelf is not None else nullcontext():
            yield work


def say_what_is_cut(work: Work) -> None:
    """Write down that looks are fewer than the experiment asks for, or take more than they may."""
    asked = asked_probes(work.run.experiment, work.stages)
    done = bounded_probes(work.run.experiment, work.stages)
    changed = {
        key: [getattr(asked, key), getattr(done, key)]
        for key in ("points", "depths", "drift")
        if getattr(asked, key) != getattr(done, key)
    }
    if changed:
        shares = {"asked_frac": asked.frac, "frac": done.frac, "bound": done.bound}
        work.writer.event("probes_bounded", changed=changed, **shares, fits=done.fits)


def load_packages(exp: Experiment, placement: Placement, made: Sequence[Stage]) -> None:
    """Import what the run needs beside torch now, so that it is not counted as the rack's.

    It would be more than a small rack (`tests/integration/test_the_meter_measures_memory.py`).
    Torch's compiler is one of these where blocks are compiled, and where it has to be told what not
    to look into: frozen layers, recomputation.
    """
    form, rule = packing(exp.precision), OPTIMIZERS[exp.optim.name]
    if form is not None or placement.checkpointing or placement.compile:
        importlib.import_module("torch._dynamo")
    if form is not None:
        format_called(form).load(made=True)
    if rule.bitsandbytes:
        operators()
    if any(stage.adapters for stage in made):
        check_package()
        importlib.import_module("peft")


def name_of(device: torch.device) -> str:
    """A device as people call it."""
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def write_placement(work: Work, before: Placement) -> None:
    """Put down that the run is carried out otherwise from here on, and what that will take."""
    old, new = before.model_dump(mode="json"), work.placement.model_dump(mode="json")
    done = work.run.plan()[: work.at.stage]
    rows = plan_rows(work.exp, work.placement, work.stages)[work.at.stage :]
    write_plan(work.run.path, [*done, *rows])
    write_text(work.run.path / "placement.yaml", work.placement.to_yaml())  # last: it commits both
    changed = {key: [old[key], new[key]] for key in new if new[key] != old[key]}
    work.writer.event("placement_changed", changed=changed)
