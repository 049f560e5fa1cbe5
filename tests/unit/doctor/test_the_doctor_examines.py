"""The examination: what comes of its checks, what it says, what it leaves, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
import time

import pytest

import stackwise as sw
from stackwise.cli import main
from stackwise.drafts import held
from stackwise.planner.doctor import examination
from stackwise.planner.doctor.alone import ChildFailed
from stackwise.planner.doctor.checks import Check, Finding
from stackwise.planner.doctor.record import error_bars
from stackwise.planner.doctor.scratch import ends_cleanly, scratch

BAR = {"over_frac": 0.03, "under_frac": 0.02, "figures": 4}


def good(visit):
    visit.results["environment"] = {"device_name": "EPYC"}
    visit.results["bar of peak"] = BAR
    visit.tell("half way")
    tempfile.mkdtemp(dir=visit.folder)
    return Finding("ok", "4 things", "all is good", "", {"n": 4, "nan": float("nan")})


def bad(visit):
    return Finding("failed", "3 of 4", "one is missing", "find it")


def raises(error):
    def check(visit):
        (visit.folder / "rubbish").write_text("x")
        raise error

    return check


@pytest.fixture
def examined(tmp_path, monkeypatch):
    """Examines with other checks; gives the report, what was said, and the home of scratch."""
    home = tmp_path / "deep" / "runs"

    def examine(**checks):
        made = {name: Check(check, "looking", name != "slow") for name, check in checks.items()}
        monkeypatch.setattr(examination, "CHECKS", made)
        said = []
        keys = {"folder": home, "output": tmp_path / "out.json", "device": "cpu"}
        return sw.doctor(**keys, tell=said.append), said

    yield examine
    assert not home.exists() and not home.parent.exists()  # nothing is left of scratch


def test_what_is_good_is_said_and_written(examined) -> None:
    report, said = examined(first=good, second=good)
    assert report.ok
    assert said[0] == "[1/2] first: looking ..."
    assert said[1] == "      . half way"
    assert said[2].endswith("ok, 0 s: 4 things")
    assert said[-2] == "It can be trusted here: all 2 checks that were made are good."
    written = json.loads(report.file.read_text())
    assert written["ok"] and written["checks"][0]["figures"] == {"n": 4, "nan": "NaN"}
    assert written["environment"]["stackwise"] == sw.__version__ and written["machine"]
    bars = error_bars(report.file)["EPYC"]
    assert (bars.peak.model_dump(), bars.time) == (BAR, None)


def test_what_fails_is_said_with_what_to_do(examined) -> None:
    report, said = examined(first=good, second=bad)
    assert not report.ok
    assert said[-2].startswith(
        "Do not trust it here yet: 1 of 2 checks failed: second. What to do "
    )
    assert "      what to do: find it" in said
    assert json.loads(report.file.read_text())["checks"][1]["to_do"] == "find it"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ChildFailed("was killed by the system"), "was killed by the system"),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.bin"),
            "x.bin: No space left on device",
        ),
    ],
)
def test_a_check_that_cannot_be_made_fails_and_the_others_go_on(examined, error, words) -> None:
    report, _ = examined(first=raises(error), second=good)
    assert not report.ok
    assert report.findings["first"].measured == words
    assert report.findings["second"].state == "ok"


def test_when_its_time_is_over_the_rest_is_skipped(examined, monkeypatch) -> None:
    monkeypatch.setattr(examination, "LIMIT_SECONDS", 0.05)

    def slow(visit):
        time.sleep(0.1)
        raise ChildFailed("was ended")

    report, said = examined(first=slow, second=bad)
    assert [finding.state for finding in report.findings.values()] == ["skipped", "skipped"]
    assert not report.ok
    assert said[-2].startswith("Nothing could be looked at, so nothing is known of it here.")


def test_an_interrupt_leaves_nothing(examined) -> None:
    with pytest.raises(KeyboardInterrupt):
        examined(first=raises(KeyboardInterrupt()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_a_process_is_an_interrupt(number) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), ends_cleanly():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert signal.getsignal(number) == before


def test_what_a_killed_doctor_left_is_removed_by_the_next(tmp_path) -> None:
    with scratch(tmp_path) as alive:
        left = tmp_path / ".doctor-left"
        left.mkdir()
        (tmp_path / "mine").mkdir()
        with scratch(tmp_path) as other:
            assert {p.name for p in tmp_path.iterdir()} == {alive.name, other.name, "mine"}
            with pytest.raises(BlockingIOError):
                held(alive)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_quick_leaves_out_what_takes_long(monkeypatch, tmp_path) -> None:
    quick = [name for name, check in examination.CHECKS.items() if check.quick]
    assert quick == ["environment", "frozen layers", "trunk sources"]
    made = {"a": Check(good, "looking", True), "b": Check(bad, "looking")}
    monkeypatch.setattr(examination, "CHECKS", made)
    keys = {"folder": tmp_path / "runs", "output": tmp_path / "out", "device": "cpu"}
    report = sw.doctor(quick=True, **keys, tell=lambda line: None)
    assert report.ok and list(report.findings) == ["a"]
    assert report.verdict.endswith("Plans, disk and resuming are looked at without --quick.")


REFUSED = {
    "a folder that is a file": (["--folder", "text"], "folder: text is a file"),
    "an output that is a folder": (["--output", "dir"], "output: dir is a folder"),
    "another's file": (
        ["--output", "text"],
        "output: would overwrite what is there; text: is not JSON, or cut; make another: ",
    ),
    "an output below a file": (["--output", "text/x.json"], "output: text cannot be written: "),
    "no size": (
        ["--memory", "many"],
        "--memory: 'many' is no size of memory; write it as 5GB or 500MB",
    ),
    "a tiny size": (["--memory", "1MB"], "memory: 1000000 bytes are less than 67108864"),
    "no such card": (["--device", "cuda"], "placement.device: 'cuda', but torch sees no CUDA card"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_anything(case, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "text").write_text("mine")
    (tmp_path / "dir").mkdir()
    arguments, words = REFUSED[case]
    assert main(["doctor", *arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir", "text"]


@pytest.mark.parametrize(("check", "code"), [(good, 0), (bad, 1)])
def test_the_exit_code_tells_what_came_of_it(check, code, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examination, "CHECKS", {"only": Check(check, "looking", True)})
    assert main(["doctor", "--device", "cpu", "--output", "out.json"]) == code
    assert capsys.readouterr().out.endswith("figures: out.json\n")
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
