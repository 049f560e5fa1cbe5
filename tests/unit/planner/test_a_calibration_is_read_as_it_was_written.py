"""Calibration: its statistics, its file, and the machine that it becomes."""

from __future__ import annotations

import json
import math

import pytest
import torch

import stackwise as sw
from stackwise.planner import calibrate, calibration, disks
from stackwise.planner.calibrate import Samples, measure_round, timings
from stackwise.planner.calibration import Calibration, rate_of, scaled, this_machine
from stackwise.planner.probe import Probe
from stackwise.planner.probes import probes_for

CPU = torch.device("cpu")


def every_rate(device: torch.device = CPU) -> Samples:
    """What a round gives, without measuring: each probe its own size as its rate."""
    samples = Samples()
    for probe in probes_for(device):
        samples.add(probe.name, probe.size, probe.unit, [probe.size])
    for name in ("write", "read", "pages", "hash"):
        samples.add(f"disk/{name}", 1.0, "byte", [1e9])
    return samples


def calibrated() -> Calibration:
    return Calibration(calibration.facts_of(CPU), every_rate().taken())


def test_the_median_is_taken_and_the_quartiles_are_the_spread() -> None:
    rate = rate_of("x", 1, "FLOP", [1.0, 2.0, 3.0, 4.0, 100.0])
    assert (rate.rate, rate.count) == (3.0, 5) and rate.spread == pytest.approx(2 / 3)
    assert rate_of("x", 1, "FLOP", [7.0]).spread == 0


def test_a_file_gives_back_the_same_value(tmp_path) -> None:
    found = calibrated()
    found.write(tmp_path / "new" / "c.json")
    assert Calibration.read(tmp_path / "new" / "c.json") == found


def test_it_becomes_a_machine_with_every_curve() -> None:
    machine = calibrated().hardware()
    assert machine.name == "this" and machine.origin == "measured" and machine.kind == "cpu"
    assert machine.matmul["float32"] == tuple((s, s) for s in (16, 64, 256, 1024))
    assert machine.link_rate is None and not machine.calls_overlap
    exp = sw.Experiment.preset("toy").replace(
        curriculum="left_to_right", precision={"frozen": "fp8", "compute": "bfloat16"}
    )
    for stage in sw.stages(exp):  # every rate that is asked for is there
        assert sw.step_seconds(exp, sw.Placement(trunk="streamed"), stage, machine).total > 0


def test_a_package_that_came_later_was_not_measured(monkeypatch) -> None:
    monkeypatch.setattr("stackwise.training.updates.lacking", lambda: "needs more")
    machine = calibrated().hardware()
    monkeypatch.undo()
    exp = sw.Experiment.preset("toy").replace(optim={"name": "adamw8bit"})
    with pytest.raises(sw.ExperimentError, match=r"measured without 'adamw8bit/.*calibrate"):
        sw.step_seconds(exp, sw.Placement(), sw.stages(exp)[0], machine)


def test_a_rate_that_is_missing_is_named() -> None:
    lame = Calibration({"device": "cpu"}, ())
    with pytest.raises(sw.ExperimentError, match=r"calibration: lacks 'memory'; measure again"):
        lame.curve("memory")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", r"is no calibration \(JSONDecodeError\); measure this machine with"),
        ("[]", r"is no calibration \("),
        ('{"format": 9, "rates": []}', "is of another format"),
        ('{"format": 2, "rates": []}', "lacks a fact"),
        (
            '{"format": 2, "rates": [{"name": "m", "size": 1, "unit": "b", "rate": 0.0, '
            '"spread": 0, "count": 1}]}',
            "lacks a fact or a rate",
        ),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, says) -> None:
    file = tmp_path / "c.json"
    file.write_text(text)
    with pytest.raises(sw.ExperimentError, match=says):
        Calibration.read(file)


def test_a_machine_that_was_not_measured_says_how(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path))
    found = sw.hardware_called("this")
    assert found.origin == "unknown" and found.memory_bytes > 0
    assert "not measured" in found.said and "calibrate" in found.said
    plan = sw.plan("toy", hardware=found)
    assert plan.fits and math.isnan(plan.days)
    assert "calibrate measures how fast this machine is" in str(plan)


def test_memory_is_asked_of_the_machine_and_rates_of_the_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path))
    calibrated().write(calibration.calibration_path())
    monkeypatch.setattr("stackwise.memory.room.machine_bytes", lambda: 12345)
    found = this_machine()
    assert (found.memory_bytes, found.host_bytes) == (12345.0, 12345.0)
    assert found.matmul == calibrated().hardware().matmul


