"""A folder with valid files of every kind, made once for a process, and removed as it ends.

Two runs of this version, one finished and one stopped between stages, and one that ships; a model
folder, a Llama of Hugging Face's, adapters, a cache of a trunk, a calibration, a record of the
doctor's, a study. What is malformed of them is in `changes.py`.
"""

import atexit
import hashlib
import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

import stackwise as sw
from stackwise.adapters import Adapter
from stackwise.interop.llama import llama_shapes
from stackwise.interop.llama_config import rack_of
from stackwise.model.adapters import put_on
from stackwise.planner.calibration import Calibration, Rate, facts_of
from stackwise.planner.probes import probes_for
from stackwise.runs.metrics import read_segment
from stackwise.seals import sealed
from stackwise.training.run import execute
from stackwise.training.start import create_run, settled
from stackwise.training.tensorfile import save_file
from stackwise.trunk.shards import Layout
from stackwise.trunk.writer import CacheWriter

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "data" / "runs" / "shipped-grow-81b05028"
KEY = "key"  # of the cache
EXPERIMENT: dict[str, Any] = {
    "title": "tiny",
    "rack": {"stacks": 3, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
    "data": {"corpus": {"kind": "markov", "size_bytes": 40_000}, "seq_len": 16},
    "curriculum": {"name": "grow"},
    "optim": {"batch": 4, "lr": 0.01, "ema": 0.9},
    "budget": {"tokens": 16 * 4 * 12},
    "eval": {"points": 4, "windows": 8, "draws": 1, "final": 16},
}
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "torch_dtype": "float32",
}


@cache
def place() -> Path:
    """The folder; `STACKWISE_CACHE` points into it from then on."""
    folder = Path(tempfile.mkdtemp(prefix="stackwise-fuzz-"))
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
    os.environ["STACKWISE_CACHE"] = str(folder / "cache")
    pa.set_memory_pool(pa.system_memory_pool())  # mimalloc reserves a GiB at a time
    torch.set_num_threads(1)
    _runs(folder)
    _models(folder)
    _machine(folder)
    _texts(folder)
    return folder


def tiny() -> sw.Experiment:
    """The experiment of the two runs."""
    return sw.Experiment(**EXPERIMENT)


def _runs(folder: Path) -> None:
    placement = sw.Placement(runs_dir=str(folder / "runs"), device="cpu", threads=1)
    done = sw.train(tiny(), placement)
    done.path.rename(folder / "runs" / "done")
    exp, placement = settled(tiny().replace(title="half"), placement)
    half = create_run(exp, placement)
    execute(half, through=1)
    half.path.rename(folder / "runs" / "half")
    shutil.copytree(SHIPPED, folder / "runs" / "shipped")
    for name in ("done", "half"):
        run = sw.Run(folder / "runs" / name)
        run.label(name="first", note="a note\nof two lines", tags=["a", "b"])
        order = {"command": "pause", "time": 1767268800.0, "pid": 4711, "patience": None}
        (run.path / "control").mkdir(exist_ok=True)
        (run.path / "control" / "0001.json").write_text(json.dumps(order))
        (run.path / "log.txt").write_text("it began\nit went on\n")
        without_seals(run.path)
    layout = Layout(rows=10, tokens=3, width=4, dtype="bfloat16", group=2, shard_bytes=4 * 24)
    with CacheWriter(folder / "trunk", KEY, layout) as writer:
        writer.write(0, torch.arange(10 * 3 * 4, dtype=torch.bfloat16).reshape(10, 3, 4))


