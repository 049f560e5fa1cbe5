"""The peak that a run reports is the memory it took, or None with the reason.

In a process of its own: what a test before it left in the heap would hide what is allocated here;
and in a new Python where what is imported matters.
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

import stackwise as sw
from stackwise.memory import heap, meter
from stackwise.trunk.pages import pages

from ..warm import Child, forked_json

MIB = 1 << 20
counts = pytest.mark.skipif(heap.mallinfo2() is None, reason="this C library has no mallinfo2")
linux_only = pytest.mark.skipif(
    not meter.STATUS.exists(), reason="only Linux keeps a high-water mark of memory"
)
# The kernel adds up resident pages per processor and lets each lag behind by a batch (percpu
# counters: 32 pages, or two per processor), for each of the three kinds; a block may take or leave
# a huge page at both ends; and the allocator's and Python's own pages come on top.
PROCESSORS = os.cpu_count() or 1
LAG = 3 * PROCESSORS * max(32, 2 * PROCESSORS) * os.sysconf("SC_PAGE_SIZE")
TOLERANCE = LAG + 2 * 2 * MIB + MIB


def in_a_new_python(code):
    """What the code prints last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240
    )
    return json.loads(done.stdout.splitlines()[-1])


NOTES = """
import json, torch
from stackwise.memory.meter import Meter
meter, found = Meter(torch.device("cpu")), []
def note():
    meter.note()
    found.append(meter.resident)
meter.begin(); note()
kept = torch.ones(4 << 20); block = torch.ones(16 << 20); note()
del block; note()
meter.begin(); note()
print(json.dumps(found))
"""


@linux_only
def test_what_was_resident_and_let_go_is_noted():
    before, held, after, again = forked_json(NOTES)
    assert before <= TOLERANCE
    assert held == pytest.approx(80 * MIB, abs=TOLERANCE)
    assert after == held or after == pytest.approx(80 * MIB, abs=TOLERANCE)
    assert again == pytest.approx(16 * MIB, abs=TOLERANCE)


# Of 96 MiB in pieces, every other one is let go again: holes into which no larger piece fits.
STEPS = """
import json, torch
from stackwise.memory.meter import Meter
torch.empty(8 << 20)  # freed: pieces of up to 32 MiB are cut out of one heap from here on
meter = Meter(torch.device("cpu"))
kept = torch.ones(1 << 20)
meter.begin()
for number in range(4):
    with meter.step(0, last=False):
        held = [torch.ones(1 << 18) for _ in range(96)]
        del held[::2]
        larger = [torch.ones(3 << 17) for _ in range(24)]  # 36 MiB
        del held, larger
meter.note()
print(json.dumps([meter.peak, meter.resident]))
"""


@counts
def test_the_peak_is_what_tensors_take_and_resident_what_the_heap_keeps():
    peak, resident = forked_json(STEPS)
    assert peak == pytest.approx(100 * MIB, abs=MIB // 4)
    assert resident >= 120 * MIB


@counts
def test_pages_that_malloc_does_not_know_of_are_in_use():
    before = heap.in_use()
    held = pages(3 * MIB)
    assert 3 * MIB <= heap.in_use() - before <= 3 * MIB + 4096
    part = held[5:10]
    del held
    assert heap.in_use() - before >= 3 * MIB
    del part
    assert heap.in_use() - before < 4096


@counts
def test_another_thread_that_gives_back_memory_is_no_other_malloc():
    """A heartbeat's buffers are let go at any time: once in between is not always."""
    held, real = [torch.empty(2 * MIB, dtype=torch.uint8)], torch.empty
    calls = []

    def empty(*given, **more):
        calls.append(1)
        held.clear()
        return real(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heap.torch, "empty", empty)
        assert heap.why_unknown() is None
    assert len(calls) == 2


@counts
def test_the_first_run_of_a_process_takes_what_the_second_does(tmp_path):
    peaks = in_a_new_python(
        "import json\n"
        "import stackwise as sw\n"
        "exp = sw.Experiment(\n"
        "    rack={'stacks': 2, 'blocks_per_stack': 1, 'd_model': 16, 'heads': 2},\n"
        "    data={'corpus': {'kind': 'markov', 'size_bytes': 4_000_000}, 'seq_len': 16,\n"
        "          'tokenizer': 'bytes'},\n"
        "    optim={'batch': 1}, budget=128,\n"
        "    eval={'points': 1, 'windows': 1, 'draws': 1, 'final': 1},\n"
        ")\n"
        f"place = sw.Placement(device='cpu', threads=1, runs_dir={str(tmp_path)!r})\n"
        "runs = [sw.train(exp, place, rerun=True) for _ in range(2)]\n"
        "print(json.dumps([run.result()['peak_bytes'] for run in runs]))\n"
    )
    assert abs(peaks[0] - peaks[1]) < MIB // 4  # the order of an epoch alone is 2 MiB


def test_a_step_that_is_profiled_already_is_left_to_its_profiler():
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu) as theirs, heap.taken() as found:
        torch.ones(10)
    assert found.most is None
    assert "aten::ones" in {event.key for event in theirs.key_averages()}


