"""What a machine can do: how much it holds, and how fast it does what training consists of.

An entry of `HARDWARE` is a card with its host: what was seen on one, or what its vendor states
times a share that programs reach. `this` is the machine at hand, measured by `calibrate.py`. A
user describes a card of their own in a YAML file with the keys of `Card`. What a stage takes on a
machine is in `seconds.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from stackwise.choice import Section
from stackwise.errors import ExperimentError, closest, said_in
from stackwise.planner.curve import Curve
from stackwise.yaml_text import read_mapping, read_text

GIB = 2**30
THIS = "this"
HOST_BYTES = 128e9  # of the table's cards, unless an option says otherwise
# Of what a vendor states, where nothing was seen: what the two cards that were seen reached of it,
# 790 and 798 of 989 TFLOP/s, 4.3 of 4.8 and 3.0 of 3.35 TB/s.
RATE_SHARE, MEMORY_SHARE = 0.80, 0.90


@dataclass(frozen=True)
class Hardware:
    """A machine, with the rates that `seconds.py` divides by.

    Rates are work per second; where they are curves, by the size of a piece of work.

    Attributes:
        name: As it is asked for.
        kind: Where it computes.
        origin: `measured` on the machine at hand, or not measured there yet (`unknown`: it has no
            rates); `seen` on one like it, or `stated` by the vendor.
        said: Where the figures are from, in words.
        memory_bytes: Usable, of the device that computes.
        host_bytes: Of the machine around it; on a CPU the same.
        threads: That compute on a CPU; 1 on a card.
        matmul: dtype to FLOP/s of matrix products, by the smallest of their three sides.
        attention: `dtype/causal/forward` and its like to dense FLOP/s of softmax attention, by the
            number of tokens.
        around: `dtype/forward` and `dtype/backward` to numbers/s of all that a block does beside
            products and attention, in numbers that autograd keeps (`block_saved`).
        together: `dtype/forward` and `dtype/backward` to how many times as long a block takes as
            its pieces do alone, by its width; empty: as long.
        loss: dtype to logits/s of the cross-entropy, forward and backward.
        optimizer: `rule/weights/rounding` to numbers/s of a step, by the numbers of the tensors.
        passing: `norms`, `clip`, `average/dtype`, `add` and `cast` to numbers/s of one pass.
        embedding: Numbers/s of looking rows up and adding their gradients.
        dequantise: `format/dtype` to numbers/s.
        quantise: Format to numbers/s.
        memory_rate: Bytes/s of memory, read and written ones together.
        fresh_rate: Bytes/s at which memory that the system has to clear is first written.
        link_rate: Bytes/s between host and card; None without one.
        disk_read: Bytes/s of a file that is not in memory.
        disk_write: Bytes/s until it is on the disk.
        page_read: Bytes/s of a file that is in memory already.
        hash_rate: Bytes/s of sha256, with which checkpoints are named.
        start: Numbers/s of random starts.
        call_seconds: Of one operator, beside its work: of a call on a CPU, of a launch on a card.
        calls_overlap: Whether the work goes on while the next calls are made.
        disk_bytes: Free on the disk of the runs; None: not known.
    """

    name: str
    kind: Literal["cpu", "cuda"]
    origin: Literal["measured", "unknown", "seen", "stated"]
    said: str
    memory_bytes: float
    host_bytes: float
    threads: int
    matmul: Mapping[str, Curve]
    attention: Mapping[str, Curve]
    around: Mapping[str, Curve]
    loss: Mapping[str, Curve]
    optimizer: Mapping[str, Curve]
    passing: Mapping[str, Curve]
    embedding: Curve
    dequantise: Mapping[str, Curve]
    quantise: Mapping[str, float]
    memory_rate: float
    fresh_rate: float
    link_rate: float | None
    disk_read: float
    disk_write: float
    page_read: float
    hash_rate: float
    start: float
    call_seconds: float
    calls_overlap: bool
    disk_bytes: float | None = None
    together: Mapping[str, Curve] = field(default_factory=dict)


class Card(Section):
    """A card by a few figures; every other rate follows from them by the bytes that move."""

    memory_gib: float = Field(gt=0, le=1e5, description="usable memory of the card, 2^30 bytes")
    bf16_tflops: float = Field(gt=0, le=1e6, description="bfloat16 products, 10^12 FLOP/s, reached")
    fp32_tflops: float | None = Field(
        None, gt=0, le=1e6, description="float32 products, 10^12 FLOP/s; empty: bf16_tflops / 2"
    )
    memory_tbs: float = Field(gt=0, le=1e4, description="memory bandwidth, 10^12 bytes/s, reached")
    link_gbs: float = Field(50.0, gt=0, le=1e5, description="host to card, 10^9 bytes/s, reached")
    host_gb: float = Field(HOST_BYTES / 1e9, gt=0, le=1e6, description="host memory, 10^9 bytes")
    disk_read_gbs: float = Field(2.0, gt=0, le=1e4, description="disk, reading, 10^9 bytes/s")
    disk_write_gbs: float = Field(1.0, gt=0, le=1e4, description="disk, writing, 10^9 bytes/s")
    launch_us: float = Field(6.0, ge=0, le=1e4, description="of one operator's call, 10^-6 s")
    origin: Literal["seen", "stated"] = Field("stated", description="measured on one, or stated")
    said: str = Field("a file of the user's", description="where the figures are from")


# torch leaves TF32 off, so that float32 products run at the rate of the plain float32 units.
CARDS: dict[str, Card] = {
    "h200": Card(
        memory_gib=140.4,
        bf16_tflops=790,
        fp32_tflops=51,
        memory_tbs=4.3,
        origin="seen",
        said="memory, bfloat16 rate and bandwidth seen on one; float32, link and disk stated",
    ),
    "h100-80": Card(
        memory_gib=79.6,
        bf16_tflops=798,
        fp32_tflops=51,
        memory_tbs=3.0,
        origin="seen",
        said="memory, bfloat16 rate and bandwidth seen on one; float32, link and disk stated",
    ),
    "a100-80": Card(
        memory_gib=79.2,
        bf16_tflops=312 * RATE_SHARE,
        fp32_tflops=19.5 * RATE_SHARE,
        memory_tbs=2.039 * MEMORY_SHARE,
        link_gbs=24.0,
        said=f"NVIDIA A100 80GB SXM data sheet, times {RATE_SHARE} and {MEMORY_SHARE}",
    ),
    "l40s-48": Card(
        memory_gib=44.4,
        bf16_tflops=362 * RATE_SHARE,
        fp32_tflops=91.6 * RATE_SHARE,
        memory_tbs=0.864 * MEMORY_SHARE,
        link_gbs=24.0,
        said=f"NVIDIA L40S data sheet, dense, times {RATE_SHARE} and {MEMORY_SHARE}",
    ),
    "rtx-4090-24": Card(
        memory_gib=23.5,
        bf16_tflops=165.2 * RATE_SHARE,
        fp32_tflops=82.6 * RATE_SHARE,
        memory_tbs=1.008 * MEMORY_SHARE,
        link_gbs=24.0,
        said=f"NVIDIA Ada paper, RTX 4090, float32 sums, times {RATE_SHARE} and {MEMORY_SHARE}",
    ),
}
# Bytes that a step of each rule moves per number on a card: weight and moments read and written,
# the gradient read; a bfloat16 weight with its master's other half counts as a float32 one.
# Paged, as where the card has room for all of it. Adafactor reads the gradient twice more.
# Of muon, without its matrix products: momentum, and a bfloat16 matrix written and read.
MOVED_BYTES = {
    "adamw": 28.0,
    "adamw8bit": 16.0,
    "paged_adamw8bit": 16.0,
    "lion8bit": 14.0,
    "adafactor": 20.0,
    "muon": 24.0,
}
PASSES = {"forward": 3.0, "backward": 5.0}  # over each number kept, read or written, eager
ATTENTION_SHARE = {"forward": 0.5, "backward": 0.4}  # of the matrix rate, by FlashAttention-2
# (arXiv 2307.08691: 50 to 73 % forward, 35 to 63 % with backward)
FORMAT_BYTES = {
    "fp32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "nf4": 0.5625,
    "fp4": 0.5625,
}


def from_card(name: str, card: Card) -> Hardware:
    """All rates of a card, from its few figures."""
    memory = card.memory_tbs * 1e12
    rates = {"bfloat16": card.bf16_tflops * 1e12}
    rates["float32"] = card.fp32_tflops * 1e12 if card.fp32_tflops else rates["bfloat16"] / 2
    each = {"bfloat16": 2.0, "float32": 4.0}

    def flat(rate: float) -> Curve:
        return ((1.0, rate),)

    return Hardware(
        name=name,
        kind="cuda",
        origin=card.origin,
        said=card.said,
        memory_bytes=card.memory_gib * GIB,
        host_bytes=card.host_gb * 1e9,
        threads=1,
        matmul={dtype: ((64.0, rate / 8), (512.0, rate)) for dtype, rate in rates.items()},
        attention={
            f"{dtype}/{mask}/{way}": flat(rate * ATTENTION_SHARE[way])
            for dtype, rate in rates.items()
            for mask in ("causal", "full")
            for way in PASSES
        },
        around={
            f"{dtype}/{way}": flat(memory / (passes * size))
            for dtype, size in each.items()
            for way, passes in PASSES.items()
        },
        loss={dtype: flat(memory / 24) for dtype in rates},
        optimizer={
            f"{rule}/{weights}/{rounding}": flat(memory / moved)
            for rule, moved in MOVED_BYTES.items()
            for weights, rounding in OPTIMIZER_KINDS
        },
        passing={
            "norms": flat(memory / 4),
            "clip": flat(memory / 8),
            "add": flat(memory / 12),
            "cast": flat(memory / 6),
            "average/float32": flat(memory / 12),
            "average/bfloat16": flat(memory / 12),
        },
        embedding=flat(memory / 16),
        dequantise={
            f"{form}/{dtype}": flat(memory / (size + each[dtype]))
            for form, size in FORMAT_BYTES.items()
            for dtype in rates
        },
        quantise={form: memory / 16 for form in FORMAT_BYTES},
        memory_rate=memory,
        fresh_rate=memory,
        link_rate=card.link_gbs * 1e9,
        disk_read=card.disk_read_gbs * 1e9,
        disk_write=card.disk_write_gbs * 1e9,
        page_read=max(card.disk_read_gbs * 1e9, 8e9),
        hash_rate=1.5e9,
        start=1e8,
        call_seconds=card.launch_us * 1e-6,
        calls_overlap=True,
    )


OPTIMIZER_KINDS = (("float32", "master"), ("bfloat16", "master"), ("bfloat16", "stochastic"))

HARDWARE: dict[str, Hardware] = {name: from_card(name, card) for name, card in CARDS.items()}


def hardware_called(name: str | Path, *, host_bytes: float | None = None) -> Hardware:
    """The machine of a name, of a YAML file, or the one at hand.

    Args:
        name: A key of `HARDWARE`; `this`, which has no rates until `stackwise calibrate` measures
            them; or a file whose name ends with .yaml or .yml, with the keys of `Card`.
        host_bytes: Memory of the host, of a CPU its own; None: as the entry says.

    Raises:
        ExperimentError: If there is none of that name, or the file says what cannot be.
    """
    text = str(name)
    if text == THIS:
        from stackwise.planner.calibration import calibration_path, this_machine, unmeasured

        found = this_machine() if calibration_path().exists() else unmeasured()
    elif text.endswith((".yaml", ".yml")):
        found = from_file(Path(text))
    elif text in HARDWARE:
        found = HARDWARE[text]
    else:
        raise ExperimentError(
            f"--hardware: unknown {text!r}{closest(text, [*HARDWARE, THIS])}; or give a YAML file "
            "of a card"
        )
    if host_bytes is None:
        return found
    if not host_bytes > 0:
        raise ExperimentError(f"--host-gb: {host_bytes / 1e9:g} must be over 0")
    if found.kind == "cpu":  # all is one memory
        return replace(found, host_bytes=host_bytes, memory_bytes=host_bytes)
    return replace(found, host_bytes=host_bytes)


def from_file(path: Path) -> Hardware:
    """A card that a YAML file describes.

    Raises:
        ExperimentError: If it cannot be read, or a key or a value is wrong.
    """
    values = read_mapping(read_text(path), str(path), "a card")
    with said_in(str(path)):
        return from_card(path.stem, Card(**values))
