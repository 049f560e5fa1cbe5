"""The process that looks after one detached run: a light one, in a session of its own.

It waits for the run's turn on its device, starts the process that trains, sees to it that a stop
is obeyed, starts a run again that hangs if it is asked to (`watchdog.py`), writes down how the run
ended, and calls the user's command then (`stackwise/alerts.py`). It reads one job from standard
input and answers one word. With `--warm` it starts the trainer first, which imports what takes long
while no job is there yet; both end when their input does.

A signal to stop that comes to this process, as when the machine is shut down, is an order to the
run like any other: it is saved, and this process stays to see it end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from stackwise.alerts import EVENTS, failure, note_failure, tell
from stackwise.detached.device_queue import Ticket, before, give_back, share, take_ticket
from stackwise.detached.ending import ended_by, write_end, write_last
from stackwise.detached.job import BUSY, TAKEN, Job
from stackwise.detached.patience import patience_for
from stackwise.detached.pressing import Ending
from stackwise.detached.watchdog import Restarts, Watch, Watchdog
from stackwise.exit_codes import FAILED, INTERRUPTED, is_stop, of_process
from stackwise.runs import status
from stackwise.runs.control import ask, orders, stop_asked
from stackwise.runs.event_log import append_event
from stackwise.runs.lock import LOCK, NEXT, SUPERVISOR, Lock, RunBusy, is_held, take
from stackwise.runs.log import appended, say
from stackwise.runs.metrics import steps_behind
from stackwise.runs.standing import LIVE, state_of

LOOK_SECONDS, ENDING_SECONDS = 0.05, 30.0
STOPS = (signal.SIGINT, signal.SIGTERM)
TOLD: list[int] = []  # the signals that told this process to end


def main(arguments: list[str]) -> int:
    """Supervise the run of the job that comes on standard input."""
    trainer = start_trainer(subprocess.DEVNULL) if "--warm" in arguments else None
    line = sys.stdin.readline()
    if not line.strip():
        if trainer is not None:
            trainer.stdin.close()  # type: ignore[union-attr]
        return 0
    job = Job.of_line(line)
    folder = Path(job.run)
    ended: str | None = None
    why: str | None = None
    for number in STOPS:
        signal.signal(number, lambda signum, frame: TOLD.append(signum))
    lock = succeeded(folder) if job.follows else taken(folder)
    if lock is None or status.read(folder).get("state") == "finished":
        answer(BUSY)
        if lock is not None:
            lock.release()
        if trainer is not None:
            trainer.kill()
        return 0
    try:
        status.begin(folder, "starting", heard=job.obeyed, through=job.through)
        answer(TAKEN)
        ended = supervise(folder, job, trainer)
    except Exception as error:  # nobody reads what this process raises
        why = f"its supervisor failed: {type(error).__name__}: {error}"
        say(folder, why)
        ended = "failed"
        if not is_held(folder, LOCK):
            with suppress(OSError):  # the disk may be what failed
                write_last(folder, "failed", why, code=FAILED)
    finally:
        lock.release()
    if ended in EVENTS:
        tell(job.alert, folder, ended, why or said_of_end(folder))
    return 0


def said_of_end(folder: Path) -> str | None:
    """Why a run ended, as exit.json says it."""
    why = status.read(folder, status.EXIT).get("error")
    return None if why is None else str(why)


def succeeded(folder: Path) -> Lock | None:
    """The right to look after a run once the attempt that is live has ended; None if taken."""
    try:
        following = take(folder, NEXT)
    except RunBusy:
        return None
    answer(TAKEN)
    lock: Lock | None = None
    try:
        while True:
            with suppress(RunBusy):
                lock = lock or take(folder, SUPERVISOR)
            if lock is not None and not is_held(folder, LOCK):  # which one in a notebook has alone
                return lock
            if TOLD:
                if lock is not None:
                    lock.release()
                return None
            time.sleep(LOOK_SECONDS)
    finally:
        following.release()


def taken(folder: Path) -> Lock | None:
    """The right to look after a run; None if another process does and the run is live.

    One whose run has just ended has a few words left to write.
    """
    deadline = time.monotonic() + ENDING_SECONDS
    while True:
        try:
            return take(folder, SUPERVISOR)
        except RunBusy:
            if state_of(folder, status.read(folder)) in LIVE or time.monotonic() > deadline:
                return None
        time.sleep(LOOK_SECONDS)


def answer(word: str) -> None:
    """Tell whoever launched the run, and let go of the pipe."""
    with suppress(OSError):
        os.write(1, f"{word}\n".encode())
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def supervise(folder: Path, job: Job, trainer: subprocess.Popen[str] | None) -> str | None:
    """Carry a run through its queue and its training, to its end.

    Returns:
        How it ended, as status.json says; None if it never began, or another process has it.
    """
    ticket = ticket_for(folder, job)
    try:
        if not wait_for_turn(folder, job, ticket):
            status.begin(folder, "stopped")
            write_last(folder, "stopped", None, code=of_process(-TOLD[0]) if TOLD else INTERRUPTED)
            say(folder, "it was stopped while it waited for its turn")
            if trainer is not None:
                trainer.kill()
            return None
        if is_held(folder, LOCK) or status.read(folder).get("state") == "finished":
            say(folder, "another process has taken it over meanwhile")
            if trainer is not None:
                trainer.kill()
            return None
        status.begin(folder, "starting", heard=job.obeyed, through=job.through)
        carry_through(folder, job, trainer, ticket)
    finally:
        if ticket is not None:
            give_back(ticket)
    return None if is_held(folder, LOCK) else str(status.read(folder).get("state"))


def carry_through(
    folder: Path, job: Job, trainer: subprocess.Popen[str] | None, ticket: Ticket | None
) -> None:
    """Let a process train a run, and another one where the watchdog asks for it."""
    rule = Watchdog(**job.watchdog) if job.watchdog else Watchdog()
    restarts, untold = Restarts(folder, rule), list[str]()
    while True:
        if trainer is None or trainer.poll() is not None:
            with appended(folder) as log:
                trainer = start_trainer(log.fileno())
        say(folder, f"process {trainer.pid} trains it")
        if ticket is not None:
            share(ticket, trainer.pid)  # what waits for it waits for that, whatever comes of this
        hand_over(trainer, job)
        asked, hung = see_through(folder, job, trainer, Watch(folder, rule))
        code = trainer.wait()
        died = rule.died and code < 0 and not is_stop(code)
        why = hung or (ended_by(code) if died else None)
        if why is None or asked or TOLD or is_held(folder, LOCK) or stop_asked(folder, job.obeyed):
            write_end(folder, code, asked)
            break
        if not restarts.allowed():
            gave_up = f"{why}; it was started again {rule.times} times and came no further"
            say(folder, f"it is given up: {gave_up}")
            write_last(folder, "failed", gave_up, code=of_process(code))
            break
        say(folder, f"{why}; it is started again from its last checkpoint")
        note(folder, "restarted", why=why, step=steps_behind(folder), times=restarts.count)
        status.begin(folder, "starting", heard=job.obeyed, through=job.through)
        trainer = None
        if job.alert is not None and (trouble := failure(job.alert, folder, "restarted", why)):
            untold.append(trouble)
    for trouble in untold:
        note_failure(folder, "restarted", trouble)


def note(folder: Path, kind: str, **fields: Any) -> None:
    """Add an event to a run that nobody trains at the moment."""
    with suppress(OSError, RunBusy), take(folder):  # the log has it, too
        append_event(folder, kind, **fields)


def ticket_for(folder: Path, job: Job) -> Ticket | None:
    """A place in the queue of the device; None where tickets cannot be written."""
    try:
        return take_ticket(job.device, folder)
    except OSError as error:
        say(folder, f"it waits for no other run, since there is no queue: {error}")
        return None


def wait_for_turn(folder: Path, job: Job, ticket: Ticket | None) -> bool:
    """Wait until nobody is before the run; False if it was asked to stop meanwhile."""
    said: list[str] = []
    while ahead := before(ticket) if ticket is not None and job.queue else []:
        names = [Path(other.run).name for other in ahead]
        if names != said:
            status.begin(folder, "queued", waits_for=names, heard=job.obeyed, through=job.through)
            said = names
        if TOLD or stop_asked(folder, job.obeyed):
            return False
        time.sleep(LOOK_SECONDS)
    return not (TOLD or stop_asked(folder, job.obeyed))


def start_trainer(output: int) -> subprocess.Popen[str]:
    """The process that trains, waiting for a job; it outlives this one."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "stackwise.detached.trainer"],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        text=True,
    )


