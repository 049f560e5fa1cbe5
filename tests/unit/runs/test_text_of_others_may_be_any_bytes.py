"""What git and the kernel say is not always UTF-8; a run is made and locked all the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from stackwise.memory.meter import status_bytes
from stackwise.runs import provenance
from stackwise.runs.lock import is_held, take


def test_a_difference_in_another_encoding_is_recorded(tmp_path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)

    git("init", "-q")
    (tmp_path / "old.txt").write_bytes(b"caf\xe9\n")
    git("add", ".")
    git("commit", "-qm", "first")
    (tmp_path / "old.txt").write_bytes(b"th\xe9\n")
    said = provenance._git(tmp_path, "diff", "HEAD")
    assert said is not None and "-caf\ufffd" in said and "+th\ufffd" in said


@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="there is no /proc here")
def test_a_process_may_have_any_name(tmp_path) -> None:
    name = Path(f"/proc/{os.getpid()}/comm")
    before = name.read_bytes()
    name.write_bytes(b"caf\xe9")
    try:
        lock = take(tmp_path)
        assert is_held(tmp_path)
        lock.release()
        assert status_bytes()["VmHWM"] > 0
    finally:
        name.write_bytes(before.rstrip(b"\n"))
