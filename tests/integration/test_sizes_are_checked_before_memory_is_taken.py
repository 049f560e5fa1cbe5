"""A file of a stranger's may say that it is as large as it likes: nothing is allocated for it.

Each case runs in a process that may take 512 MiB more than it has, and each is refused in words.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import stackwise as sw
from stackwise.training.tensorfile import save_file

from ..strangers import rehash
from ..warm import forked_json

CHILD = """
import json, resource, sys
import torch
torch.set_num_threads(1)
import stackwise as sw
from pathlib import Path
from stackwise.runs.following import Follower
from stackwise.runs.asked import asked_of
from stackwise.trunk.blocks import read_header
from stackwise.trunk.shards import read_manifest as read_cache
from stackwise.training.run import resume
from stackwise.data.tokenizer import read_tokenizer
from stackwise.interop.model_folder import read_model
from stackwise.interop.peft_folder import read_folder
from stackwise.interop.source import read_source
from stackwise.yaml_text import read_mapping, read_text
import pandas, pyarrow.parquet, stackwise.runs.arrow, tokenizers


def kib():
    return int(open("/proc/self/statm").read().split()[0]) * 4


folder, act = Path(sys.argv[1]), sys.argv[2]
resource.setrlimit(resource.RLIMIT_AS, (kib() * 1024 + (512 << 20),) * 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(json.dumps([str(eval(act)), None]))
except Exception as error:
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([f"{type(error).__name__}: {error}"[:2000], after - before]))
"""
TINY = {"rack": {"stacks": 2, "blocks_per_stack": 1, "d_model": 16, "heads": 2}}


def asked(act: str, folder: Path) -> str:
    """What comes of an act in a small process; under 256 MiB more than before."""
    said, kib = forked_json(CHILD, str(folder), act)
    assert kib is None or kib < 256 << 10, said
    return said


@pytest.fixture
def run(tiny, place) -> sw.Run:
    """One that is stopped in its first stage, with a checkpoint."""

    def stop(work, numbers):
        work.stop_requested = True

    return sw.train(tiny, place, on_step=stop)


def rewritten(run: sw.Run, old: str, new: str) -> None:
    """A stranger's change of experiment.yaml, with every hash set right."""
    path = run.path / "experiment.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    rehash(run.path, "experiment.yaml")


def test_a_rack_is_as_large_as_its_files(run):
    rewritten(run, "d_model: 16", "d_model: 65536")
    for act in ("sw.Run(folder).rack()", "sw.Run(folder).rack(lent='disk')", "resume(folder)"):
        said = asked(act, run.path)
        assert "would take" in said or "by arithmetic" in said, said


def test_so_is_its_vocabulary(run):
    rewritten(run, "vocab: null", "vocab: 4000000")
    assert "part 'embedding' has " in asked("sw.Run(folder).rack()", run.path)


def test_a_run_that_has_not_begun_is_planned_first(tiny, place):
    from stackwise.training.start import create_run

    made = create_run(tiny, place)
    rewritten(made, "d_model: 16", "d_model: 65536")
    assert "training takes" in asked("resume(folder)", made.path)


def entry(**facts):
    return {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **facts}


HEADERS = {
    "a header of 2^60 bytes": (1 << 60, None),
    "a shape that overflows": (None, {"a": entry(shape=[1 << 40, 1 << 40])}),
    "a shape larger than the file": (
        None,
        {"a": entry(shape=[1 << 40], data_offsets=[0, 1 << 42])},
    ),
    "offsets outside": (None, {"a": entry(data_offsets=[1 << 50, (1 << 50) + 16])}),
    "negative offsets": (None, {"a": entry(data_offsets=[-16, 0])}),
    "offsets that overlap": (None, {"a": entry(), "b": entry()}),
    "an unknown dtype": (None, {"a": entry(dtype="F7")}),
    "a shape of text": (None, {"a": entry(shape=["4"])}),
    "no mapping": (None, [1]),
    "a depth without end": (None, '{"a":' + "[" * 100_000),
}
SOURCES = {
    "read_header(folder / 'm.safetensors')": "CheckpointError",
    "read_source(folder)": "ModelError",
    "read_folder(folder)": "ModelError",
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_of_tensors_is_compared_with_its_file(tmp_path, what):
    length, entries = HEADERS[what]
    text = (entries if isinstance(entries, str) else json.dumps(entries or {})).encode()
    head = (len(text) if length is None else length).to_bytes(8, "little")
    for name in ("m", "model", "adapter_model"):
        (tmp_path / f"{name}.safetensors").write_bytes(head + text + bytes(16))
    for name in ("config", "adapter_config"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"peft_type": "LORA"}))
    said = [asked(act, tmp_path) for act in SOURCES]
    for (act, kind), found in zip(SOURCES.items(), said, strict=True):
        overlapping = what == "offsets that overlap" and act.startswith("read_header")
        assert found.startswith(kind) or overlapping, (act, found)


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("file", "act", "why"),
    [
        ("experiment.yaml", "sw.Experiment.load(folder / 'experiment.yaml')", "over 100000 values"),
        ("placement.yaml", "sw.Placement.load(folder / 'placement.yaml')", "over 100000 values"),
        ("study.yaml", "sw.Study.load(folder / 'study.yaml')", "over 100000 values"),
        ("model.yaml", "read_model(folder)", "over 100000 values"),
        ("experiment.yaml", "asked_of(sw.Run(folder))", "experiment.yaml is damaged"),
    ],
)
def test_a_billion_laughs_are_not_laughed(tmp_path, file, act, why):
    (tmp_path / "stages.json").write_text("[]")
    (tmp_path / file).write_text(laughs(12))
    assert why in asked(act, tmp_path)