def test_a_card_that_is_gone_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path))
    samples = every_rate(torch.device("cuda"))
    facts = {**calibration.facts_of(CPU), "device": "cuda"}
    Calibration(facts, samples.taken()).write(calibration.calibration_path())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(sw.ExperimentError, match="measured with a card that torch does not see"):
        this_machine()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1, 80 << 30))
    found = this_machine()
    assert found.memory_bytes == 80 << 30 and found.link_rate == 1 << 28 and found.calls_overlap


def test_the_faster_dtype_is_named() -> None:
    samples = every_rate()
    samples.rates["matmul/bfloat16", 1024] = [2.5 * 1024]
    found = Calibration(calibration.facts_of(CPU), samples.taken())
    assert found.faster == "bfloat16"
    assert str(found).endswith(
        "products are 2.5 times as fast in bfloat16 here: precision.compute=bfloat16"
    )
    samples.rates["matmul/bfloat16", 1024] = [512.0]
    slow = Calibration(found.facts, samples.taken())
    assert str(slow).endswith("2.0 times as fast in float32 here: precision.compute=float32")


def test_rates_have_units() -> None:
    assert scaled(187e9, "FLOP") == "187 GFLOP/s" and scaled(12.0, "byte") == "12 byte/s"


def test_only_the_call_is_on_the_clock() -> None:
    """A clock that counts what has happened: preparing takes nothing, a call takes one."""
    told = {"calls": 0, "made": 0}

    def make():
        def prepare():
            told["made"] += 1

            def run() -> None:
                told["calls"] += 1

            return run

        return prepare

    seconds = timings(Probe("x", 1, 1, "call", make), CPU, lambda: float(told["calls"]))
    assert seconds == [1.0] * calibrate.FEWEST and told["made"] == calibrate.FEWEST + 1


def test_on_a_card_the_clock_waits_for_the_work(monkeypatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("wait"))

    def clock() -> float:
        order.append("clock")
        return 1.0

    probe = Probe("x", 1, 1, "call", lambda: lambda: lambda: order.append("run"))
    timings(probe, torch.device("cuda"), clock)
    assert order[1:6] == ["wait", "clock", "run", "wait", "clock"]


def test_a_round_of_the_disk_gives_four_rates(tmp_path) -> None:
    samples = Samples()
    measure_round(samples, CPU, tmp_path, probes=[])
    assert {name for name, _ in samples.rates} == {
        "disk/write",
        "disk/read",
        "disk/pages",
        "disk/hash",
    }
    assert not list(tmp_path.iterdir()), "its file is gone"


def test_reading_a_disk_goes_past_the_page_cache(tmp_path, monkeypatch) -> None:
    """By the flag where it is known, and without it where the file system refuses."""
    file, flags, real = tmp_path / "x", [], disks.os.open
    file.write_bytes(b"x" * 10)

    def opened(path, flag):
        flags.append(flag)
        if flag & 0o40000:
            raise OSError(22, "Invalid argument")
        return real(path, flag)

    monkeypatch.setattr(disks.os, "O_DIRECT", 0o40000, raising=False)
    monkeypatch.setattr(disks.os, "open", opened)
    handle = disks.opened(file, True)
    disks.os.close(handle)
    assert flags == [0o40000, 0]
    flags.clear()
    disks.os.close(disks.opened(file, False))
    assert flags == [0]


def test_rounds_under_one_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="rounds: 0 must be 1 or more"):
        sw.calibrate(tmp_path, rounds=0)


def test_a_card_that_is_not_here_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(sw.ExperimentError, match="'cuda', but torch sees no CUDA card here"):
        sw.calibrate(tmp_path, device="cuda")


def test_the_file_has_the_facts_of_the_machine(tmp_path, monkeypatch) -> None:
    few = [probe for probe in probes_for(CPU) if probe.name.startswith("matmul/")][::4]
    monkeypatch.setattr(calibrate, "probes_for", lambda device: few)
    sw.calibrate(tmp_path, output=tmp_path / "c.json", rounds=2, threads=1)
    whole = json.loads((tmp_path / "c.json").read_text())
    assert {"machine", "torch", "threads", "date", "cores", "device", "format"} <= whole.keys()
    assert whole["threads"] == 1
    counts = {rate["name"]: rate["count"] for rate in whole["rates"]}
    assert counts["disk/write"] == 2 and counts["matmul/float32"] >= 2 * calibrate.FEWEST
