"""Gate: frozen layers, lent from one buffer that is refilled, give the gradients of plain ones.

Two layers in a row, on this device, in every format and dtype. Each goes through the gate twice: as
StackWise computes it, and with a known fault, without whose detection the gate says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stackwise.planner.doctor.checks import WHERE_TO_TELL, Finding, Visit, joined

SHAPE = (128, 128)
TOKENS = 8
# Of the decoded weight: a code times a scale is rounded once or twice.
DECODED = {"float32": 2.0**-22, "bfloat16": 2.0**-8}
# What freezing may take of a normal weight, as a part of its norm: a fourth more than it does where
# `tests/unit/test_the_doctors_layers.py` measures it.
LOSSES = {"fp32": 1e-7, "fp16": 2.6e-4, "bf16": 2.1e-3, "fp8": 0.033, "int8": 0.0082}
LOSSES |= {"nf4": 0.115, "fp4": 0.152}
# A CPU gives the same bits; a card may sum a product in another order the second time.
PRODUCTS = {"cpu": {"float32": 0.0, "bfloat16": 0.0}, "cuda": {"float32": 1e-5, "bfloat16": 2**-6}}
DETECTED = 0.5  # the fault's gradient belongs to another weight: off by about the root of two


def frozen_layers(visit: Visit) -> Finding:
    """Whether frozen layers compute what plain ones do, and a recycled buffer is found out."""
    return judged(visit.call(rows, device=visit.device), visit.device)


def judged(found: Sequence[Mapping[str, Any]], device: str) -> Finding:
    """What `rows` found, judged."""
    looked = [row for row in found if "skipped" not in row]
    left = [
        f"{row['format']} is not looked at: {row['skipped']}" for row in found if row not in looked
    ]
    blind = [_of(row) for row in looked if not row["control_gradient"] >= DETECTED]
    figures = {"rows": list(found), "allowed": PRODUCTS[device]}
    if blind:
        return Finding(
            "failed",
            f"the known fault is not found in {joined(blind)}",
            "this doctor cannot be trusted here: a recycled buffer that backward reads gives wrong "
            "gradients, and the gate does not see it",
            f"do not rely on its other gates; {WHERE_TO_TELL}",
            figures,
        )
    wrong = [text for row in looked for text in _wrong(row, PRODUCTS[device][row["dtype"]])]
    if wrong:
        return Finding(
            "failed",
            joined(wrong),
            "frozen layers do not compute what they should on this device",
            "do not freeze to these formats here (precision.frozen), update driver and "
            f"bitsandbytes, and {WHERE_TO_TELL}",
            figures,
        )
    fault = min(row["control_gradient"] for row in looked)
    worst = max(max(row["forward"], row["gradient"]) for row in looked)
    formats = ", ".join(dict.fromkeys(row["format"] for row in looked))
    same = "the same bits" if worst == 0 else f"within {worst:.0e} of them"
    measured = (
        f"{formats}: {same} as plain layers; the known fault is off by {fault:.0%}, and found"
    )
    means = "gradients through quantised and lent layers can be trusted here"
    return Finding("ok", joined([measured, *left]), means, figures=figures)


def _of(row: Mapping[str, Any]) -> str:
    return f"{row['format']} in {row['dtype']}"


def _wrong(row: Mapping[str, Any], allowed: float) -> list[str]:
    rules = {
        "forward": ("the output is off by", allowed),
        "gradient": ("the gradient is off by", allowed),
        "decoded": ("what codes are read as is off by", DECODED[row["dtype"]]),
        "lost": ("freezing loses", LOSSES.get(row["format"], 1.0)),
    }
    return [
        f"{_of(row)}: {text} {row[key]:.1e}, over {limit:.1e}"
        for key, (text, limit) in rules.items()
        if not row[key] <= limit
    ]


def rows(device: str) -> list[dict[str, Any]]:
    """Errors of each format and dtype, relative; in a process of its own."""
    from stackwise.errors import ExperimentError
    from stackwise.model.formats import FORMATS

    found: list[dict[str, Any]] = []
    for name, format in FORMATS.items():
        try:
            format.load()
        except ExperimentError as error:
            found.append({"format": name, "skipped": str(error)})
            continue
        found += [row(name, dtype, device) for dtype in ("float32", "bfloat16")]
    return found


def row(name: str, dtype: str, device: str) -> dict[str, Any]:
    """Errors of one format in one dtype.

    Keys: `lost` by freezing, `decoded` against the published tables, `forward` and `gradient`
    against plain layers, `control_forward` and `control_gradient` of the known fault.
    """
    import torch

    from stackwise.model.formats import FORMATS
    from stackwise.model.frozen import FrozenLinear
    from stackwise.planner.doctor.arms import distance
    from stackwise.planner.doctor.reference import Keeps, Plain, plain_weight

    generator = torch.Generator().manual_seed(1)

    def drawn(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator).to(device)

    weights = [drawn(*SHAPE) * 0.02 for _ in range(2)]
    packed = [FORMATS[name].pack(weight_OI) for weight_OI in weights]
    x, direction = (drawn(TOKENS, SHAPE[1]).to(getattr(torch, dtype)) for _ in range(2))

    def passed(kind: type[FrozenLinear], owned: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        layers = in_a_row(kind, name, packed, x.dtype, owned=owned)
        inner = x.clone().requires_grad_()
        y = layers[1](layers[0](inner))
        return y.detach(), torch.autograd.grad(y, inner, direction)[0]

    exact = plain_weight(name, packed[0], SHAPE)
    made = FORMATS[name].unpack(packed[0], SHAPE, x.dtype)
    wanted, lent, control = passed(Plain, owned=True), passed(FrozenLinear), passed(Keeps)
    return {
        "format": name,
        "dtype": dtype,
        "lost": distance(exact, weights[0].double().cpu()),
        "decoded": distance(made.double().cpu(), exact),
        "forward": distance(lent[0], wanted[0]),
        "gradient": distance(lent[1], wanted[1]),
        "control_forward": distance(control[0], wanted[0]),
        "control_gradient": distance(control[1], wanted[1]),
    }


def in_a_row(
    kind: Any, name: str, packed: Sequence[Mapping[str, Any]], dtype: Any, *, owned: bool
) -> list[Any]:
    """Frozen layers of a kind, with tensors of their own, or all lent from one refilled buffer."""
    from stackwise.model.formats import FORMATS

    made = [kind(FORMATS[name], SHAPE, each, dtype=dtype) for each in packed]
    if owned:
        return made
    buffer = {key: tensor.clone() for key, tensor in packed[0].items()}

    def refilled(number: int) -> Mapping[str, Any]:
        for key, tensor in packed[number].items():
            buffer[key].copy_(tensor)
        return buffer

    for number, layer in enumerate(made):
        layer.lend(lambda number=number: refilled(number))
    return made