def hand_over(trainer: subprocess.Popen[str], job: Job) -> None:
    """Give the trainer its job."""
    assert trainer.stdin is not None
    with suppress(OSError):  # it is gone already; its exit code says so
        trainer.stdin.write(job.line())
        trainer.stdin.close()


def see_through(
    folder: Path, job: Job, trainer: subprocess.Popen[str], watch: Watch
) -> tuple[bool, str | None]:
    """Wait for the trainer's end, and end it where it does not obey, or hangs.

    Returns:
        Whether it was made to stop, and why it hung, if it did.
    """
    known, ending = job.obeyed, Ending(trainer, lambda text: say(folder, text))
    passed_on = False
    while trainer.poll() is None:
        if TOLD and not passed_on:
            passed_on = True
            with suppress(OSError):  # a folder that cannot be written: the trainer is told itself
                ask(folder, "stop")
        for order in orders(folder, known):
            known = order.number
            ending.hear(order, patience_for(folder, order))
        if ending.is_pressing and has_obeyed(folder, known):
            ending.relent()
        ending.press()
        if (why := watch.hangs()) is not None:
            trainer.kill()
            return ending.is_asked, why
        with suppress(subprocess.TimeoutExpired):
            trainer.wait(LOOK_SECONDS)
    return ending.began is not None, None


def has_obeyed(folder: Path, number: int) -> bool:
    """Whether the trainer has taken an order, and now does what it asks: it may be saving."""
    obeyed = status.read(folder).get("obeyed")
    return isinstance(obeyed, int) and obeyed >= number


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