def test_what_is_nested_without_end_ends_nothing(tmp_path):
    (tmp_path / "stages.json").write_text("[]")
    for text in ("[" * 200_000, "{a: " * 200_000, "- " * 200_000):
        (tmp_path / "experiment.yaml").write_text(text)
        assert "experiment.yaml is damaged" in asked("asked_of(sw.Run(folder))", tmp_path)
        assert "Error" in asked("sw.Experiment.load(folder / 'experiment.yaml')", tmp_path)


def test_a_file_as_long_as_the_disk_is_not_read(run):
    files = {
        "status.json": "sw.Run(folder).status()",
        "stages.json": "sw.Run(folder).stages()",
        "plan.json": "sw.Run(folder).plan()",
        "provenance.json": "sw.Run(folder).provenance()",
        "rack/manifest.json": "sw.Run(folder).rack()",
        "tokenizer.json": "sw.Run(folder).tokenizer()",
        "experiment.yaml": "sw.Run(folder).experiment",
        "placement.yaml": "sw.Placement.load(folder / 'placement.yaml')",
    }
    for name, act in files.items():
        kept = (run.path / name).read_bytes()
        with (run.path / name).open("r+b") as file:
            file.truncate(1 << 33)
        said = asked(act, run.path)
        assert re.match("(?!Memory)[A-Za-z]*(Error|DamagedRun): ", said), said
        (run.path / name).write_bytes(kept)
    for name in ("labels.json", "exit.json", "lock"):
        with (run.path / name).open("w+b") as file:
            file.truncate(1 << 33)
    assert asked("sw.Run(folder).labels", run.path).startswith("Labels(")
    assert asked("sw.Run(folder).state", run.path) == "stopped"


def test_metrics_are_no_longer_than_their_file(run, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = run.path / "metrics" / "0001.arrows"
    nothing = pa.schema([("step", pa.null()), ("loss", pa.null())])
    long = pa.record_batch([pa.nulls(10**9)] * 2, schema=nothing)
    zeros = pa.array([0.0] * 2_000_000)
    plain = pa.schema([("step", pa.int64()), ("loss", pa.float64())])
    bomb = pa.record_batch([pa.array(range(2_000_000)), zeros], schema=plain)
    act = "(len(sw.Run(folder).metrics(gaps=True)), Follower(folder).read())"
    for batch, how in ((long, None), (bomb, "zstd")):
        options = pa.ipc.IpcWriteOptions(compression=how)
        with pa.ipc.new_stream(path, batch.schema, options=options) as out:
            out.write_batch(batch)
        assert asked(act, run.path).startswith("(0, ")
    table = pa.table({"step": pa.repeat(pa.scalar(1), 30_000_000)})
    pq.write_table(table, run.path / "metrics.parquet", compression="zstd")
    shutil.rmtree(run.path / "metrics")
    assert asked(act, run.path).startswith("(0, ")


def test_a_tokenizer_has_as_many_ids_as_entries(tmp_path):
    vocab = {"a": 0, "b": (1 << 32) - 2}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}
    (tmp_path / "t.json").write_text(json.dumps({"version": "1.0", "model": model}))
    assert "its largest id is 4294967294" in asked("read_tokenizer(folder / 't.json')", tmp_path)


def test_a_cache_says_no_more_than_it_holds(tmp_path):
    facts = {"format": 2, "key": "k", "rows": 10**15, "tokens": 10**9, "width": 10**9}
    facts |= {"dtype": "float32", "group": 1, "shard_bytes": 1, "complete": False, "shards": []}
    (tmp_path / "cache.json").write_text(json.dumps(facts))
    assert asked("read_cache(folder, 'k').complete", tmp_path) == "False"
    facts |= {"shards": [{"file": "../x", "bytes": 1, "xxh3": "0" * 32}]}
    (tmp_path / "cache.json").write_text(json.dumps(facts))
    assert asked("read_cache(folder, 'k')", tmp_path).startswith("CacheError")


def test_adapters_have_the_rank_of_their_file(tmp_path):
    (tmp_path / "adapter_config.json").write_text(" " * (2 << 20))
    save_file({"a": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    assert asked("read_folder(folder)", tmp_path).startswith("ModelError")
