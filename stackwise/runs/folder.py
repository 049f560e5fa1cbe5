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
      start/                                         of the model that it began with, if any

Nothing inside is an absolute path, so a run can be moved, zipped and opened elsewhere. Runs are
made and found in `listing.py`, written by `writer.py`, and asked to pause or stop by `control.py`.
"""

from __future__ import annotations

import errno
import math
import time
import warnings
from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from stackwise import versions
from stackwise.atomic import sha256_of
from stackwise.bounded import is_plain_file, read_text
from stackwise.jsontext import loads, read_mapping
from stackwise.printing import printable
from stackwise.runs.control import ask, is_stopping
from stackwise.runs.damage import RESTORE as RESTORE
from stackwise.runs.damage import DamagedRun as DamagedRun
from stackwise.runs.damage import RunError as RunError
from stackwise.runs.damage import blamed_on
from stackwise.runs.disk_use import disk_of
from stackwise.runs.events import Event, found_in
from stackwise.runs.frames import evals_of, memory_of
from stackwise.runs.heartbeat import silent_seconds
from stackwise.runs.labels import Labels, read_labels, write_labels
from stackwise.runs.layers import layers_of
from stackwise.runs.lock import SUPERVISOR, boot, is_held
from stackwise.runs.log import last_lines
from stackwise.runs.metrics import read_metrics
from stackwise.runs.parting import delete_run, zip_run
from stackwise.runs.pruned import pruned_of, pruned_text
from stackwise.runs.standing import LIVE, state_of, way_out
from stackwise.runs.statistics import drift_of, statistics_of
from stackwise.runs.tail import last_event
from stackwise.seals import opened
from stackwise.versions import VersionError, run_version, since

if TYPE_CHECKING:
    import pandas as pd

    from stackwise.config import Experiment, Placement
    from stackwise.data.tokenizer import Tokenizer
    from stackwise.detached.watchdog import Watchdog
    from stackwise.model.rack import Rack
    from stackwise.training.earlier import Kept

READS, WAIT_SECONDS = 5, 0.05
LARGEST = 32 << 20  # bytes of a JSON file
NO_FILE = (errno.ELOOP, errno.EINVAL)  # a link, a pipe or a device where a file should be
GOES_ON = "nothing but this is lost: resume the run, and it is written anew"
STAGES = "stages.json"
MANIFEST = "manifest.json"  # of a checkpoint; what is in it is said in `training/checkpoint.py`


class Run:
    """One run, read from its folder.

    Args:
        path: The run's folder.

    Raises:
        RunError: If the folder is not a run.
    """

    def __init__(self, path: str | Path) -> None:
        self._named = Path(path)
        if not is_run(self._named):
            raise RunError(f"{self._named}: is not a run (it has no stages.json)")
        self._whole = self._named.absolute()

    def __repr__(self) -> str:
        return f"Run({self.id!r}, {self.state})"

    @property
    def path(self) -> Path:
        """Its folder: as it was named, and from the root on once that would lead elsewhere."""
        try:
            same = self._named.absolute() == self._whole
        except OSError:  # the folder in which this process works is gone
            same = False
        return self._named if same else self._whole

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def state(self) -> str:
        """How it stands, as `standing.py` lists."""
        try:
            return state_of(self.path, self.status())
        except RunError:
            return "damaged"

    @property
    def is_live(self) -> bool:
        """Whether a process trains it, or is about to."""
        return self.state in LIVE

    def status(self) -> dict[str, Any]:
        """How it stands: state, stage, step, loss, seconds left, heartbeat; empty if only made."""
        there = (self.path / "status.json").exists()
        return dict(self._read("status.json", way_out=GOES_ON)) if there else {}

    @cached_property
    def experiment(self) -> Experiment:
        """What was asked; a curriculum that lived in a notebook cell is known by name only.

        Raises:
            TrustError: If it names a kind of code that the run carries and that is not imported.
            ExperimentError: If it cannot be one.
            DamagedRun: If it is not the one that was written.
        """
        from stackwise.config import Experiment
        from stackwise.errors import ExperimentError, TrustError

        self.compare("experiment.yaml")
        try:
            return Experiment.load(self.path / "experiment.yaml", opening_run=True)
        except ExperimentError as error:
            from stackwise.runs.carried import lacks_code, untrusted

            if not lacks_code(self):
                raise
            raise TrustError([*untrusted(self).problems, *error.problems]) from None

    def forget_experiment(self) -> None:
        """Read experiment.yaml again when it is next asked for: more kinds are known by now."""
        self.__dict__.pop("experiment", None)

    def carries(self) -> dict[str, str]:
        """The files of code in its folder `code/`, each with its sha256; most runs have none.

        Raises:
            RunError: If provenance.json is damaged.
        """
        from stackwise.runs.carried import listed

        if not (self.path / "provenance.json").exists():
            return {}
        try:
            return listed(self.provenance())
        except RunError:
            raise
        except ValueError as error:
            raise RunError(
                f"run {self.id}: provenance.json is damaged: {error}; {RESTORE}"
            ) from None

    def trust(self) -> Self:
        """Import the code that it carries: it runs as you, so read it first.

        Raises:
            RunError: If a file is not the one that the run began with.
            ExperimentError: If one cannot be imported, or replaces what StackWise ships.
        """
        from stackwise.runs.carried import check_trusted

        check_trusted(self, trust=True)
        return self

    def stages(self) -> list[dict[str, Any]]:
        """What is executed; where the budget is a time, as the clock has decided by now.

        Raises:
            RunError: If the file is missing or damaged, or a newer StackWise wrote the run.
        """
        launched = self.launched_stages()
        if not self.is_paced:
            return launched
        from stackwise.runs.pace import stages_as_paced

        return stages_as_paced(self, launched)

    def launched_stages(self) -> list[dict[str, Any]]:
        """The stages as the run was launched with them."""
        found = self._rows(STAGES)
        try:
            version = run_version(self.path)
        except VersionError as error:
            raise RunError(f"run {self.id}: provenance.json: {error}") from None
        return [since(versions.STAGES, stage, version) for stage in found]

    @property
    def is_paced(self) -> bool:
        """Whether its stages follow the clock, since its budget is a time."""
        return (self.path / "pace.json").exists()

    def plan(self) -> list[dict[str, Any]]:
        """What was predicted of each stage: FLOPs, bytes by category, by part and by block."""
        rows = self._rows("plan.json")
        if not self.is_paced:
            return rows
        from stackwise.runs.pace import plan_as_paced

        return plan_as_paced(rows, self.stages())

    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from."""
        return dict(self._read("provenance.json"))

    def determinism(self) -> dict[str, Any]:
        """Whether it comes out the same to the last bit when it is trained again, as it stands now.

        Returns:
            `promised`, None where the run does not say; `why_not`, sentences; `same`, what of
            machine and placement has to be the same for it.
        """
        from stackwise.determinism import CHANGED, promised_by

        return promised_by(self.provenance(), self.events(CHANGED))

    def error(self) -> str | None:
        """Why its last attempt failed or died, or what of its folder is damaged; else None."""
        try:
            state = self.state
            if state in ("failed", "died") and (why := self._last_word()) is not None:
                return why
            if state == "died":
                return "its process is gone, without a word"
            if state == "failed":
                return "it failed, and could not write down why"
            self.status(), self.stages()
            if not self.result() and state == "finished":
                return f"events.jsonl is damaged: it holds no result; {RESTORE}"
        except (RunError, OSError) as error:
            return str(error)
        return None

    def _last_word(self) -> str | None:
        """Why its last attempt ended as it did, as that wrote it down; not what one before said."""
        if not (self.path / "exit.json").exists():
            return None
        said, status = self._read("exit.json", way_out=GOES_ON), self.status()
        same = said.get("attempt") == status.get("attempt")
        if not same or said.get("state", status.get("state")) != status.get("state"):
            return None
        return None if said.get("error") is None else str(said["error"])

    def events(self, kind: str | None = None) -> list[Event]:
        """What happened, oldest first. A line that was damaged is left out, with a warning."""
        behind = read_mapping(self.path / "rack" / MANIFEST).get("events", 0)
        found, lines, damaged = found_in(self.path / "events.jsonl", kind)
        lost = damaged + max(0, (behind if isinstance(behind, int) else 0) - lines)
        if lost:
            warnings.warn(
                f"run {printable(self.id)}: events.jsonl is damaged: {lost} of its lines are "
                "missing or not what was written, and left out; restore it from a copy of the run",
                stacklevel=2,
            )
        return found

    def metrics(self, *, gaps: bool = False) -> pd.DataFrame:
        """The numbers of every step so far, one row each; at most a second old.

        Args:
            gaps: Of a run whose metrics are damaged, give those rows that are whole.

        Raises:
            DamagedRun: If rows are damaged or missing, and gaps are not wanted.
        """
        with blamed_on(self, "metrics/"):
            return read_metrics(self.path, gaps=gaps)

    def evals(self) -> pd.DataFrame:
        """Held-out measurements, one row each; those of steps that were taken again count once."""
        with blamed_on(self, "events.jsonl"):
            return evals_of(self)

    def layers(self) -> pd.DataFrame:
        """Held-out loss at every depth, at every look: one row per look and exit."""
        with blamed_on(self, "events.jsonl"):
            return layers_of(self)

    def statistics(self) -> pd.DataFrame:
        """Sizes of activations, gradients and updates, at every look: one row per block."""
        with blamed_on(self, "events.jsonl"):
            return statistics_of(self)

    def drift(self) -> pd.DataFrame:
        """How far predictions and outputs of stacks moved over each stage after the first."""
        with blamed_on(self, "events.jsonl"):
            return drift_of(self)

    def memory(self) -> pd.DataFrame:
        """Bytes by category of each stage: predicted by arithmetic, and measured."""
        with blamed_on(self, "plan.json or events.jsonl"):
            return memory_of(self)

    def result(self) -> dict[str, Any]:
        """What a finished run came to; empty before."""
        events = self.path / "events.jsonl"
        return last_event(events, "result", whole=self.state == "finished") or {}

    def summary(self) -> dict[str, Any]:
        """One line of a list of runs. Never raises: what is damaged is named under `problem`.

        Keys: id, name, state, problem, stage and stages (done so far, of how many), step, loss,
        seconds_left, heartbeat_age_seconds, bits_per_byte, parameters, flops, peak_bytes, seconds,
        disk_bytes, disk_predicted_bytes (of `disk`), pruned; None where it is not known.
        """
        try:
            status, result, stages, problem = self.status(), self.result(), self.stages(), None
        except (RunError, OSError) as error:
            status, result, stages, problem = {}, {}, [], str(error)
        silence, disk = silent_seconds(status, self.path, boot()), self.disk()
        return {
            "id": self.id,
            "name": read_labels(self.path).name,
            "state": "damaged" if problem else self.state,
            "problem": problem,
            "stages": len(stages) or None,
            **{key: status.get(key) for key in ("stage", "step", "loss", "seconds_left")},
            "heartbeat_age_seconds": None if math.isnan(silence) else silence,
            **{
                key: result.get(key)
                for key in ("bits_per_byte", "parameters", "flops", "peak_bytes", "seconds")
            },
            "pruned": list(self.pruned()),
            "disk_bytes": disk["bytes"],
            "disk_predicted_bytes": disk["predicted_bytes"],
        }

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the run was trained with."""
        from stackwise.data.tokenizer import read_tokenizer

        path = self.path / "tokenizer.json"
        if not path.exists():
            raise DamagedRun(f"run {self.id}: tokenizer.json is missing; {RESTORE}")
        self.compare(path.name)
        return read_tokenizer(path)

    def disk(self) -> dict[str, Any]:
        """What its folder takes on disk now, and the most that was predicted.

        Returns:
            `bytes`, in blocks of the disk, a file with two names once; `by`, the same by folder of
            the run, `records` for what lies in none; `predicted_bytes`, of checkpoints and caches
            at their worst moment, None of a run of an older version.
        """
        return disk_of(self)

    def pruned(self) -> tuple[str, ...]:
        """What was removed of it by `sw.prune`: state, earlier, stages, ..., weights."""
        return pruned_of(self.path)

    def compare(self, name: str) -> None:
        """Compare a file that stays as it was made with the hash that was written down then.

        Older runs have none; what is missing, here or there, is said by whoever needs it.

        Raises:
            DamagedRun: If it is another one.
        """
        try:
            files = self.provenance().get("files")
        except RunError:
            return
        path = self.path / name
        written = files.get(name) if isinstance(files, dict) else None
        if written is not None and is_plain_file(path) and sha256_of(path) != written:
            raise DamagedRun(
                f"run {self.id}: {name} is not the one that was written when the run was made (its "
                f"hash differs); {RESTORE.replace('it', name, 1)}"
            )

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

        from stackwise.training.checkpoint import (
            CheckpointError,
            CheckpointReplaced,
            NoCheckpoint,
        )
        from stackwise.training.saved import read_rack

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

    def stages_done(self) -> int:
        """How many stages are done and saved."""
        if self.state == "finished":
            return len(self.stages())
        if not self.has_weights():
            return 0
        counters = self._read(f"rack/{MANIFEST}").get("counters")
        done = counters.get("stage") if isinstance(counters, dict) else None
        if isinstance(done, bool) or not isinstance(done, int):
            raise DamagedRun(f"run {self.id}: rack/{MANIFEST} is damaged; {RESTORE}")
        return done

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

    def log(self, lines: int = 20) -> list[str]:
        """The last lines that its processes said; nothing of a run that was not launched."""
        return last_lines(self.path, lines)

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

    def has_weights(self) -> bool:
        """Whether there is a checkpoint of it."""
        return (self.path / "rack" / MANIFEST).is_file()

    def weights_hash(self) -> str:
        """One hash over the weights: equal weights, equal hashes."""
        from stackwise.training.checkpoint import weights_hash

        return weights_hash(self.path / "rack")

    def _rows(self, name: str) -> list[dict[str, Any]]:
        """A JSON file of the run that holds a list of mappings."""
        rows = list(self._read(name, list))
        if not all(isinstance(row, dict) for row in rows):
            raise DamagedRun(f"run {self.id}: {name} is damaged; {RESTORE}")
        return rows

    def _read(
        self,
        name: str,
        kind: type[dict[str, Any]] | type[list[Any]] = dict,
        way_out: str = RESTORE,
    ) -> Any:
        """A JSON file of the run, if it is what was written."""
        path = self.path / name
        try:
            value = loads(read_text(path, LARGEST))
            if isinstance(value, dict):
                value = opened(value)
            elif isinstance(value, list):
                value = [opened(each) if isinstance(each, dict) else each for each in value]
        except FileNotFoundError:
            raise DamagedRun(f"run {self.id}: {name} is missing; {RESTORE}") from None
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_FILE:
                raise
            value = None
        if not isinstance(value, kind):
            raise DamagedRun(f"run {self.id}: {name} is damaged; {way_out}")
        return value


def is_run(path: Path) -> bool:
    """Whether a folder is a run: stages.json, which is made last, is there."""
    try:
        return is_plain_file(path / STAGES)
    except ValueError:  # a name with a zero in it
        return False
