"""Every error that ends a process has the exit code that the table of docs/running.md names."""

from __future__ import annotations

import errno
import re
import signal
from pathlib import Path

import pytest
import torch

from stackwise import exit_codes
from stackwise.cli import main
from stackwise.data.cache import draft
from stackwise.data.errors import DataError, readable
from stackwise.errors import DoesNotFit, ExperimentError, FolderError, TrustError
from stackwise.exit_codes import code_of, is_stop, of_process, stop_code
from stackwise.interop.errors import DamagedModel, ModelError
from stackwise.runs import RunBusy, RunError
from stackwise.runs.damage import DamagedRun
from stackwise.stopping import Terminated, gently, listening
from stackwise.training.manifest import CheckpointError, CheckpointReplaced, NoCheckpoint
from stackwise.training.start import Changed, NoMemory, NotFinite, TrainingError
from stackwise.training.work import Stopped
from stackwise.trunk.shards import CacheError, DamagedShard

ROOT = Path(__file__).parents[2]
CODES = {
    1: [TrainingError(""), NoCheckpoint(""), RuntimeError("odd"), BrokenPipeError()],
    2: [ExperimentError(""), RunError(""), DataError(""), ModelError(""), ValueError("")],
    3: [DoesNotFit(""), NoMemory(""), MemoryError(), torch.OutOfMemoryError("CUDA out of memory")],
    4: [RunBusy("")],
    5: [OSError(errno.ENOSPC, "full"), PermissionError(), FolderError("")],
    6: [CheckpointError(""), CheckpointReplaced(""), CacheError(""), DamagedRun(""), Changed(""),
        DamagedModel(""), DamagedShard("0", "cut", 0, range(1))],
    7: [NotFinite("")],
    8: [TrustError("")],
    130: [KeyboardInterrupt(), Stopped()],
    143: [Terminated()],
}  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_each_error_has_its_code(code) -> None:
    assert [code_of(error) for error in CODES[code]] == [code] * len(CODES[code])


def test_what_fails_because_of_the_disk_is_of_the_disk(tmp_path, monkeypatch) -> None:
    def refused(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    with pytest.raises(DataError) as full, draft(tmp_path, "text"):
        pass
    assert code_of(full.value) == 5
    with pytest.raises(DataError) as absent:
        readable(tmp_path, "none.txt", "data.corpus.path")
    assert code_of(absent.value) == 2


def test_torchs_allocator_has_no_class_and_is_known_all_the_same() -> None:
    with pytest.raises(RuntimeError) as none_left:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert code_of(none_left.value) == 3


def test_the_signal_that_stopped_a_run_decides() -> None:
    with listening(), gently(lambda: None):
        signal.raise_signal(signal.SIGTERM)
        assert (stop_code(), code_of(Stopped())) == (143, 143)
    with listening(), gently(lambda: None):
        signal.raise_signal(signal.SIGINT)
        assert (stop_code(), code_of(Stopped())) == (130, 130)
    with listening():
        assert stop_code() == 130, "what was asked through the run's folder"


def test_a_child_that_a_signal_ended_is_told_as_a_shell_does() -> None:
    assert [of_process(code) for code in (-15, -2, -9, 0, 7)] == [143, 130, -9, 0, 7]
    assert [is_stop(code) for code in (-15, -2, 130, 143, -9, 1)] == [True] * 4 + [False] * 2


def test_the_page_and_the_help_say_the_same(capsys) -> None:
    page = (ROOT / "docs" / "running.md").read_text("utf-8")
    table = dict(re.findall(r"^\| (\d+) \| ([^|]+?) \|", page, re.MULTILINE))
    said = dict(re.findall(r"(\d+) ([^;.]+)[;.]", " ".join(exit_codes.TEXT.split())))
    assert table == said and sorted(map(int, table)) == sorted({0, *CODES})
    with pytest.raises(SystemExit):
        main(["--help"])
    assert exit_codes.TEXT in capsys.readouterr().out
