"""The doctor's file: written whole, read back as error bars, refused where it is none."""

from __future__ import annotations

import json

import pytest

import stackwise as sw
from stackwise.data.cache import VARIABLE
from stackwise.planner.doctor import record
from stackwise.planner.doctor.record import DoctorError, error_bars

PEAK = {"over_frac": 0.04, "under_frac": 0.01, "figures": 16}
BARS = {"peak": PEAK, "time": None, "made": "2026-01-31T12:00:00+00:00", "version": "0.1.0"}
FACTS = {"made": "2026-01-31T12:00:00+00:00", "machine": "here", "ok": True, "checks": []}
AGAIN = "; make another: "


@pytest.fixture
def file(tmp_path):
    return tmp_path / "doctor.json"


def test_bars_come_back_as_they_were_written(file) -> None:
    record.write(file, FACTS, {"EPYC": BARS})
    (name, bars), *rest = error_bars(file).items()
    assert (name, rest) == ("EPYC", [])
    assert (bars.peak.over_frac, bars.peak.under_frac, bars.peak.figures) == (0.04, 0.01, 16)
    assert bars.time is None and bars.version == "0.1.0"
    assert sw.error_bars(str(file)) == error_bars(file)


def test_without_a_file_there_are_none(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    assert error_bars() is None
    record.write(record.usual_file(), FACTS, {})
    assert record.usual_file() == tmp_path / "cache" / "doctor.json"
    assert error_bars() is None
    record.write(record.usual_file(), FACTS, {"EPYC": BARS})
    assert list(error_bars()) == ["EPYC"]


def test_bars_of_other_devices_stay(file) -> None:
    record.write(file, FACTS, {"EPYC": BARS, "H200": BARS})
    wider = {**BARS, "peak": {**PEAK, "over_frac": 0.2}}
    record.write(file, FACTS, {"H200": wider})
    found = error_bars(file)
    assert found["EPYC"].peak.over_frac == 0.04 and found["H200"].peak.over_frac == 0.2
    record.write(file, FACTS, {})  # as a quick examination does, which measures none
    assert error_bars(file) == found


def test_a_damaged_record_gives_way(file) -> None:
    file.write_text("{")
    record.write(file, FACTS, {"EPYC": BARS})
    assert list(error_bars(file)) == ["EPYC"]


WHOLE = {"kind": "stackwise doctor", "format": 1, **FACTS, "bars": {"EPYC": BARS}}
ODD = {
    "cut": ('{"kind": "stackw', "is not JSON, or cut"),
    "another file": ('{"a": 1}', "is no file of the doctor's"),
    "a list": ("[1]", "is no file of the doctor's"),
    "a later format": (json.dumps({**WHOLE, "format": 2}), "format 2 is not 1"),
    "nothing of it": (
        json.dumps({"kind": "stackwise doctor", "format": 1}),
        "made: is missing; give it; machine: is missing",
    ),
    "a negative bar": (
        json.dumps({**WHOLE, "bars": {"EPYC": {**BARS, "peak": {**PEAK, "over_frac": -1}}}}),
        "-1 must be 0 or more",
    ),
    "an infinite bar": (
        json.dumps(
            {**WHOLE, "bars": {"EPYC": {**BARS, "peak": {**PEAK, "over_frac": "Infinity"}}}}
        ),
        "inf is not a finite number",
    ),
    "an unknown key": (json.dumps({**WHOLE, "bar": {}}), "bar: unknown key; did you mean 'bars'?"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_no_record_is_refused_with_the_way_out(file, case) -> None:
    text, problem = ODD[case]
    file.write_text(text)
    with pytest.raises(DoctorError) as caught:
        error_bars(file)
    assert str(caught.value).startswith(f"{file}: ") and problem in str(caught.value)
    assert str(caught.value).endswith("doctor --output FILE") and AGAIN in str(caught.value)


def test_a_file_that_was_named_has_to_be_there(file) -> None:
    with pytest.raises(DoctorError, match=r"doctor\.json: is not there; make another: "):
        error_bars(file)
    file.mkdir()
    with pytest.raises(DoctorError, match="cannot be read: Is a directory"):
        error_bars(file)


def test_a_device_has_the_name_that_provenance_gives(tmp_path) -> None:
    from stackwise.runs.provenance import provenance_of

    assert record.device_name("cpu") == provenance_of(tmp_path)["processor"]
