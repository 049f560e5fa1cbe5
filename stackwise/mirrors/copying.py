"""One pass from a run's folder to a mirror; the run may go on meanwhile.

The checkpoints are held under second names first, then the records are read: so no number in the
mirror is older than its weights. What is there already is not sent again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

from stackwise.bounded import is_plain_file, opened
from stackwise.drafts import drafted
from stackwise.mirrors import index
from stackwise.mirrors.errors import BusyMirror, MirrorError, OtherMirror
from stackwise.mirrors.store import PIECE_BYTES, Store
from stackwise.runs import Run, RunError
from stackwise.runs.listing import ID
from stackwise.runs.records import MANIFEST
from stackwise.training.earlier import homes_of, step_in
from stackwise.training.kept_stages import same_file
from stackwise.training.manifest import (
    CheckpointError,
    CheckpointReplaced,
    read_manifest,
    verify_part,
)
from stackwise.training.ownership import BEST, RACK, identity_of
from stackwise.training.part_names import FILE, home_of

DRAFT, TRIES = ".mirror-", 20


@dataclass
class Copies:
    """What one process knows of the mirror that it writes.

    Attributes:
        run: The run.
        store: Where it is copied to: a folder of its own at the address.
        writer: Names this process among those that may write there.
        number: Of the index that it wrote last; None before.
    """

    run: Run
    store: Store
    writer: str = field(default_factory=lambda: token_hex(8))
    number: int | None = None

    @classmethod
    def at(cls, run: Run, url: str) -> Copies:
        """The mirror of a run at an address.

        Raises:
            RunError: If the address cannot be, or the run's folder has a name that none can have.
        """
        if not ID.fullmatch(run.id):
            raise RunError(f"run {run.id}: its folder needs another name before it is mirrored")
        return cls(run, Store(url).under(run.id))

    def send(self) -> dict[str, Any]:
        """Bring the mirror to where the run is.

        Returns:
            What was done: `step` of the checkpoint, None before the first, `files` and `bytes`.

        Raises:
            MirrorError: If the mirror is another run's, further than this one, or another
                process's.
            CheckpointReplaced: If each time a newer checkpoint was written while one was held.
            OSError: If the run's folder cannot be read or written. What else an address may raise.
        """
        before = self.check_free()
        with drafted(self.run.path, DRAFT) as draft:
            checkpoints = held(self.run.path, draft)
            step = self.check_further(before, checkpoints)
            there, sent = self.store.names(index.FILES), {}
            for file in sorted(draft.iterdir()):
                size = file.stat().st_size
                if there.get(file.name) != size:
                    self.store.put(file, f"{index.FILES}/{file.name}")
                    sent[file.name] = size
            records = {}
            for name in records_of(self.run.path):
                with suppress(FileNotFoundError):  # as exit.json, when another attempt begins
                    records[name] = self.record(name, there, sent)
        self.commit({"checkpoints": checkpoints, "records": records})
        return {"step": step, "files": len(sent), "bytes": sum(sent.values())}

    def check_free(self) -> dict[str, Any] | None:
        """What the newest index says, if there is one.

        Raises:
            MirrorError: If it is of another run, or another process has written it meanwhile.
        """
        found = index.newest_index(self.store)
        if found is None:
            return None
        number, said = found
        if said["run"] != self.run.id or said.get("identity") != identity_of(self.run):
            raise OtherMirror(f"{self.store.shown}: holds another run; name another address")
        if self.number is not None and said.get("writer") != self.writer:
            raise BusyMirror(f"{self.store.shown}: another process writes it; stop one of both")
        self.number = number
        return said

    def check_further(self, before: dict[str, Any] | None, now: dict[str, Any]) -> int | None:
        """The step of the checkpoint that is held.

        Raises:
            MirrorError: If the mirror is further: it is not to be lost.
        """
        step = step_in(now[RACK]) if RACK in now else None
        there = (before or {}).get("checkpoints", {}).get(RACK)
        if there is not None and step_in(there) > (step or 0):
            raise OtherMirror(
                f"{self.store.shown}: holds step {step_in(there)} of this run, and it stands at "
                f"{step or 0}; fetch that one, or name another address"
            )
        return step

    def record(
        self, name: str, there: dict[str, int | None], sent: dict[str, int]
    ) -> list[dict[str, Any]]:
        """Send the pieces of a record that are not there, and say which they are, in order."""
        found = []
        with opened(self.run.path / name) as file:
            while data := file.read(PIECE_BYTES):
                digest = hashlib.sha256(data).hexdigest()
                found.append({"sha256": digest, "bytes": len(data)})
                piece = f"piece-{digest}"
                if there.get(piece) != len(data) and piece not in sent:
                    self.store.write(f"{index.FILES}/{piece}", data)
                    sent[piece] = len(data)
        return found

    def commit(self, facts: dict[str, Any]) -> None:
        """Write the index of what has been sent, and remove what it does not list."""
        whole = {"run": self.run.id, "identity": identity_of(self.run), "writer": self.writer}
        data = index.written({**whole, **facts})
        wanted, there = index.listed(facts), self.store.names(index.FILES)
        if missing := [name for name, size in wanted.items() if there.get(name) != size]:
            raise MirrorError(f"{self.store.shown}: {missing[0]} was sent, and is not there whole")
        older = index.numbers_in(self.store)
        number = 1 + max(older, default=0)
        self.store.write(index.named(number), data)
        if self.store.read(index.named(number), index.LARGEST) != data:
            raise MirrorError(f"{self.store.shown}: does not give back what was written")
        self.number = number
        for old in older:
            self.store.remove(index.named(old))
        for name in there.keys() - wanted.keys():
            if FILE.fullmatch(name) or index.PIECE.fullmatch(name):
                self.store.remove(f"{index.FILES}/{name}")


def held(run: Path, draft: Path) -> dict[str, Any]:
    """The manifests of a run's checkpoints, whose files are in `draft` from here on.

    Raises:
        CheckpointReplaced: If each time a newer one was written meanwhile.
        CheckpointError: If the present one is damaged.
    """
    last = f"{RACK}: is replaced faster than it can be held"
    for _ in range(TRIES):
        found = {}
        try:
            for kind, rack in folders_of(run):
                gone = () if kind == "last" else (CheckpointError, FileNotFoundError)
                with suppress(*gone):  # replaced since, or damaged: the present one counts
                    found[str(rack.relative_to(run))] = hold(rack, draft)
            return found
        except (CheckpointReplaced, FileNotFoundError) as error:
            last = str(error)
    raise CheckpointReplaced(last)


def folders_of(run: Path) -> Iterator[tuple[str, Path]]:
    """The checkpoints that a run has, with their kind."""
    found = [(kind, home / RACK) for kind, home in homes_of(run)]
    found.append(("best", run / BEST))
    found += [("bests", home / BEST) for home in sorted((run / "bests").glob("[0-9]*"))]
    for kind, rack in found:
        if (rack / MANIFEST).is_file():
            yield kind, rack


def hold(rack: Path, draft: Path) -> dict[str, Any]:
    """Give the files of a checkpoint second names in one folder."""
    manifest = read_manifest(rack)
    for name, entry in manifest["parts"].items():
        if not (draft / entry["file"]).exists():
            verify_part(rack, manifest, name, whole=False)
            same_file(home_of(rack, name) / entry["file"], draft / entry["file"])
    return manifest


def records_of(run: Path) -> list[str]:
    """The records that a run's folder has, stages.json last, as it is made last."""
    found = [name for name in index.RECORDS if is_plain_file(run / name)]
    for folder in index.FOLDERS:
        inside = (f"{folder}/{file.name}" for file in sorted((run / folder).glob("*")))
        found = [*(name for name in inside if index.is_record(name)), *found]
    return found
