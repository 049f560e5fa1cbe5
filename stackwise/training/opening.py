"""Bring a run folder to life: under its lock, on its device, from its last checkpoint or nothing.

What is open then is in `work.py`; what a run folder, a placement and this machine amount to in
`start.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from stackwise.atomic import write_text
from stackwise.bounded import check_no_links
from stackwise.completion import packing
from stackwise.config import Experiment, Placement
from stackwise.data.batches import epoch_order, samples_per_epoch
from stackwise.determinism import promised_here
from stackwise.memory.bytes import plan_rows
from stackwise.memory.disk_rows import with_disk
from stackwise.memory.meter import Meter
from stackwise.memory.room import check_room
from stackwise.model.adapters import check_package
from stackwise.model.codes import operators
from stackwise.model.formats import format_called
from stackwise.probing import as_probed, asked_probes, bounded_probes
from stackwise.rules import check_placement
from stackwise.runs import Run, RunBusy, RunWriter, lock, status
from stackwise.runs.listing import write_plan
from stackwise.runs.records import MANIFEST
from stackwise.stage import Stage
from stackwise.training.caching import caches_of, drop_caches
from stackwise.training.changed import data_of
from stackwise.training.checkpoint import tidy
from stackwise.training.earlier import forget_earlier
from stackwise.training.kept_stages import FOLDER as STAGES
from stackwise.training.kept_stages import drop_drafts
from stackwise.training.ownership import BEST, RACK, check_files, own_manifest
from stackwise.training.pacer import pacer_of, take_up
from stackwise.training.parts import check_held, empty_rack
from stackwise.training.placing import check_disk
from stackwise.training.refusing import memory_named
from stackwise.training.residence import begin_ends
from stackwise.training.restoring import restore
from stackwise.training.same_bits import computing_alike, tell_changes
from stackwise.training.stage_drift import forget_beginning
from stackwise.training.start import (
    device_of,
    lent_from,
    seen_from_here,
    stages_of,
)
from stackwise.training.updates import OPTIMIZERS
from stackwise.training.work import Work
from stackwise.trunk.shelf import Shelf

if TYPE_CHECKING:
    from stackwise.mirrors.mirror import Mirror


@contextmanager
def open_work(
    run: Run, placement: Placement | None = None, *, mirror: Mirror | None = None
) -> Iterator[Work]:
    """Bring a run folder to life, from its last checkpoint or from nothing.

    Args:
        run: The run.
        placement: How to carry it out from here on, its folders seen from the run's; None for the
            one in the folder.
        mirror: What copies its checkpoints elsewhere, if anything does.

    Raises:
        ExperimentError: If the placement names a device that is not here, or a package is missing,
            or memory or a disk has no room for what is left of the run.
        RunBusy: If another process is training it.
        OSError: If a link in its folder leads out of it.
        Changed: If the corpus, or the model, is no longer the one that the run began with.
        NoMemory: If memory runs out.
        CheckpointError: If its checkpoint is damaged.
    """
    check_no_links(run.path)
    seen = status.read(run.path)
    before = Placement.load(run.path / "placement.yaml")
    placement = placement or before
    pacer = pacer_of(run)
    stages = stages_of(run) if pacer is None else pacer.launched
    exp = as_probed(run.experiment, stages)
    device = device_of(placement)
    check_placement(exp, placement, goes_on=True)
    check_room(plan_rows(exp, placement, stages), placement)
    dataset = data_of(run, placement)
    old, new = caches_of(run, before), caches_of(run, placement)
    leaves = None if old == new else old
    here, samples = seen_from_here(run.path, placement), samples_per_epoch(dataset, exp.optim.batch)
    copied = mirror is not None
    check_disk(exp, here, stages_of(run), samples, run.path, new, leaves, mirrored=copied)
    worked = None if pacer is None else pacer.clock.seconds
    with (
        computing_alike(run, placement, device),
        held_as_seen(run, seen) as held,
        RunWriter(run.path, worked=worked, held=held) as writer,
        memory_named(run, placement),
    ):
        writer.event("opened", device=name_of(device), threads=torch.get_num_threads())
        load_packages(exp, placement, stages)
        epoch_order(dataset.n_samples, exp.seed, 0)  # kept; it is the data's, not the rack's
        meter = Meter(device)
        if meter.blind is not None:
            writer.event("peak_unknown", why=meter.blind)
        if (run.path / RACK / MANIFEST).exists():
            check_held(exp, run.path / RACK, own_manifest(run, RACK), ends=False)
        rack = empty_rack(exp, device)
        lent = lent_from(placement)
        shelf = None if lent is None else Shelf(rack, run.path / RACK, device, lent)
        work = Work(run, exp, placement, stages, dataset, device, rack, writer, meter, shelf, pacer)
        if mirror is not None:
            work.mirror = mirror
            mirror.speak(writer)
        say_what_is_cut(work)
        if (run.path / RACK / MANIFEST).exists():
            restore(work)
            forget_earlier(work, later=False)
            tidy_up(work)
        else:
            check_files(run)
        take_up(work)
        if work.needs_model():  # said now, and not when its stage comes
            assert work.model is not None
        now = promised_here(run.experiment, placement, device.type)
        tell_changes(run, writer, now, work.at.total_steps)
        begin_ends(work)
        if placement != before:
            write_placement(work, before)
            if leaves is not None:
                drop_caches(leaves)
        with closing(shelf) if shelf is not None else nullcontext():
            yield work


@contextmanager
def held_as_seen(run: Run, seen: Mapping[str, Any]) -> Iterator[lock.Lock]:
    """Hold a run, if nobody has trained it since it was looked at.

    Args:
        run: The run.
        seen: What its status.json said then.

    Raises:
        RunBusy: If another process trains it, or has meanwhile.
    """
    with lock.take(run.path) as held:
        if status.read(run.path).get("attempt") != seen.get("attempt"):
            raise RunBusy(f"run {run.id}: another process has just trained it; ask again")
        yield held


def tidy_up(work: Work) -> None:
    """Remove what an attempt that was killed had not come to remove; nothing that counts."""
    for name in (RACK, BEST):
        tidy(work.run.path / name)
    drop_drafts(work.run.path / STAGES)
    if not work.at.step:
        forget_beginning(work)


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
    rows = with_disk(
        plan_rows(work.exp, work.placement, work.stages),
        work.exp,
        work.placement,
        work.stages,
        work.epoch_samples,
    )[work.at.stage :]
    write_plan(work.run.path, [*done, *rows])
    write_text(work.run.path / "placement.yaml", work.placement.to_yaml())  # last: it commits both
    changed = {key: [old[key], new[key]] for key in new if new[key] != old[key]}
    work.writer.event("placement_changed", changed=changed)
