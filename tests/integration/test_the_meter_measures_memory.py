"""The peak that a run reports is the memory it took, or None with the reason.

In a process of its own: what a test before it left in the heap would hide what is allocated here.
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

import stackwise as sw
from stackwise.memory import meter

MIB = 1 << 20
linux_only = pytest.mark.skipif(
    not meter.STATUS.exists(), reason="only Linux keeps a high-water mark of memory"
)
# The kernel adds up resident pages per processor and lets each lag behind by a batch (percpu
# counters: 32 pages, or two per processor), for each of the three kinds; a block may take or leave
# a huge page at both ends; and the allocator's and Python's own pages come on top.
PROCESSORS = os.cpu_count() or 1
LAG = 3 * PROCESSORS * max(32, 2 * PROCESSORS) * os.sysconf("SC_PAGE_SIZE")
TOLERANCE = LAG + 2 * 2 * MIB + MIB


def in_a_process(code):
    """What the code prints, as JSON."""
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
    before, held, after, again = in_a_process(NOTES)
    assert before <= TOLERANCE
    assert held == pytest.approx(80 * MIB, abs=TOLERANCE)
    assert after == held or after == pytest.approx(80 * MIB, abs=TOLERANCE)
    assert again == pytest.approx(16 * MIB, abs=TOLERANCE)


# Of 96 MiB in pieces, every other one is let go again: holes into which no larger piece fits.
STEPS = """
import json, torch
from stackwise.memory.meter import Meter
torch.empty(8 << 20)  # freed: pieces of up to 32 MiB are cut out of one heap from here on
meter, found = Meter(torch.device("cpu")), []
def step():
    held = [torch.ones(1 << 18) for _ in range(96)]
    del held[::2]
    larger = [torch.ones(3 << 17) for _ in range(32)]  # 48 MiB
meter.begin()
for number in range(4):
    with meter.step(0, last=False):
        step()
meter.note()
print(json.dumps([meter.peak, meter.resident]))
"""


@linux_only
def test_the_peak_is_what_tensors_take_and_resident_what_the_heap_keeps():
    peak, resident = in_a_process(STEPS)
    assert peak == pytest.approx(96 * MIB, abs=TOLERANCE)
    assert resident >= 140 * MIB


def test_the_steps_that_may_be_the_highest_are_measured(monkeypatch):
    """The first two, the last, and those with more counted positions than any before."""
    entered = []

    @contextmanager
    def noted():
        entered.append(number)
        yield

    monkeypatch.setattr(meter, "apart", noted)
    measured = meter.Meter(torch.device("cpu"))
    for number, counted in enumerate([5, 3, 4, 6, 6, 2, 7, 1]):
        with measured.step(counted, last=number == 7):
            pass
    assert entered == [0, 1, 3, 6, 7]
    measured.begin()
    with measured.step(1, last=False):
        pass
    assert entered[-1] == 7 and len(entered) == 6


@linux_only
def test_a_run_takes_at_least_what_it_counts(tmp_path):
    """Wide and short: weights, gradients, moments and averages dwarf what a batch keeps."""
    run = in_a_process(
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
    assert run["peak"] >= sum(parts.values()) - TOLERANCE
    assert run["resident"] >= run["peak"] - TOLERANCE


@linux_only
def test_what_a_format_imports_is_not_the_racks(tmp_path):
    """Frozen to nf4 or as it trained, a small rack takes the same."""
    pytest.importorskip("bitsandbytes")
    plain, packed = (
        in_a_process(
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
    assert abs(packed - plain) <= 2 * TOLERANCE


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
WHY = {
    "no system": "cannot be read: FileNotFoundError",
    "no mark": "has no VmHWM, RssShmem",
    "no parts": "has no RssAnon, RssFile, RssShmem",
    "no numbers": "has no VmHWM, RssAnon, RssFile, RssShmem",
    "no reset": "cannot be written: IsADirectoryError",
}


@pytest.mark.parametrize("case", BLIND)
def test_where_the_peak_cannot_be_known_training_goes_on(case, status, tiny, place):
    BLIND[case](status)
    run = sw.train(tiny, place)
    assert run.state == "finished"
    assert run.result()["peak_bytes"] is None
    (event,) = [event for event in run.events() if event["kind"] == "peak_unknown"]
    assert WHY[case] in event["why"]


def test_where_it_can_be_known_no_event_says_otherwise(status, tiny, place):
    run = sw.train(tiny, place)
    assert run.result()["peak_bytes"] == (300 - 50 - 0 - 100) * 1024
    assert not [event for event in run.events() if event["kind"] == "peak_unknown"]


def test_a_mark_that_cannot_be_set_back_later_leaves_no_stale_peak(status):
    measured = meter.Meter(torch.device("cpu"))
    with measured.step(0, last=False):
        pass
    assert measured.blind is None and measured.peak is not None
    (status / "clear_refs").unlink()
    (status / "clear_refs").mkdir()
    with measured.step(0, last=False):
        pass
    assert measured.peak is measured.resident is None and measured.blind is not None
