"""Every target by its name, with the kind of its files and valid ones to begin with.

A target is a function of bytes that returns, or raises one of the product's own errors. The test
and `benchmarks/fuzz.py` share them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from . import asked, files, folders
from .guard import Target
from .workplace import EXPERIMENT, adapters, place

COMMANDS = (
    "plan toy optim.lr=1e-3 --hardware h200",
    "plan mine.yaml curriculum=left_to_right placement.trunk=streamed --hardware h200 --json",
    "plan toy attention={kind: mla, kv_rank: 32} masking.bands=linear --all --hardware card.yaml",
    "plan toy placement.trunk=cached data.distinct_epochs=2 --text-tokens 4200000 --host-gb 64",
    "plan gpt2-small --fit --hardware l40s-48",
    "run toy data=text:text.txt data.tokenizer=json:fuzzed.json budget.flops=1e12 seed=3",
    "run mine.yaml --rerun rack={stacks: 2, d_model: 32} placement.threads=1",
    "run model data=text:text.txt placement=cpu",
    "launch toy curriculum=grow --stage 0 --stage next --name first --no-queue",
    "lr-find toy --stage 1 --low 1e-6 --high 1 --steps 100 --lead-steps 3 --json",
    "study study.yaml --workers 2 --threads 1 --json",
    "resume half placement.device=cpu placement={threads: 2} --runs-dir runs",
    "watch half --plain --runs-dir runs",
    "runs --runs-dir runs",
    "eval half --draws 2 --seed 3 --device cpu --best --runs-dir runs",
    "sample done In --length 8 --steps 4 --seed 1 --runs-dir runs",
    "label done --name x --note y --tag z --runs-dir runs",
    "fork half 0 optim.lr=3e-4 --runs-dir runs",
    "export model out --shard-size 5GB --to hf",
    "import llama imported --blocks-per-stack 2 --seed 1",
    "advise --hardware h200 --days 14",
    "share done out.zip --no-weights --runs-dir runs",
    "pause half --runs-dir runs",
    "stop half --now --runs-dir runs",
    "presets",
)


@dataclass(frozen=True)
class Entry:
    """A target.

    Attributes:
        run: The function.
        kind: Of its files, as `changes.py` knows them.
        valid: Makes valid files, with which changes begin.
    """

    run: Target
    kind: str
    valid: Callable[[], list[bytes]]


def kept_file(*names: str) -> Callable[[], list[bytes]]:
    """Files of the workplace."""
    return lambda: [(place() / name).read_bytes() for name in names]


def presets() -> list[bytes]:
    """Experiments that ship, and the whole of one."""
    folder = Path(asked.sw.__file__).parent / "presets"
    names = ("toy", "gpt2-small", "bert-base")
    return [(place() / "mine.yaml").read_bytes()] + [
        (folder / f"{name}.yaml").read_bytes().partition(b"\nplacement:")[0] for name in names
    ]


def mappings() -> list[bytes]:
    """An experiment's keys as JSON, whole and few."""
    import json

    whole = asked.tiny().model_dump(mode="json")
    return [json.dumps(value).encode() for value in (EXPERIMENT, whole)]


def changes() -> list[bytes]:
    """What `replace` is given."""
    import json

    some = [
        {"optim.lr": 1e-3, "curriculum": "left_to_right", "seed": 1},
        {"curriculum": {"name": "grow", "start": 1}, "rack": {"stacks": 2}, "masking": "cosine"},
        {"attention": "mla", "attention.kv_rank": 8, "data": "text:text.txt"},
        {"adapters": {"rank": 2}, "objective": {"kind": "clm"}, "budget": {"flops": 1e9}},
        {
            "masking.bands": [0.25, 0.5],
            "data.seq_len_by_stage": [8, 8, 16],
            "precision.frozen": "fp8",
        },
        {"data.corpus": {"kind": "mix", "corpora": ["kjv", "text:a"], "weights": [1, 2]}},
    ]
    return [json.dumps(value).encode() for value in some]


def commands() -> list[bytes]:
    """Command lines, a word on each line; braces hold a word together."""
    import re

    return ["\n".join(re.findall(r"[^\s{]*\{[^}]*\}|\S+", line)).encode() for line in COMMANDS]


