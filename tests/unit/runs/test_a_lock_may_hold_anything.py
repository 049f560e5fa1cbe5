"""What stands in the file of a lock may be anything: then it is nobody's, and harmless."""

from __future__ import annotations

import json
import os

import pytest

from stackwise.detached.orphans import interrupt_orphan
from stackwise.runs import RunWriter, make_run
from stackwise.runs.lock import LARGEST_BYTES, is_held, owner_of, process_called, this_process

HERE = vars(this_process())
GARBAGE = {
    "bytes that are no text": b"\xff\xfe\x00\x81",
    "a path for a number": json.dumps({**HERE, "pid": "../../tmp"}).encode(),
    "a number below one": json.dumps({**HERE, "pid": -1}).encode(),
    "true for a number": json.dumps({**HERE, "pid": True}).encode(),
    "a list for a host": json.dumps({**HERE, "host": ["far"]}).encode(),
    "more than a name": b" " * LARGEST_BYTES + json.dumps(HERE).encode(),
    "nested without end": b"[" * 4000,
}


@pytest.fixture
def run(tmp_path):
    made = make_run(
        tmp_path / "runs", "toy-1", experiment="", placement="", stages=[], plan=[], facts={}
    )
    (made.path / "status.json").write_text('{"state": "running"}')
    return made


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_is_nobodys(run, case) -> None:
    (run.path / "lock").write_bytes(GARBAGE[case])
    assert owner_of(run.path) is None and run.state == "died"
    with RunWriter(run.path):
        assert run.state == "running"


def test_a_pipe_lets_nobody_wait(run) -> None:
    (run.path / "lock").unlink()
    os.mkfifo(run.path / "lock")
    assert owner_of(run.path) is None and run.state == "died"


def test_a_link_is_not_followed_and_what_it_leads_to_stays(run, tmp_path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("dear all")
    (run.path / "lock").unlink()
    (run.path / "lock").symlink_to(letter)
    with pytest.raises(OSError):
        RunWriter(run.path)
    assert letter.read_text() == "dear all"


def test_a_process_that_does_not_hold_it_is_left_alone(run, monkeypatch) -> None:
    """As the one that started this: it lives, and everything that is said of it is true."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    for name in ("lock", "supervisor", "supervisor.next"):
        (run.path / name).write_text(json.dumps(vars(process_called(os.getppid()))))
        assert owner_of(run.path, name) is not None and not is_held(run.path, name)
    assert run.state == "died" and not interrupt_orphan(run.path) and sent == []
    with RunWriter(run.path):
        assert run.state == "running" and is_held(run.path)
