"""A run, read from its folder alone; another process may be writing it meanwhile.

    runs/<run-id>/
      experiment.yaml  placement.yaml  stages.json   what was asked, where, and what is executed
      provenance.json  plan.json                     where the numbers come from; what was predicted
      pace.json                                      what the clock decided, if the budget is a time
      events.jsonl  metrics/0001.arrows              what happened; the numbers of every step
      status.json  exit.json  lock                   how it stands; how it ended; who trains it now
      control/0001.json  log.txt  supervisor         what it was asked; of a detached run, what its
                                                     processes said, and who looks after it
      labels.json                                    name, note and tags
      code/                                          files of the user's own that bring kinds
      rack/  state/  best/                           weights, one safetensors file per part
      earlier/  bests/                               checkpoints before, more than one best
      tokenizer.json  metrics.parquet                made at the start; at the end
      drift.safetensors  pruned.json                 of the stage in hand; what was removed later
      start/                                         of the model that it began with, if any

Nothing inside is an absolute path, so a run can be moved, zipped and opened elsewhere. Runs are
made and found in `listing.py`, written by `writer.py`, and asked to pause or stop by `control.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from stackwise.runs.control import ask, is_stopping
from stackwise.runs.damage import RESTORE, DamagedRun, RunError
from stackwise.runs.labels import Labels, read_labels, write_labels
from stackwise.runs.lock import SUPERVISOR, is_held
from stackwise.runs.measured import Measured
from stackwise.runs.parting import delete_run, zip_run
from stackwise.runs.pruned import pruned_text
from stackwise.runs.records import MANIFEST
from stackwise.runs.standing import way_out

if TYPE_CHECKING:
    from stackwise.config import Placement
    from stackwise.data.tokenizer import Tokenizer
    from stackwise.detached.watchdog import Watchdog
    from stackwise.model.rack import Rack
    from stackwise.training.earlier import Kept

READS, WAIT_SECONDS = 5, 0.05


class Run(Measured):
    """One run, read from its folder.

    Args:
        path: The run's folder.

    Raises:
        RunError: If the folder is not a run.
    """

    def trust(self) -> Self:
        """Import the code that it carries: it runs as you, so read it first.

        Raises:
            RunError: If a file is not the one that the run began with.
            ExperimentError: If one cannot be imported, or replaces what StackWise ships.
        """
        from stackwise.runs.carried import check_trusted

        check_trusted(self, trust=True)
        return self

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the run was trained with."""
        from stackwise.data.tokenizer import read_tokenizer

        path = self.path / "tokenizer.json"
        if not path.exists():
            raise DamagedRun(f"run {self.id}: tokenizer.json is missing; {RESTORE}")
        self.compare(path.name)
        return read_tokenizer(path)

    def rack(
        self,
        *,
        best: bool | int = False,
        raw: bool = False,
        device: str = "cpu",
        lent: Literal["disk", "host"] | None = None,
        checkpoint: int | None = None,
    ) -> Rack:
        """The model as the last checkpoint holds it, or the best one of the last stage.

        What trains is read at its moving average if there is one, as it will be frozen and as it
        is measured; a finished run has no other weights.

        Args:
            best: The weights of the lowest held-out loss in the last stage, not the last ones; 2
                for those of the second lowest, ..., as far as placement.keep_best keeps them.
            raw: Of a run that is not finished, the weights themselves and not their average.
            device: Where to.
            lent: For a rack that does not fit: leave the matrices of stacks that do not train any
                more in their files (`disk`), or in a copy in host memory, and read a few blocks at
                a time as they are needed. Every file is read through once before, to compare its
                hash.
            checkpoint: The step of an earlier one, of those that `checkpoints` lists; None for the
                last.

        Raises:
            CheckpointError: If there is none yet, or it is damaged.
            ValueError: If both an earlier checkpoint and the best weights are asked for.
        """
        import torch

        from stackwise.training.manifest import CheckpointError, CheckpointReplaced, NoCheckpoint
        from stackwise.training.restoring import read_rack

        if checkpoint is not None and best:
            raise ValueError("rack: best weights are of the last checkpoint; ask for one of both")
        if checkpoint is None and not self.has_weights():
            if "weights" in self.pruned():
                raise CheckpointError(f"run {self.id}: {pruned_text(self.path)}; train it again")
            state = self.state
            if state == "finished":
                lost = f"is finished, but its rack/{MANIFEST} is missing; {RESTORE}"
                raise CheckpointError(f"run {self.id}: {lost}")
            raise NoCheckpoint(f"run {self.id}: has no checkpoint yet; it is {state}")

        read = partial(
            read_rack,
            self,
            best=best,
            raw=raw,
            device=torch.device(device),
            lent=lent,
            checkpoint=checkpoint,
        )
        for _ in range(READS - 1):
            try:
                return read()
            except CheckpointReplaced:
                continue  # the run goes on, and wrote a newer one meanwhile
        return read()

    def checkpoints(self) -> list[Kept]:
        """The checkpoints that there are, the newest first; each is named by its step."""
        from stackwise.training.earlier import checkpoints_of

        return checkpoints_of(self)

    @property
    def labels(self) -> Labels:
        """Its name, note and tags."""
        return read_labels(self.path)

    def label(
        self,
        *,
        name: str | None = None,
        note: str | None = None,
        tags: Iterable[str] | None = None,
    ) -> Labels:
        """Change its name, note or tags; what is None stays, what is empty goes.

        Raises:
            ValueError: If one is no text, is too long, or holds characters that do not print.
        """
        return write_labels(self.path, name=name, note=note, tags=tags)

    def what_now(self) -> str | None:
        """What to do about it, if it is in a state that is none to stay in."""
        return way_out(self.state, self)

    def pause(self) -> None:
        """Hold it after the step in hand, saved and with all that it has in memory."""
        if self.is_live:
            ask(self.path, "pause")

    def resume(
        self,
        placement: Placement | Mapping[str, Any] | None = None,
        *,
        queue: bool = True,
        mirror: str | None = None,
        alert: str | None = None,
        watchdog: Watchdog | float | None = None,
        trust: bool = False,
    ) -> Run:
        """Let it go on: a paused one as it is, a stopped, failed or dead one in a new process.

        Args:
            placement: How to carry it out from here on, as for `sw.resume`; only of one that is
                not live.
            queue: Wait while another run has the device; False: start beside it.
            mirror: As for `sw.launch`; only of one that is not live.
            alert: As for `sw.launch`; only of one that is not live.
            watchdog: As for `sw.launch`; only of one that is not live.
            trust: Import the code that it carries, if it does.

        Raises:
            ExperimentError: If the placement cannot be had here.
            TrustError: If it carries code that is neither known here nor trusted.
            RunError: If no process could be started, or one that is live is to be moved.
        """
        from stackwise.detached.launch import relaunch

        if not self.is_live or is_stopping(self.path, self.status()):
            return relaunch(
                self,
                placement,
                queue=queue,
                mirror=mirror,
                alert=alert,
                watchdog=watchdog,
                trust=trust,
            )
        if placement is not None:
            raise RunError(f"run {self.id}: is {self.state}; stop it first, then move it")
        if mirror or alert or watchdog:
            raise RunError(f"run {self.id}: is {self.state}; stop it first, then say so again")
        ask(self.path, "resume")
        return self

    def stop(self, *, now: bool = False, patience: float | None = None) -> None:
        """End it; returns at once, and `wait` returns when it has ended.

        Args:
            now: In the middle of its step, back to its last checkpoint; else after the step in
                hand, saved.
            patience: Seconds after which a stop that is not obeyed becomes one `now`; None: a
                minute, or five of its steps if those are longer.
        """
        if self.is_live:
            ask(self.path, "stop-now" if now else "stop", patience=patience)
            if now:
                from stackwise.detached.orphans import interrupt_orphan

                interrupt_orphan(self.path)

    def wait(self, timeout: float | None = None) -> str:
        """Wait until it has ended and all that is said of that, or for `timeout` seconds.

        Returns:
            Its state by then.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self.is_live or is_held(self.path, SUPERVISOR):
            if time.monotonic() > deadline:
                break
            time.sleep(WAIT_SECONDS)
        return self.state

    def fork(
        self,
        *,
        after_stage: int,
        placement: Placement | Mapping[str, Any] | None = None,
        launch: bool = True,
        queue: bool = True,
        trust: bool = False,
        **changes: Any,
    ) -> Run:
        """Branch from a finished stage: a new run that goes on from there under other settings.

        Args:
            after_stage: The stage's number.
            placement: How the new run is carried out, as for `sw.resume`; None for as this one.
            launch: Start it in a process of its own; else only make its folder, which
                `sw.resume` trains here.
            queue: As for `resume`.
            trust: As for `resume`; the new run carries the same code.
            changes: What its experiment has otherwise, as for `Experiment.replace`.

        Raises:
            ExperimentError: If the stage's end is not kept, the changes would alter what it holds,
                or the stages after it do not follow on it.
        """
        from stackwise.detached.launch import relaunch
        from stackwise.runs.carried import check_trusted
        from stackwise.training.forking import fork
        from stackwise.training.moving import changed_placement

        check_trusted(self, trust)
        place = None if placement is None else changed_placement(self, placement)
        made = fork(self, after_stage, changes, place)
        return relaunch(made, queue=queue, trust=trust) if launch else made

    def delete(self) -> list[Path]:
        """Remove its folder; of a link to a run's folder, the link alone.

        Returns:
            Folders elsewhere that are left, since they may be another run's: that of its caches,
            if it has one outside of its own folder, and what a link led to.

        Raises:
            RunBusy: If it is live.
            OSError: If it cannot be removed.
        """
        return delete_run(self)

    def share(self, path: str | Path, *, weights: bool = True) -> Path:
        """Pack it into a zip file, or show it on one HTML page, by the ending of `path`.

        Args:
            path: The file to write.
            weights: Whether they go into the zip file.

        Raises:
            RunError: If the ending is another one, or there is no such folder.
            CheckpointReplaced: If each time a newer checkpoint was written while it was packed.
            OSError: If the file cannot be written.
        """
        target = Path(path)
        if not target.parent.is_dir():
            raise RunError(f"{target.parent}: no such folder; make it, or name another")
        if target.suffix == ".zip":
            zip_run(self, target, weights=weights)
        elif target.suffix in (".html", ".htm"):
            from stackwise_widgets import write_page

            write_page(self, target)
        else:
            raise RunError(f"{target}: ends in {target.suffix!r}; name a .zip or .html file")
        return target

    def weights_hash(self) -> str:
        """One hash over the weights: equal weights, equal hashes."""
        from stackwise.training.manifest import weights_hash

        return weights_hash(self.path / "rack")
