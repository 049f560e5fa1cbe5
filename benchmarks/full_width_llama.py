"""Two blocks of full 70B width: imported, trained in turn, exported, loaded by transformers.

    python benchmarks/full_width_llama.py [FOLDER]

Makes a Llama folder of random bfloat16 weights (32000 entries, two layers of Llama 2 70B's), then,
each in a process of its own: `import`; `export` of that, which must give back every tensor bit for
bit; a run of `block_coordinate`, one visit to each block, embedding fixed, that begins with the
model; `export` of the run; and a process that loads the result with transformers and reads some
text. Takes about 25 GB of disk in FOLDER (default: a temporary one), all of it removed at the end,
and prints seconds and peak memory of each.

It exits with 1 if importing or exporting holds more than a block, if a tensor does not come back,
or if a block has not moved.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors import safe_open

import stackwise as sw
from stackwise.report import table

TOKENS, VOCAB, BLOCK_GIB = 512, 32000, 0.8557 * 2e9 / 2**30


def make(folder: Path) -> None:
    """A Llama of two full-width layers, as transformers saves one."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = sw.Experiment.preset("llama-2-70b").rack
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_ff,
        num_hidden_layers=2,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
    )
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(folder / "llama", max_shard_size="2GB")


def bring_in(folder: Path) -> None:
    """Import it."""
    sw.import_model(folder / "llama", folder / "model")


def give_back(folder: Path) -> None:
    """Export what was imported."""
    sw.export_model(folder / "model", folder / "same")


def train(folder: Path) -> None:
    """Visit each block once."""
    model = sw.read_model(folder / "model")
    exp = sw.Experiment(
        title="full-width",
        start="model",
        rack=model.rack,
        attention=model.attention,
        objective="clm",
        curriculum={"name": "block_coordinate", "cycles": 1, "embedding": "never"},
        data={"corpus": "kjv", "seq_len": TOKENS},
        optim={
            "name": "lion8bit",
            "batch": 1,
            "grads": "in_backward",
            "ema": None,
            "clip": None,
            "lr": 2e-5,
        },
        precision={"compute": "bfloat16", "weights": "bfloat16", "rounding": "stochastic"},
        budget={"tokens": 2 * 2 * TOKENS},
        eval={"points": 1, "windows": 1, "final": 1},
    )
    placement = sw.Placement(
        data_dir=str(folder), runs_dir=str(folder / "runs"), trunk="streamed", device="cpu"
    )
    run = sw.train(exp, placement)
    print(run.metrics()[["stage", "loss", "grad_norm", "seconds"]].to_string(), file=sys.stderr)
    print(run.result()["bits_per_byte"], file=sys.stderr)


def take_out(folder: Path) -> None:
    """Export the run."""
    (run,) = sw.runs_in(folder / "runs")
    sw.export_model(run, folder / "trained")


def load(folder: Path) -> None:
    """Read text with it, by transformers alone."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "trained", dtype="auto")
    assert model.dtype == torch.bfloat16
    with torch.no_grad():
        logits_V = model(torch.tensor([[73, 110, 32, 116, 104, 101]])).logits[0, -1]
    print(f"next byte: {int(logits_V[:256].argmax())}", file=sys.stderr)
    assert logits_V.isfinite().all()


STEPS = {step.__name__: step for step in (make, bring_in, give_back, train, take_out, load)}
LEAN = ("bring_in", "give_back", "take_out")


def differing(one: Path, other: Path) -> list[str]:
    """The tensors of two folders that are not equal to the last bit."""
    found = []
    places = {name: path for path in other.glob("*.safetensors") for name in names_in(path)}
    for path in sorted(one.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                with safe_open(places[name], framework="pt") as its:
                    if not file.get_tensor(name).equal(its.get_tensor(name)):
                        found.append(name)
    return found


def names_in(path: Path) -> list[str]:
    """The tensors of a file."""
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def anonymous_gib() -> float:
    """The most that a step's process held, less what is mapped from files."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return (int(fields["VmHWM"].split()[0]) - int(fields["RssFile"].split()[0])) / 2**20


def child(name: str, folder: Path) -> list[str]:
    """Run one step in a process of its own: its name, seconds and peak."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, name, str(folder)], stdout=subprocess.PIPE, text=True, check=True
    )
    return [name, f"{time.perf_counter() - began:.0f}", done.stdout.strip().splitlines()[-1]]


def main(folder: Path) -> int:
    """Run all steps and compare."""
    good, rows = True, []
    base = float(child("nothing", folder)[2])
    try:
        for name in STEPS:
            rows.append(child(name, folder))
            print(" ".join(rows[-1]), file=sys.stderr, flush=True)
            if name in LEAN:
                good &= float(rows[-1][2]) - base <= BLOCK_GIB
            if name == "give_back":
                good &= not differing(folder / "llama", folder / "same")
                shutil.rmtree(folder / "same")
        moved = differing(folder / "llama", folder / "trained")
        still = [name for name in names_in_all(folder / "llama") if name not in moved]
        good &= still == ["model.embed_tokens.weight"]
    finally:
        shutil.rmtree(folder)
    print(
        table(
            ["two blocks, 1.71 GB each", "s", "peak GiB"],
            [["imports alone", "", f"{base:.2f}"], *rows],
        )
    )
    print(f"tensors that came back as they were after training: {', '.join(still)}")
    return 0 if good else 1


def names_in_all(folder: Path) -> list[str]:
    """The tensors of a folder."""
    return sorted(name for path in folder.glob("*.safetensors") for name in names_in(path))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        STEPS.get(sys.argv[1], lambda folder: None)(Path(sys.argv[2]))
        print(f"{anonymous_gib():.2f}")
    else:
        sys.exit(main(Path(tempfile.mkdtemp(dir=sys.argv[1] if sys.argv[1:] else None))))
