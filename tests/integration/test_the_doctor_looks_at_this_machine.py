"""`stackwise doctor` as a user calls it: real runs, a record, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stackwise.planner.doctor import killing, shapes
from stackwise.planner.doctor.alone import Child, ChildFailed
from stackwise.planner.doctor.checks import Visit, call_alone
from stackwise.planner.doctor.planned import PEAK, TIME
from stackwise.planner.doctor.record import device_name, error_bars

GATES = ["environment", "frozen layers", "trunk sources"]
# The doctor itself, without what another test of this file has it do. More turns of the same runs
# come where a machine is busy, as it is beside other tests.
WITHOUT = """
import sys
from stackwise.cli import main
from stackwise.planner.doctor import examination, planned
planned.TURNS = 1
for name in sys.argv.pop(1).split(","):
    examination.CHECKS.pop(name, None)
raise SystemExit(main())
"""


def doctor(*options: str, without: list[str]) -> list[str]:
    """A call of `stackwise doctor` on the processor."""
    said = ["doctor", "--output", "found.json", "--device", "cpu", *options]
    return [sys.executable, "-c", WITHOUT, ",".join(without), *said]


def examined(folder: Path, *options: str, without: list[str]) -> tuple[int, dict, str]:
    """Exit code, record and words of `stackwise doctor` in an empty folder."""
    words = doctor(*options, without=without)
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=560)
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    assert [path.name for path in folder.iterdir()] == ["found.json"]
    return done.returncode, json.loads((folder / "found.json").read_text()), done.stdout


def test_quick_holds_the_gates_against_this_machine(tmp_path) -> None:
    code, record, said = examined(tmp_path, "--quick", without=[])
    found = {check["name"]: check for check in record["checks"]}
    assert list(found) == GATES
    assert [check["state"] for check in found.values()] == ["ok"] * 3, said
    assert code == 0 and record["ok"] and record["quick"]
    arms = found["trunk sources"]["figures"]["rows"]
    assert {row["arm"] for row in arms} >= {"from disk", "from host memory", "cached"}
    assert {row["precision"] for row in arms} >= {"full precision", "nf4", "int8"}
    assert error_bars(tmp_path / "found.json") is None
    assert "It can be trusted here: all 3 checks that were made are good." in said


def test_the_rest_of_it_at_its_smallest_size(tmp_path) -> None:
    code, record, said = examined(tmp_path, "--memory", "64MiB", without=GATES[1:])
    found = {check["name"]: check for check in record["checks"]}
    compared = ("peak memory", "step time")  # plans of so little are judged by their bars alone
    for name, check in found.items():
        if name not in compared:
            assert check["state"] == ("skipped" if name == "link" else "ok"), said
    bars = error_bars(tmp_path / "found.json")[device_name("cpu")]
    for name, bar, rule in zip(compared, (bars.peak, bars.time), (PEAK, TIME), strict=True):
        if found[name]["state"] == "skipped":
            assert bar is None
        else:
            good = bar.over_frac <= rule[0] and bar.under_frac <= rule[1]
            assert found[name]["state"] == ("ok" if good else "failed")
    assert bars.peak.figures == 16
    taken = found["peak memory"]["figures"]["shapes"]
    assert list(taken) == list(shapes.SHAPES)
    assert all(stage["seconds"] > 0 for shape in taken.values() for stage in shape["stages"])
    kill = found["kill and resume"]["figures"]
    assert kill["hash"] == kill["hash_of_the_whole"] and kill["state"] == "died"
    assert 0 < kill["went_on_from"] < killing.STEPS
    assert code == (0 if all(check["state"] != "failed" for check in found.values()) else 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_it_leaves_nothing(tmp_path, number) -> None:
    called = subprocess.Popen(
        doctor("--quick", without=GATES[:2]),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for line in called.stdout:
        if "a frozen trunk" in line:  # runs are trained now
            break
    children = children_of(called.pid)
    assert children and (tmp_path / "runs").exists()
    called.send_signal(number)
    assert called.wait(timeout=60) == 130
    assert called.stderr.read() == "stackwise: interrupted\n"
    assert not any(tmp_path.iterdir())
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_what_computes_ends_with_a_doctor_that_is_killed(tmp_path) -> None:
    words = doctor("--quick", without=GATES[:2])
    called = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    for line in called.stdout:
        if "a frozen trunk" in line:
            break
    children = children_of(called.pid)
    called.kill()
    called.wait()
    until = time.monotonic() + 30
    while any(alive(pid) for pid in children) and time.monotonic() < until:
        time.sleep(0.05)
    assert children and not any(alive(pid) for pid in children)


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def call(tmp_path):
    return call_alone(tmp_path, time.monotonic() + 60, 60)


def test_what_a_task_returns_comes_back(call) -> None:
    assert call(shapes.usual_bytes, device="cpu", free=1 << 33) == 1 << 30


def test_an_error_is_the_tasks_last_line(call) -> None:
    with pytest.raises(ChildFailed, match=r"^KeyError: 'moon'$"):
        call(shapes.usual_bytes, device="moon", free=None)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "was killed by the system, as it does where memory runs out"),
        (signal.SIGSEGV, "crashed: SIGSEGV"),
    ],
)
def test_a_crash_is_told(number, words, tmp_path) -> None:
    with (
        Child(killing.resumed, {"path": "x"}, seconds=60, variables={}) as child,
        pytest.raises(ChildFailed, match=words),
    ):
        os.kill(child.process.pid, number)
        list(child.lines())


def test_what_takes_too_long_is_ended(tmp_path) -> None:
    here = Visit("cpu", tmp_path, None, time.monotonic() + 60, call_alone(tmp_path, 0, 0))
    with pytest.raises(ChildFailed, match=r"was ended after .* longer than it may"):
        here.call(shapes.usual_bytes, device="cpu", free=None)