def run_files(whose: str) -> dict[str, Entry]:
    """A target for each file of a run that is there."""
    return {
        f"{whose}/{name}": Entry(
            folders.run_file(name, whose, readers), kind, kept_file(f"runs/{whose}/{name}")
        )
        for name, (kind, readers) in folders.READERS.items()
        if (whose, name) != ("half", "metrics.parquet")
    }


def part_files() -> list[bytes]:
    return [path.read_bytes() for path in (place() / "runs" / "half" / "rack").glob("s0-*")]


def named(whose: str) -> list[bytes]:
    """Files of a run behind their names."""
    found = [(name, place() / "runs" / whose / name) for name in folders.FILES]
    return [name.encode() + b"\n" + path.read_bytes() for name, path in found if path.exists()]


@cache
def targets() -> dict[str, Entry]:
    """All of them."""
    manifests = kept_file("runs/half/rack/manifest.json")
    return {
        "experiment": Entry(asked.experiment, "yaml", presets),
        "mapping": Entry(asked.python_mapping, "json", mappings),
        "replace": Entry(asked.replaced, "json", changes),
        "placement": Entry(asked.placement, "yaml", kept_file("runs/done/placement.yaml")),
        "study": Entry(asked.study, "yaml", kept_file("study.yaml")),
        "card": Entry(asked.card, "yaml", kept_file("card.yaml")),
        "command": Entry(asked.command_line, "words", commands),
        **run_files("done"),
        **run_files("half"),
        "page": Entry(folders.page, "named", lambda: named("done")),
        "commands/done": Entry(folders.commands_on("done"), "named", lambda: named("done")),
        "commands/half": Entry(folders.commands_on("half"), "named", lambda: named("half")),
        "manifest": Entry(folders.manifest, "json", manifests),
        "sealed": Entry(folders.sealed_manifest, "json", manifests),
        "part": Entry(folders.part_file, "bytes", part_files),
        "cache": Entry(folders.cache_manifest, "json", kept_file("trunk/cache.json")),
        "shard": Entry(folders.cache_shard, "bytes", kept_file("trunk/rows-000001.bin")),
        "study/runs.json": Entry(folders.study_runs, "json", kept_file("study/runs.json")),
        "tokenizer": Entry(files.tokenizer, "json", tokenizers),
        "text": Entry(files.text, "bytes", kept_file("text.txt")),
        "jsonl": Entry(files.jsonl, "lines", kept_file("text.jsonl")),
        "parquet": Entry(files.parquet, "bytes", kept_file("text.parquet")),
        "config.json": model_entry("llama", "config.json", files.imported, "json"),
        "index.json": model_entry(
            "sharded", "model.safetensors.index.json", files.imported, "json"
        ),
        "safetensors": model_entry("llama", "model.safetensors", files.imported, "bytes"),
        "model.yaml": model_entry("model", "model.yaml", files.opened, "yaml"),
        "model/manifest": model_entry("model", "rack/manifest.json", files.opened_up, "json"),
        "adapter_config": adapters_entry("adapter_config.json", "json"),
        "adapter": adapters_entry("adapter_model.safetensors", "bytes"),
        "calibration": Entry(files.calibration, "json", kept_file("calibration.json")),
        "doctor": Entry(files.doctor, "json", kept_file("doctor.json")),
    }


def model_entry(folder: str, name: str, read: Callable[[Path], object], kind: str) -> Entry:
    return Entry(files.model_file(folder, name, read), kind, kept_file(f"{folder}/{name}"))


def adapters_entry(name: str, kind: str) -> Entry:
    read = files.model_file("adapters", name, files.adapted)
    return Entry(read, kind, lambda: [(adapters() / name).read_bytes()])


def tokenizers() -> list[bytes]:
    """Byte-level and other ones, as the tokenizers library writes them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    word = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "word": 2}, unk_token="[UNK]"))
    word.pre_tokenizer = pre_tokenizers.Whitespace()
    word.normalizer = normalizers.NFC()
    word.add_special_tokens(["[PAD]"])
    pair = Tokenizer(models.Unigram([("<unk>", 0.0), ("t", -1.0), ("h", -2.0)], unk_id=0))
    texts = ["In the beginning was the word"] * 3
    from stackwise.data.library_tokenizer import trained_bpe

    bpe = trained_bpe(iter(texts), 270).to_json()
    made = [word.to_str(), pair.to_str(), bpe]
    return [*kept_file("runs/done/tokenizer.json")(), *(each.encode() for each in made)]