@counts
def test_nothing_is_said_of_what_was_there_before():
    code = (
        "import json, torch\n"
        "from stackwise.memory.heap import taken\n"
        "held = [torch.empty(9) for _ in range(50)]\n"
        "with taken() as found:\n    del held\n"
        "print(json.dumps(found.most))\n"
    )
    with Child(code) as child:
        assert child.stdout.read() == "0\n" and child.stderr.read() == ""
        assert child.wait() == 0


def test_what_a_step_that_fails_took_is_not_known_and_the_next_is_measured():
    with pytest.raises(ZeroDivisionError), heap.taken() as found:
        torch.ones(10)
        _ = 1 / 0
    assert found.most is None
    with heap.taken() as found:
        held = torch.empty(1000, dtype=torch.uint8)
        del held
        torch.empty(700, dtype=torch.uint8)
    assert found.most == 1000


@counts
def test_the_steps_that_may_be_the_highest_are_measured(monkeypatch):
    """The first two, the last, and those with more counted positions than any before."""
    entered = []

    @contextmanager
    def noted():
        entered.append(measured.steps - 1)
        yield heap.Taken()

    monkeypatch.setattr(meter, "taken", noted)
    measured = meter.Meter(torch.device("cpu"))
    for number, counted in enumerate([5, 3, 4, 6, 6, 2, 7, 1]):
        with measured.step(counted, last=number == 7):
            pass
    assert entered == [0, 1, 3, 6, 7]
    measured.begin()
    for _ in range(3):
        with measured.step(1, last=False):
            pass
    assert entered[5:] == [0, 1]


@counts
def test_a_run_takes_at_least_what_it_counts(tmp_path):
    """Wide and short: weights, gradients, moments and averages dwarf what a batch keeps."""
    run = forked_json(
        "import json\n"
        "import stackwise as sw\n"
        "exp = sw.Experiment(\n"
        "    rack={'stacks': 1, 'blocks_per_stack': 1, 'd_model': 768, 'heads': 4},\n"
        "    data={'corpus': {'kind': 'markov', 'size_bytes': 4000}, 'seq_len': 4},\n"
        "    optim={'batch': 1}, budget=12, eval={'points': 1, 'windows': 1, 'draws': 1},\n"
        ")\n"
        f"run = sw.train(exp, sw.Placement(device='cpu', runs_dir={str(tmp_path)!r}))\n"
        "(memory,) = [e for e in run.events() if e['kind'] == 'memory']\n"
        "print(json.dumps(memory))\n"
    )
    parts = {key: run[key] for key in ("weights", "gradients", "optimizer", "average")}
    assert run["activations"] < 0.01 * sum(parts.values())
    assert sum(parts.values()) > 100 * MIB
    assert run["peak"] >= sum(parts.values())
    assert run["resident"] >= run["peak"] - TOLERANCE


@counts
def test_what_a_format_imports_is_not_the_racks(tmp_path):
    """Frozen to nf4 or as it trained, a small rack takes the same."""
    pytest.importorskip("bitsandbytes")
    plain, packed = (
        in_a_new_python(
            "import json\n"
            "import stackwise as sw\n"
            "exp = sw.Experiment(\n"
            "    rack={'stacks': 2, 'blocks_per_stack': 1, 'd_model': 64, 'heads': 2},\n"
            "    data={'corpus': {'kind': 'markov', 'size_bytes': 4000}, 'seq_len': 16},\n"
            "    curriculum='left_to_right', optim={'batch': 1}, budget=128,\n"
            "    eval={'points': 1, 'windows': 1, 'draws': 1},\n"
            f"    precision={precision},\n"
            ")\n"
            f"run = sw.train(exp, sw.Placement(device='cpu', runs_dir={str(tmp_path)!r}))\n"
            "print(json.dumps(run.result()['peak_bytes']))\n"
        )
        for precision in ({}, {"frozen": "nf4"})
    )
    assert abs(packed - plain) <= MIB


