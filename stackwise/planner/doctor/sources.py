"""Gate: real runs compute the same, wherever their trunk lies and however its layers are computed.

Losses, gradients and weights after every step, with frozen stacks in memory, lent from disk, lent
from host memory, and cached; in full precision and quantised; and against layers that dequantise
and multiply as torch does. Once more with a known fault, that has to be found.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from typing import Any

from stackwise.planner.doctor.checks import WHERE_TO_TELL, Finding, Visit, joined

DISK = {"trunk": "streamed", "stream_from": "disk"}
HOST = {"trunk": "streamed", "stream_from": "host"}
# A gradient crosses no trunk, and every suffix; the suffix has more blocks than there are slots.
SCIENCES: dict[str, dict[str, Any]] = {
    "trunk": {
        "rack": {"stacks": 3, "blocks_per_stack": 1},
        "curriculum": {"name": "left_to_right", "split": "tokens"},
        "data": {"restart": True},
    },
    "suffix": {
        "rack": {"stacks": 3, "blocks_per_stack": 2},
        "curriculum": {"name": "right_to_left", "split": "tokens"},
        "masking": {"bands": "equal_mass"},
    },
}
PRECISIONS: dict[str, dict[str, Any]] = {
    "full precision": {},
    "nf4": {"frozen": "nf4"},
    "int8": {"frozen": "int8"},
    "nf4, bfloat16": {"frozen": "nf4", "compute": "bfloat16"},
}
PLACES: dict[str, dict[str, Any]] = {
    "again": {},
    "plain layers": {},
    "from disk": DISK,
    "from host memory": HOST,
    "cached": {"trunk": "cached"},
    "the known fault": DISK,
}
FAULT, PLAIN, AGAIN = "the known fault", "plain layers", "again"
ARMS = {
    "trunk": (AGAIN, PLAIN, "from disk", "from host memory", "cached"),
    "suffix": (AGAIN, PLAIN, "from disk", "from host memory", FAULT),
}
STEPS, BATCH, TOKENS = 3, 4, 16
# Where a card gives not the same bits twice: of a tensor's norm, over a few steps. Summing float32
# in another order moves last bits, and AdamW's first steps carry the sign of a gradient.
CLOSE, OF_ITSELF = 1e-3, 10.0
DETECTED = 0.05


def trunk_sources(visit: Visit) -> Finding:
    """Whether trunks give the same numbers wherever they lie, and a wrong gradient is found out."""
    found = visit.call(rows, device=visit.device, folder=str(visit.folder))
    return judged(found, visit.device)


def judged(found: Sequence[Mapping[str, Any]], device: str) -> Finding:
    """What `rows` found, judged."""
    arms = [row for row in found if "skipped" not in row]
    left = [
        f"{row['precision']} is not looked at: {row['skipped']}" for row in found if row not in arms
    ]
    itself = {_place(row): row for row in arms if row["arm"] == AGAIN}
    figures = {"rows": list(found)}
    blind = [
        _place(row)
        for row in arms
        if row["arm"] == FAULT
        and not row["gradients"] >= max(DETECTED, 5 * allowed(row, itself, device))
    ]
    if blind:
        return Finding(
            "failed",
            f"the known fault is not found in {joined(blind)}",
            "this doctor cannot be trusted here: a backward that reads a recycled buffer passes",
            f"do not rely on its gates; {WHERE_TO_TELL}",
            figures,
        )
    wrong = [
        f"{_place(row)}, {row['arm']}: {_distances(row)}"
        for row in arms
        if row["arm"] != FAULT and not _good(row, allowed(row, itself, device))
    ]
    if wrong:
        return Finding(
            "failed",
            joined(wrong),
            "numbers depend here on where a trunk lies or how its layers are computed",
            "train with placement.trunk=recompute and without precision.frozen, and "
            f"{WHERE_TO_TELL}",
            figures,
        )
    worst = max(allowed(row, itself, device) for row in arms)
    same = "the same bits" if not worst else f"within {worst:.0e} (this card repeats no bits)"
    fault = [row["gradients"] for row in arms if row["arm"] == FAULT]
    names = ", ".join(dict.fromkeys(row["precision"] for row in arms))
    measured = (
        f"{names}: losses, gradients and weights with the trunk in memory, from disk, from host "
        f"memory and cached are {same}; gradients of the known fault are off by {min(fault):.0%} "
        "or more, and found"
    )
    return Finding(
        "ok",
        joined([measured, *left]),
        "placement.trunk changes memory and time on this device, and no number",
        figures=figures,
    )


def allowed(row: Mapping[str, Any], itself: Mapping[str, Mapping[str, Any]], device: str) -> float:
    """How far an arm may be from the resident one: not at all, where that one repeats itself."""
    if device == "cpu" or (twin := itself[_place(row)])["equal"]:
        return 0.0
    return max(CLOSE, OF_ITSELF * max(twin["losses"], twin["gradients"], twin["weights"]))


def _place(row: Mapping[str, Any]) -> str:
    return f"{row['science']}, {row['precision']}"


def _good(row: Mapping[str, Any], most: float) -> bool:
    if not most:
        return bool(row["equal"])
    return all(row[part] <= most for part in ("losses", "gradients", "weights"))


def _distances(row: Mapping[str, Any]) -> str:
    parts = ("losses", "gradients", "weights")
    return ", ".join(f"{part} off by {row[part]:.1e}" for part in parts)


def rows(device: str, folder: str) -> list[dict[str, Any]]:
    """How far each arm is from the resident one; in a process of its own."""
    from stackwise.model.formats import missing_package
    from stackwise.planner.doctor.alone import tell

    found: list[dict[str, Any]] = []
    for precision, keys in PRECISIONS.items():
        lacks = missing_package(keys["frozen"]) if "frozen" in keys else None
        if lacks:
            found.append({"precision": precision, "skipped": lacks})
            continue
        for science in SCIENCES:
            if not (science == "trunk" and "compute" in keys):
                tell(f"a frozen {science}, {precision}")
                found += compared(science, precision, device, folder)
    return found


def compared(science: str, precision: str, device: str, folder: str) -> list[dict[str, Any]]:
    """The arms of one experiment, each beside the resident one."""
    from stackwise.config import Placement
    from stackwise.planner.doctor.arms import arm, difference
    from stackwise.planner.doctor.reference import Keeps, Plain

    exp = experiment(science, precision)
    # One thread: more have nothing to do at this width, and wait for each other on a busy machine.
    place = Placement.model_validate(
        {"device": device, "threads": 1, "runs_dir": f"{folder}/gates"}
    )
    resident = arm(exp, place)
    gc.freeze()  # what is imported by now: each run looks for what one before it left in cycles
    kinds = {FAULT: Keeps, PLAIN: Plain}
    made = []
    for name in arms_of(science, precision, device):
        other = arm(exp, place.replace(**PLACES[name]), kinds.get(name))
        facts = {"science": science, "precision": precision, "arm": name}
        made.append({**facts, **difference(other, resident)})
    return made


def arms_of(science: str, precision: str, device: str) -> list[str]:
    """The arms that tell something of an experiment.

    Layers that are not frozen are plain ones, and a CPU repeats its bits or fails.
    """
    left = {AGAIN} if device == "cpu" else set()
    left |= set() if "frozen" in PRECISIONS[precision] else {PLAIN}
    return [name for name in ARMS[science] if name not in left]


def experiment(science: str, precision: str) -> Any:
    """A rack of three stacks, narrow, which trains for some steps in each of three stages."""
    from stackwise.config import Experiment

    tokens = 3 * STEPS * BATCH * TOKENS
    exp = Experiment(
        title="gate",
        rack={"d_model": 64, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": TOKENS},
        optim={"batch": BATCH, "lr": 0.01, "ema": 0.9, "warmup_frac": 0.0},
        budget={"tokens": tokens},
        eval={"points": 1, "windows": 1, "final": 1},
        precision=PRECISIONS[precision],
    )
    return exp.replace(**SCIENCES[science])
