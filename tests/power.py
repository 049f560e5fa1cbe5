"""What a disk may hold after a power cut: a recorder of file operations, and the states they allow.

`Recorder` notes what happens below a folder while code runs. Renames, links, removals, new folders
and fsyncs are seen as they are called; new files and every changed byte are found by reading the
whole folder before and after each of these, whoever wrote them and by whatever call. A name that
appears, goes or changes hands without a call that was seen is an error, so nothing can be missed;
`Disk` replays the notes, and a test compares the result with the real folder byte for byte.

`crashes` draws states in which the disk may be found when power fails between two operations. The
model is what POSIX promises and no more, weaker than any journal (ext4 ordered, XFS, APFS):

- What an fsync of a file covers is there. What was appended later may be there, missing, cut
  anywhere, or there in length only, as zeros or as whatever lay on the disk. A file that was
  written over or cut short later may be anything of that from its first byte on.
- What an fsync of a folder covers is there. Each name that was made, removed or renamed in it later
  is as it was or as any later change left it, and each for itself: a rename may have made the new
  name and kept the old one, or removed the old one and not made the new one.
- A rename over a name that was there leaves the old file or the new one under it, never neither.
  The new one may be empty or garbage if its own bytes were not flushed before.
- A new file or folder is there only if its name is, in a folder that is there. So flushing a file
  does not save it: its folder's entries, and those of each new folder above, must be flushed too.

Read next: `integration/test_a_power_cut_leaves_a_whole_checkpoint.py`.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Node = int
ROOT: Node = 0
NO_CHANCE = random.Random(0)
State = dict[str, bytes | None]  # paths to bytes; None for folders
Choose = Callable[[Any, list[Any]], Any]


@dataclass(frozen=True)
class Made:
    """A file or folder that has no name yet."""

    node: Node
    folder: bool


@dataclass(frozen=True)
class Named:
    """A name now means another node, or none."""

    folder: Node
    name: str
    node: Node | None


@dataclass(frozen=True)
class Wrote:
    """A file's bytes are these now."""

    node: Node
    data: bytes


@dataclass(frozen=True)
class Synced:
    """An fsync of a file or folder returned."""

    node: Node


@dataclass(frozen=True)
class Marked:
    """The code that was recorded had come so far."""

    what: Any


Note = Made | Named | Wrote | Synced | Marked


@dataclass
class File:
    """What is known of a file: what is safe, and what may be there instead."""

    safe: bytes = b""
    now: bytes = b""

    def may_hold(self, chance: random.Random) -> list[bytes]:
        """What a power cut may leave: first all that was written, last what is safe."""
        if self.now == self.safe:
            return [self.now]
        kept = len(self.safe) if self.now.startswith(self.safe) else 0  # bytes never written again
        place, size = chance.randrange(kept, len(self.now) + 1), len(self.now)
        zeros = self.now[:place] + bytes(size - place)
        garbage = self.now[:kept] + chance.randbytes(size - kept)
        return [self.now, self.now[:place], zeros, garbage, self.safe]


@dataclass
class Folder:
    """Names that are safe, and for each what it may mean instead, oldest first."""

    safe: dict[str, Node] = field(default_factory=dict)
    later: dict[str, list[Node | None]] = field(default_factory=dict)

    def now(self) -> dict[str, Node]:
        """What the names mean to whoever looks."""
        last = {**self.safe, **{name: nodes[-1] for name, nodes in self.later.items()}}
        return {name: node for name, node in last.items() if node is not None}