COMPILER = """
import json, os, sys
import stackwise as sw
import stackwise.training.run
from stackwise.memory.meter import Meter
exp = sw.Experiment(
    rack={'stacks': 2, 'blocks_per_stack': 1, 'd_model': 16, 'heads': 2},
    data={'corpus': {'kind': 'markov', 'size_bytes': 4000}, 'seq_len': 16},
    curriculum='left_to_right', optim={'batch': 1}, budget=128,
    eval={'points': 1, 'windows': 1, 'draws': 1, 'final': 1},
)
there, begin = [], Meter.begin
def noted(meter):
    there.append('torch._dynamo' in sys.modules)
    begin(meter)
Meter.begin = noted
cases, folder = json.loads(sys.argv[1])
for name, (science, placing) in cases.items():
    if os.fork() == 0:  # nothing of one is there for the next
        place = sw.Placement(device='cpu', threads=1, runs_dir=f'{folder}/{name}', **placing)
        assert sw.train(exp.replace(**science), place).state == 'finished'
        print(json.dumps([name, there[0], 'torch._dynamo' in sys.modules]), flush=True)
        os._exit(0)
    os.wait()
"""
NEEDED = {
    "as it is": (False, {}, {}),
    "frozen in fp16": (True, {"precision": {"frozen": "fp16"}}, {}),
    "recomputed": (True, {}, {"checkpointing": True}),
    "lent": (False, {}, {"trunk": "streamed"}),
}


def test_torchs_compiler_is_imported_before_it_is_measured_or_never(tmp_path):
    """It takes a second and tens of megabytes, which are not the rack's."""
    cases = {name: case for name, (_, *case) in NEEDED.items()}
    words = [sys.executable, "-c", COMPILER, json.dumps([cases, str(tmp_path)])]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {name: both for name, *both in map(json.loads, done.stdout.splitlines())}
    assert found == {name: [needed, needed] for name, (needed, *_) in NEEDED.items()}, done.stderr


@pytest.fixture
def status(tmp_path, monkeypatch):
    """Stands in for /proc/self/status and /proc/self/clear_refs."""
    monkeypatch.setattr(meter, "STATUS", tmp_path / "status")
    monkeypatch.setattr(meter, "CLEAR_REFS", tmp_path / "clear_refs")
    whole = "VmHWM: 300 kB\nRssAnon: 100 kB\nRssFile: 50 kB\nRssShmem: 0 kB\n"
    (tmp_path / "status").write_text(whole)
    return tmp_path


BLIND = {
    "no system": lambda folder: (folder / "status").unlink(),
    "no mark": lambda folder: (folder / "status").write_text("RssAnon: 100 kB\nRssFile: 50 kB\n"),
    "no parts": lambda folder: (folder / "status").write_text("VmHWM: 300 kB\nVmRSS: 9 kB\n"),
    "no numbers": lambda folder: (folder / "status").write_text("VmHWM: kB\nRssAnon:\n"),
    "no reset": lambda folder: (folder / "clear_refs").mkdir(),
}


@pytest.mark.parametrize("case", BLIND)
def test_where_what_is_resident_cannot_be_known_training_goes_on(case, status, tiny, place):
    BLIND[case](status)
    run = sw.train(tiny, place)
    assert run.state == "finished"
    assert {event["resident"] for event in run.events("memory")} == {None}


def test_where_it_can_be_known_it_is_the_mark_less_files_and_what_was(status, tiny, place):
    run = sw.train(tiny, place)
    assert {event["resident"] for event in run.events("memory")} == {(300 - 50 - 0 - 100) * 1024}


def test_a_mark_that_cannot_be_set_back_later_is_of_no_use(status):
    measured = meter.Meter(torch.device("cpu"))
    measured.note()
    assert measured.resident is not None
    (status / "clear_refs").unlink()
    (status / "clear_refs").mkdir()
    measured.restart()
    measured.note()
    assert measured.resident is None


WHY = {
    "another C library": (None, "has no mallinfo2"),
    "another allocator": (lambda: heap.MallInfo(), "do not come from glibc's malloc"),
}


@pytest.mark.parametrize("case", WHY)
def test_where_the_peak_cannot_be_known_the_run_says_why(case, monkeypatch, tiny, place):
    call, why = WHY[case]
    monkeypatch.setattr(heap, "mallinfo2", lambda: call)
    run = sw.train(tiny, place)
    assert run.state == "finished" and run.result()["peak_bytes"] is None
    assert {event["peak"] for event in run.events("memory")} == {None}
    (event,) = run.events("peak_unknown")
    assert why in event["why"]


@counts
def test_where_it_can_be_known_no_event_says_otherwise(tiny, place):
    run = sw.train(tiny, place)
    assert run.result()["peak_bytes"] > 0
    assert not list(run.events("peak_unknown"))
