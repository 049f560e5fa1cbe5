"""A run's own records, each compared with what was written before it is believed.

What it measured is in `measured.py`; what can be done with it in `folder.py`.
"""

from __future__ import annotations

import errno
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise import versions
from stackwise.atomic import sha256_of
from stackwise.bounded import is_plain_file, read_text
from stackwise.jsontext import loads
from stackwise.runs.damage import RESTORE, DamagedRun, RunError
from stackwise.runs.pruned import pruned_of
from stackwise.runs.standing import LIVE, state_of
from stackwise.seals import opened
from stackwise.versions import VersionError, run_version, since

if TYPE_CHECKING:
    from stackwise.config import Experiment

LARGEST = 32 << 20  # bytes of a JSON file
MOST_ROWS = 10_000  # in one; as many stages as a curriculum may have (curriculum.py)
NO_FILE = (errno.ELOOP, errno.EINVAL, errno.EISDIR)  # a link, a pipe, a folder instead of a file
GOES_ON = "nothing but this is lost: resume the run, and it is written anew"
STAGES = "stages.json"
MANIFEST = "manifest.json"  # of a checkpoint; what is in it is said in `training/manifest.py`


class Records:
    """What was asked of a run, how it stands, and where its numbers come from.

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
        except (RunError, OSError):
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

    def has_weights(self) -> bool:
        """Whether there is a checkpoint of it."""
        return (self.path / "rack" / MANIFEST).is_file()

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
            elif isinstance(value, list) and len(value) <= MOST_ROWS:
                value = [opened(each) if isinstance(each, dict) else each for each in value]
            else:
                value = None
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
