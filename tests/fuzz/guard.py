"""What an input may do: be read, or be refused in the product's own words, soon and in little room.

`guarded(name, target, content)` hands one input to one target. What fails is written to a file, so
that it can be looked at, and kept in `kept.py` once it is mended.
"""

import faulthandler
import hashlib
import os
import resource
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Target = Callable[[bytes], object]
MOST_SECONDS = 20.0  # of processor time, so that a busy machine does not count
MOST_BYTES = 1 << 30  # that a process may take beside what it has
LONGEST = 20_000  # characters of a message; a list of every key that there is takes some thousands
FOUND = Path(os.environ.get("STACKWISE_FUZZ", tempfile.gettempdir())) / "stackwise-fuzz"


class Hung(BaseException):
    """An input took longer than any may; no `except Exception` swallows it."""


def guarded(name: str, target: Target, content: bytes) -> None:
    """Give a target its input.

    Raises:
        AssertionError: If it ends in anything but an answer or a refusal in words.
    """
    FOUND.mkdir(parents=True, exist_ok=True)
    file = FOUND / f"{name.replace('/', '-')}-{os.getpid()}.now"
    file.write_bytes(content)  # also where the process itself ends
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r"run \S+: events\.jsonl is damaged: \d+ of its lines"
            )
            target(content)
    except (Exception, Hung) as error:
        why = None if refuses(error) else f"{type(error).__name__}: {str(error)[:300]}"
        if why is not None:
            raise AssertionError(f"{name}: {why}; the input is {kept(name, content)}") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    file.unlink()


def refuses(error: BaseException) -> bool:
    """Whether an error is one of the product's own, with words that a terminal can show."""
    ours = type(error).__module__.partition(".")[0] in ("stackwise", "stackwise_widgets")
    return ours and 0 < len(str(error)) <= LONGEST


def kept(name: str, content: bytes) -> Path:
    """The file into which an input is written, named by target and content."""
    digest = hashlib.sha256(content).hexdigest()[:12]
    path = FOUND / f"{name.replace('/', '-')}-{digest}.bin"
    path.write_bytes(content)
    return path


@contextmanager
def bounded() -> Iterator[None]:
    """Inside, the process gets no more than a GiB of memory more, and its clock is watched."""

    def stop(signum: int, frame: Any) -> None:
        raise Hung(f"took over {MOST_SECONDS:g} s of processor time")

    before, limit = signal.signal(signal.SIGPROF, stop), resource.getrlimit(resource.RLIMIT_DATA)
    most = data_bytes() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, limit[1]))
    was_enabled = faulthandler.is_enabled()
    if not was_enabled:
        faulthandler.enable()
    try:
        yield
    finally:
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_DATA, limit)
        if not was_enabled:
            faulthandler.disable()


def data_bytes() -> int:
    """Private writable memory of this process, as Linux counts it for the limit."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))