class Disk:
    """A folder as notes make it, with what of it is safe."""

    def __init__(self) -> None:
        self.nodes: dict[Node, File | Folder] = {ROOT: Folder()}

    def do(self, note: Note) -> None:
        """Carry out one operation."""
        if isinstance(note, Made):
            self.nodes[note.node] = Folder() if note.folder else File()
        elif isinstance(note, Named):
            self.folder(note.folder).later.setdefault(note.name, []).append(note.node)
        elif isinstance(note, Wrote):
            self.file(note.node).now = note.data
        elif isinstance(note, Synced):
            found = self.nodes[note.node]
            if isinstance(found, File):
                found.safe = found.now
            else:
                found.safe, found.later = found.now(), {}

    def file(self, node: Node) -> File:
        found = self.nodes[node]
        assert isinstance(found, File)
        return found

    def folder(self, node: Node) -> Folder:
        found = self.nodes[node]
        assert isinstance(found, Folder)
        return found

    def all_there(self) -> State:
        """What is there if no power fails."""
        return self.found(newest)

    def found(self, choose: Choose, chance: random.Random = NO_CHANCE) -> State:
        """A state, where `choose` says which of the things that it may be each one is.

        Choices stand newest first: the first is as if nothing was lost, the last is what is safe.
        """
        out: State = {}
        held: dict[Node, bytes] = {}

        def walk(folder: Folder, node: Node, base: str) -> None:
            for name in sorted({*folder.safe, *folder.later}):
                nodes = [*reversed(folder.later.get(name, [])), folder.safe.get(name)]
                meant = choose((node, name), nodes) if len(nodes) > 1 else nodes[0]
                if meant is None:
                    continue
                found = self.nodes[meant]
                if isinstance(found, Folder):
                    out[base + name] = None
                    walk(found, meant, f"{base}{name}/")
                    continue
                if meant not in held:
                    may = found.may_hold(chance)
                    held[meant] = choose(meant, may) if len(may) > 1 else may[0]
                out[base + name] = held[meant]

        walk(self.folder(ROOT), ROOT, "")
        return out

    def open_ends(self) -> list[Any]:
        """What is not decided: names and files of which more than one state is possible."""
        keys: list[Any] = []

        def note(key: Any, choices: list[Any]) -> Any:
            keys.append(key)
            return choices[0]

        self.found(note)
        return keys


def newest(key: Any, choices: list[Any]) -> Any:
    return choices[0]


def oldest(key: Any, choices: list[Any]) -> Any:
    return choices[-1]


def crashes(disk: Disk, chance: random.Random, draws: int) -> Iterator[State]:
    """States in which a disk may be found if power fails now.

    Nothing lost; all lost that may be; each thing lost alone, and kept alone, as far as `draws` go;
    and as many in which chance decides about each.
    """
    yield disk.all_there()
    keys = disk.open_ends()
    if not keys:
        return
    yield disk.found(oldest)

    def lost(key: Any, choices: list[Any]) -> Any:
        return chance.choice(choices[1:])

    for alone in chance.sample(keys, min(draws, len(keys))):
        for this, rest in ((lost, newest), (newest, oldest)):
            yield disk.found(
                lambda k, c, a=alone, t=this, r=rest: (t if k == a else r)(k, c), chance
            )
    for _ in range(draws):
        yield disk.found(lambda key, choices: chance.choice(choices), chance)


