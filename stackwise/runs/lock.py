"""Who trains a run now.

The file `lock` names its owner: process, when that started, boot, process space, host. The kernel's
advisory lock on it decides between two that want it at once, and falls when its holder dies; the
name tells readers, which never touch the kernel's lock, whether the owner is alive. A stranger's
file may name any process, so that one counts which has the file open. The process that supervises a
detached run holds `supervisor` in the same way, and one that will do so once the present attempt
has ended, `supervisor.next`. Of an owner on another machine, or of another boot, only the heartbeat
tells, which is judged in `heartbeat.py`.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from stackwise.bounded import read_text
from stackwise.jsontext import loads
from stackwise.runs.heartbeat import beats, is_silent

LOCK, SUPERVISOR, NEXT = "lock", "supervisor", "supervisor.next"
ENDING_SECONDS = 5.0
LARGEST_BYTES = 1 << 16  # of a lock
_held: set[int] = set()


class RunBusy(RuntimeError):
    """Another process is training this run."""


@dataclass(frozen=True)
class Owner:
    """A process, so named that another one is never taken for it.

    Attributes:
        pid: Its number.
        started: When it started, in ticks since boot; two processes of one number differ here.
        boot: The kernel's name for this boot.
        space: The space that its number counts in; containers have their own.
        host: The machine's name.
    """

    pid: int
    started: str
    boot: str
    space: str
    host: str


class Lock:
    """A held run; it is free again after `release` or a `with`, or when this process ends.

    Attributes:
        stale: The owner that died without releasing it; None if there was none.
    """

    def __init__(self, handle: int, stale: Owner | None) -> None:
        self.handle = handle
        self.stale = stale
        _held.add(handle)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Let go; once is enough, more does no harm."""
        if self.handle in _held:
            _held.remove(self.handle)
            with suppress(OSError):  # it falls as it is closed; the name is of a dead owner then
                os.ftruncate(self.handle, 0)
            os.close(self.handle)


def take(folder: Path, name: str = LOCK) -> Lock:
    """Hold a run.

    Args:
        folder: The run's.
        name: The lock's file: whether it is trained or supervised.

    Raises:
        RunBusy: If another process holds it, or seems to from here.
        OSError: If the lock cannot be written; so, too, if it is a link, which may lead anywhere.
    """
    handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    mine = this_process()
    try:
        free = _taken(handle, folder, name)
        owner = owner_of(folder, name)
        if not free or (owner is not None and owner != mine and _lives(owner, folder, name)):
            raise RunBusy(f"run {folder.resolve().name}: {_who(owner)}")
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(mine)).encode(), 0)
    except BaseException as error:
        os.close(handle)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(folder / name)) from None
        raise
    return Lock(handle, owner)


def _lives(owner: Owner, folder: Path, name: str) -> bool:
    """Whether the owner of a lock that the kernel gave away lives: one elsewhere may."""
    return holds(owner, folder / name) if is_here(owner) else not is_silent(folder)


def _taken(handle: int, folder: Path, name: str) -> bool:
    """Try for the kernel's lock; one whose owner is not alive is about to fall, so wait for it."""
    deadline = time.monotonic() + ENDING_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if is_held(folder, name) or time.monotonic() > deadline:
                return False
        time.sleep(0.01)


def owner_of(folder: Path, name: str = LOCK) -> Owner | None:
    """Who wrote its name into the lock; None if it is free, or what it holds is no name."""
    try:
        owner = Owner(**loads(read_text(folder / name, LARGEST_BYTES)))
    except (OSError, ValueError, TypeError):
        return None
    texts = (owner.started, owner.boot, owner.space, owner.host)
    whole = type(owner.pid) is int and owner.pid > 0 and all(isinstance(t, str) for t in texts)
    return owner if whole else None


def is_held(folder: Path, name: str = LOCK) -> bool:
    """Whether a live process trains the run, or supervises it.

    One in another container or on another machine is judged by its heartbeat.
    """
    owner = owner_of(folder, name)
    if owner is None:
        return False
    return holds(owner, folder / name) if is_here(owner) else beats(folder)


def is_here(owner: Owner) -> bool:
    """Whether an owner is a process of this boot and process space, which can be asked for."""
    here = this_process()
    return (owner.boot, owner.space) == (here.boot, here.space)


def holds(owner: Owner, lock: Path) -> bool:
    """Whether a process of this machine is still there, and has a lock's file open.

    One of another user's, which cannot be looked into, is believed to have.
    """
    if not is_alive(owner):
        return False
    try:
        file, handles = lock.stat(), os.listdir(folder := f"/proc/{owner.pid}/fd")
    except OSError:
        return True
    return any(_is_open(f"{folder}/{handle}", file) for handle in handles)


def _is_open(handle: str, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(handle), file)
    except OSError:  # it has just been closed
        return False


def is_alive(owner: Owner) -> bool:
    """Whether a process of this machine is still there."""
    return _start_of(owner.pid) == owner.started


def this_process() -> Owner:
    """The owner that this process is."""
    return process_called(os.getpid())


def process_called(pid: int) -> Owner:
    """The owner that a process of this machine is."""
    return Owner(pid, _start_of(pid) or "", boot(), _space(), socket.gethostname())


def _who(owner: Owner | None) -> str:
    if owner is None:
        return "a process that did not leave its name holds it; stop that one first"
    if is_here(owner):
        return f"process {owner.pid} is training it; watch it, or stop it first"
    place = f" on {owner.host}" if owner.host != socket.gethostname() else ""
    return (
        f"process {owner.pid}{place} is training it, by its heartbeat; watch it, or stop it first. "
        "If it is gone, as after a restart of its machine, try again in a minute"
    )


def _start_of(pid: int) -> str | None:
    """When a process started, as the kernel counts; None if it is gone or only a corpse."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return None if Path("/proc/self").exists() else _start_without_proc(pid)
    fields = said.rpartition(")")[2].split()  # its name, in parentheses, may be anything
    return None if fields[0] in "ZX" else fields[19]


def _start_without_proc(pid: int) -> str | None:
    """Where there is no /proc, whether the number is in use must do."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return ""  # somebody else's
    return ""


def boot() -> str:
    """What the kernel calls this boot."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else socket.gethostname()


def _space() -> str:
    path = Path("/proc/self/ns/pid")
    return os.readlink(path) if path.is_symlink() else ""


def _forget_held() -> None:
    """In a forked child: close what only its parent holds, which frees nothing there."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget_held)