def without_seals(run: Path) -> None:
    """A run as older versions wrote it: what is malformed is looked into, not refused by a hash."""
    for path in run.glob("*.json"):
        found = json.loads(path.read_text())
        rows = found if isinstance(found, list) else [found]
        for row in rows:
            for name in ("sha256", "files", *(["events"] if path.name == "exit.json" else [])):
                row.pop(name, None)
        path.write_text(json.dumps(found, indent=1))
    for path in run.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        stages = hashlib.sha256((run / "stages.json").read_bytes()).hexdigest()
        known = {**manifest["run"], "stages.json": stages}
        path.write_text(json.dumps(sealed({**manifest, "run": known, "events": 0}), indent=1))
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    lines = [json.dumps({k: v for k, v in event.items() if k != "crc"}) for event in events]
    (run / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
    for path in run.glob("metrics/*.arrows"):
        table, plain = read_segment(path), path.with_suffix(".plain")
        with pa.ipc.new_stream(plain, table.schema) as stream:
            stream.write_table(table)
        plain.replace(path)  # what is read is mapped
    if (run / "metrics.parquet").exists():
        compact = pq.read_table(run / "metrics.parquet").replace_schema_metadata(None)
        pq.write_table(compact, run / "metrics.parquet")


def _models(folder: Path) -> None:
    theirs = folder / "llama"
    theirs.mkdir()
    shape, _ = rack_of(LLAMA)
    draw = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(size, generator=draw)
        for name, size in llama_shapes(shape, LLAMA["vocab_size"]).items()
    }
    save_file(tensors, theirs / "model.safetensors")
    (theirs / "config.json").write_text(json.dumps(LLAMA))
    sw.import_model(theirs, folder / "model")
    shards = folder / "sharded"
    shards.mkdir()
    shutil.copy(theirs / "config.json", shards)
    placed = {name: f"model-{n % 2}.safetensors" for n, name in enumerate(tensors)}
    for file in set(placed.values()):
        save_file({n: t for n, t in tensors.items() if placed[n] == file}, shards / file)
    index = {"metadata": {"total_size": 1}, "weight_map": placed}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))


@cache
def adapters() -> Path:
    """A folder of adapters; made when it is asked for, since peft takes seconds to import."""
    rack, draw = sw.Run(place() / "runs" / "done").rack(), torch.Generator().manual_seed(0)
    put_on(rack.stacks["s0"], Adapter(stack="s0", rank=2), generator=draw)
    return sw.save_adapters(rack, place() / "adapters")


def _machine(folder: Path) -> None:
    cpu = torch.device("cpu")
    rates = [Rate(p.name, float(p.size), p.unit, float(p.size), 0.1, 3) for p in probes_for(cpu)]
    rates += [
        Rate(f"disk/{n}", 1.0, "byte", 1e9, 0.0, 1) for n in ("write", "read", "pages", "hash")
    ]
    Calibration(facts_of(cpu), tuple(rates)).write(folder / "calibration.json")
    bar = {"over_frac": 0.04, "under_frac": 0.01, "figures": 16}
    bars = {"cpu": {"peak": bar, "time": bar, "made": "2026-01-01", "version": "0.1.0"}}
    record = {
        "kind": "stackwise doctor", "format": 1, "made": "2026-01-01", "machine": "m", "ok": True,
        "checks": [{"name": "a", "ok": True}], "bars": bars, "environment": {}, "seconds": 1.0,
    }  # fmt: skip
    (folder / "doctor.json").write_text(json.dumps(record))
    (folder / "card.yaml").write_text(
        "memory_gib: 24\nbf16_tflops: 100\nmemory_tbs: 1.0\nlink_gbs: 20\nsaid: a card\n"
    )


def _texts(folder: Path) -> None:
    table = pa.table(
        {"text": ["In the beginning", "was the word", "ā\U0001d7d9"] * 20, "n": list(range(60))}
    )
    pq.write_table(table, folder / "text.parquet", row_group_size=16)
    (folder / "text.jsonl").write_text('{"text": "In the beginning", "n": 1}\n' * 3)
    (folder / "text.txt").write_text("In the beginning was the word, ā\U0001d7d9.\n" * 50)
    (folder / "mine.yaml").write_text(sw.Experiment(**EXPERIMENT).to_yaml())
    (folder / "study.yaml").write_text(
        "base:\n  preset: toy\n  title: small\n  rack: {stacks: 2, d_model: 16, heads: 2}\n"
        "  data: {corpus: {kind: markov, size_bytes: 40000}, seq_len: 16}\n"
        "vary:\n  curriculum: [end_to_end, grow]\nseeds: [0, 1, 2]\nequal: tokens\n"
        "lr_grid: {times: [0.5, 1, 2]}\nmore:\n  wide: {rack: {d_model: 32}}\n"
        "placement: {runs_dir: runs, device: cpu}\neffect: 0.01\nsame_bytes: false\n"
    )
    done = {
        "role": "arm",
        "arm": "a",
        "seed": 0,
        "rate": 0.01,
        "run": "../runs/done",
        "error": None,
    }
    tried = {**done, "role": "tuning"}
    facts = {"equal": "tokens", "control": "a", "notes": [], "effect": None, "runs": [done, tried]}
    (folder / "study").mkdir()
    (folder / "study" / "runs.json").write_text(json.dumps(facts))