class Recorder:
    """Notes all that happens below a folder.

    Args:
        root: The folder; empty, and not watched by another recorder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.notes: list[Note] = []
        self.disk = Disk()
        self.numbers: dict[int, Node] = {os.stat(self.root).st_ino: ROOT}
        self.guard = threading.RLock()

    def mark(self, what: Any) -> None:
        """Note how far the code has come."""
        with self.guard:
            self.look()
            self._note(Marked(what))

    def _note(self, note: Note) -> None:
        self.notes.append(note)
        self.disk.do(note)

    def look(self) -> None:
        """Find new files and changed bytes."""
        self._look(ROOT, str(self.root))

    def _look(self, node: Node, path: str) -> None:
        known, there = self.disk.folder(node).now(), {e.name: e for e in os.scandir(path)}
        gone = known.keys() - there.keys()
        assert not gone, f"{path}: {gone} went by a call that was not seen"
        for name, entry in there.items():
            if entry.inode() not in self.numbers or name not in known:
                assert name not in known, f"{path}/{name}: is another file by a call not seen"
                linked = entry.inode() in self.numbers and entry.stat().st_nlink > 1
                assert entry.is_file() and not linked, f"{path}/{name}: came by a call not seen"
                self.new(node, name, entry.inode(), folder=False)
            found = self.numbers[entry.inode()]
            assert self.disk.folder(node).now()[name] == found, f"{path}/{name}: not seen"
            if entry.is_dir():
                self._look(found, entry.path)
            else:
                data = Path(entry.path).read_bytes()
                if data != self.disk.file(found).now:
                    self._note(Wrote(found, data))

    def new(self, home: Node, name: str, number: int, *, folder: bool) -> None:
        """Note a new file or folder."""
        node = len(self.disk.nodes)
        self.numbers[number] = node
        self._note(Made(node, folder))
        self._note(Named(home, name, node))

    def place(self, path: Any, dir_fd: int | None = None) -> tuple[Node, str] | None:
        """The folder's node and the name of a path; None if it is not below the root."""
        base = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        whole = os.path.join(base, os.fspath(path))
        home, name = os.path.split(os.path.normpath(whole))
        home = os.path.realpath(home)
        if home != str(self.root) and not home.startswith(f"{self.root}{os.sep}"):
            return None
        return self.numbers[os.stat(home).st_ino], name

    def name(self, place: tuple[Node, str] | None, node: Node | None) -> None:
        if place is not None:
            self._note(Named(*place, node))

    def meant(self, place: tuple[Node, str]) -> Node:
        return self.disk.folder(place[0]).now()[place[1]]

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Watch what is called inside."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("rename", "replace", "link", "unlink", "remove", "rmdir", "mkdir"):
                patch.setattr(os, name, self.watched(getattr(os, name), getattr(self, f"_{name}")))
            patch.setattr(os, "fsync", self._fsync)
            self.look()
            yield
            self.look()

    def watched(self, call: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def watching(*args: Any, **kwargs: Any) -> Any:
            with self.guard:
                self.look()
                paths = [arg for arg in args if not isinstance(arg, int)]
                before = [self.place(path, kwargs.get("dir_fd")) for path in paths]
                result = call(*args, **kwargs)
                note(*before)
                return result

        return watching

    def _replace(self, source: Any, target: Any) -> None:
        if source is not None:
            node = self.meant(source)
            self.name(target, node)
            self.name(source, None)

    _rename = _replace

    def _link(self, source: Any, target: Any) -> None:
        if source is not None:
            self.name(target, self.meant(source))

    def _unlink(self, place: Any) -> None:
        if place is not None:
            node = self.meant(place)
            self.name(place, None)
            self._forget(node)

    _remove = _rmdir = _unlink

    def _forget(self, node: Node) -> None:
        """The number of a file that has no name any more may be given to another one."""
        folders = [f for f in self.disk.nodes.values() if isinstance(f, Folder)]
        if not any(node in folder.now().values() for folder in folders):
            self.numbers = {number: n for number, n in self.numbers.items() if n != node}

    def _mkdir(self, place: Any) -> None:
        if place is not None:
            path = self.path_of(place[0]) / place[1]
            self.new(*place, path.stat().st_ino, folder=True)

    def path_of(self, node: Node) -> Path:
        """Where a folder is."""
        for home, _, _ in os.walk(self.root):
            if self.numbers.get(os.stat(home).st_ino) == node:
                return Path(home)
        raise AssertionError(node)

    def _fsync(self, handle: Any) -> None:
        with self.guard:
            self.look()
            number = os.fstat(handle if isinstance(handle, int) else handle.fileno()).st_ino
            inside = os.readlink(f"/proc/self/fd/{handle}").startswith(str(self.root))
            if inside and number in self.numbers:
                self._note(Synced(self.numbers[number]))


def lay(state: State, folder: Path, laid: State) -> None:
    """Make a folder hold a state, where it holds another one that was laid before."""
    for path in sorted(laid.keys() - state.keys(), reverse=True):
        (folder / path).rmdir() if laid[path] is None else (folder / path).unlink()
    for path in sorted(state):
        if path not in laid and state[path] is None:
            (folder / path).mkdir()
        if state[path] is not None and laid.get(path) != state[path]:
            (folder / path).write_bytes(state[path])  # type: ignore[arg-type]
    laid.clear()
    laid.update(state)
