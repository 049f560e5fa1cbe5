"""Ten thousand malformed inputs: each is read, or refused in the product's own words.

None ends in another exception, takes over 20 s of processor time or a GiB of memory; at the command
line, one message and a documented exit code. The same seeds each time; `benchmarks/fuzz.py` looks
further, as long as one likes.
"""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackwise.runs import Run, RunError
from stackwise.runs.metrics import read_compacted, read_table

from . import guard
from .changes import changed
from .guard import bounded, guarded, refuses
from .kept import KEPT
from .targets import targets
from .workplace import place

# Malformed inputs of each target: many where one takes a millisecond.
COUNTS = {
    "replace": 2400, "mapping": 1600, "tokenizer": 700, "text": 600, "jsonl": 700, "parquet": 500,
    "experiment": 250, "placement": 200, "study": 120, "card": 300, "command": 250,
    "manifest": 100, "sealed": 150, "part": 100, "cache": 300, "shard": 200, "study/runs.json": 150,
    "config.json": 100, "index.json": 60, "safetensors": 40, "model.yaml": 60, "model/manifest": 40,
    "adapter_config": 100, "adapter": 60, "calibration": 80, "doctor": 300, "page": 6,
    "commands/done": 5, "commands/half": 5,
}  # fmt: skip
OF_A_RUN = {"events.jsonl": 60, "stages.json": 20, "tokenizer.json": 60, "placement.yaml": 60}
CHANGES = st.lists(
    st.tuples(*[st.integers(0, (1 << 16) - 1)] * 3), min_size=1, max_size=4
)  # of a valid file; what fails shrinks to the one that matters


def count_of(name: str) -> int:
    """How many inputs a target gets."""
    return COUNTS.get(name) or OF_A_RUN.get(name.partition("/")[2], 30)


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    with bounded():
        yield


@pytest.mark.parametrize("name", targets())
def test_no_malformed_input_ends_in_a_traceback_a_hang_or_a_gigabyte(name: str) -> None:
    entry, wanted = targets()[name], count_of(name)
    valid, seen = entry.valid(), set[bytes]()

    @settings(max_examples=2 * wanted, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(valid) - 1), CHANGES)
    def each(which: int, changes: list[tuple[int, int, int]]) -> None:
        content = changed(valid[which], entry.kind, changes)
        if len(seen) < wanted and content not in seen and content not in valid:
            guarded(name, entry.run, content)
            seen.add(content)

    each()
    print(f"{name}: {len(seen)} malformed inputs")
    assert len(seen) == wanted


def test_they_are_ten_thousand() -> None:
    counts = {name: count_of(name) for name in targets()}
    assert COUNTS.keys() <= counts.keys()
    print(counts)
    assert sum(counts.values()) >= 10_000


@pytest.mark.parametrize("name", KEPT)
def test_what_once_broke_is_answered(name: str) -> None:
    case = KEPT[name]
    content = case.made()
    guarded(case.target, targets()[case.target].run, content)
    try:
        targets()[case.target].run(content)
    except Exception as error:
        assert refuses(error)
        assert case.said is not None and case.said in str(error), error
    else:
        assert case.said is None


def test_whole_metrics_are_none_of_the_malformed_ones() -> None:
    run = Run(place() / "runs" / "done")
    assert list(read_compacted(run.path)["step"].to_pylist()) == list(range(1, 13))
    assert read_table(run.path).num_rows == len(run.metrics()) == 12


def hangs(content: bytes) -> None:
    while True:
        pass


def fills(content: bytes) -> None:
    bytearray(1 << 31)


def breaks(content: bytes) -> None:
    {}["missing"]


def says_nothing(content: bytes) -> None:
    raise RunError("")


@pytest.mark.parametrize(
    ("target", "why"),
    [(hangs, "Hung"), (fills, "MemoryError"), (breaks, "KeyError"), (says_nothing, "RunError")],
)
def test_what_breaks_is_found_and_its_input_kept(target, why, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(guard, "MOST_SECONDS", 0.2)
    monkeypatch.setattr(guard, "FOUND", tmp_path)
    with pytest.raises(AssertionError, match=f"a/b: {why}: .*the input is") as error:
        guarded("a/b", target, b"content")
    (path,) = tmp_path.glob("a-b-*.bin")
    assert path.read_bytes() == b"content" and str(path) in str(error.value)


def test_one_change_gives_one_malformed_file_again_and_again() -> None:
    valid = b'{"a": [1, {"b": "c"}], "d": null}'
    found = {changed(valid, "json", [(op, 1, 7)]) for op in range(48)}
    assert found == {changed(valid, "json", [(op, 1, 7)]) for op in range(48)}
    assert len(found) > 15 and valid not in {changed(valid, "json", [(1, n, 0)]) for n in range(4)}
