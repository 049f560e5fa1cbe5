"""Whether a run's numbers come out the same to the last bit when it is trained again.

They do on the CPU, whatever process trains it and however often it is stopped, on the same
processor, with the same torch and threads (`test_the_same_run_has_the_same_bits.py`). On a card
they do as far as its kernels add in a fixed order. What is said here is written into
provenance.json as a run is made; `Run.determinism` adds what has changed since. How it is brought
about is in `training/same_bits.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stackwise.completion import packing

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement

CHANGED = "determinism_changed"  # the event of an attempt that computes otherwise
UNSAID = "it was made by a version of StackWise that did not write it down"
CARD = (
    "a CUDA card adds up the gradients of embeddings and of attention in the order in which its "
    "threads finish; placement.deterministic=true takes kernels that do not"
)
COMPILED = (
    "placement.compile: torch.compile chooses kernels anew in each process, for the shapes that it "
    "meets there"
)


def promise_of(exp: Experiment, placement: Placement, same: Mapping[str, Any]) -> dict[str, Any]:
    """What can be promised of a run that is carried out in one way on one machine.

    Args:
        exp: The experiment.
        placement: The way.
        same: What has to be the same again, of `same_for`.

    Returns:
        `promised`: whether the same bits come out again; `why_not`: each reason against it, as a
        sentence; `same`: as given.
    """
    why = [*_reasons(exp, placement, same)]
    return {"promised": not why, "why_not": why, "same": dict(same)}


def _reasons(exp: Experiment, placement: Placement, same: Mapping[str, Any]) -> Iterator[str]:
    on_card = "cuda" in same
    if on_card and not placement.deterministic:
        yield CARD
    if placement.compile:
        yield COMPILED
    if not on_card:
        return
    from stackwise.model.formats import FORMATS
    from stackwise.training.updates import OPTIMIZERS

    form = packing(exp.precision)
    theirs = {
        "optim.name": exp.optim.name if OPTIMIZERS[exp.optim.name].bitsandbytes else None,
        "precision.frozen": form if form in FORMATS and FORMATS[form].bitsandbytes else None,
    }
    for key, value in theirs.items():
        if value is not None:
            yield f"{key}={value}: bitsandbytes does not say that its kernels add in a fixed order"


def same_for(placement: Placement, machine: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be the same for the same bits: of the machine, and of how it is used.

    Args:
        placement: How a run is carried out.
        machine: Of `machine_now`.
    """
    used = {"micro_batch": placement.micro_batch, "compile": placement.compile}
    fixed = {"deterministic": placement.deterministic} if "cuda" in machine else {}
    return {**machine, **used, **fixed}


def machine_now(device: str) -> dict[str, Any]:
    """What of this process and machine decides last bits.

    Args:
        device: `cpu`, or `cuda`.

    Returns:
        On the CPU its name, the instructions that torch uses of it, threads and torch's version; of
        a card its name and the versions of CUDA and torch.
    """
    import torch

    from stackwise.runs.provenance import processor

    version = {"torch": torch.__version__}
    if device == "cuda":
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        return {"device": name, "cuda": torch.version.cuda, **version}
    instructions = torch.backends.cpu.get_cpu_capability()
    known = {"processor": processor(), "instructions": instructions}
    return {"device": "cpu", **known, "threads": torch.get_num_threads(), **version}


def promised_here(exp: Experiment, placement: Placement, device: str) -> dict[str, Any]:
    """What can be promised of a run that is carried out so in this process, as it is now."""
    return promise_of(exp, placement, same_for(placement, machine_now(device)))


def differences(known: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What has changed, each key with what it was and what it is."""
    keys = dict.fromkeys([*known, *now])
    return {key: [known.get(key), now.get(key)] for key in keys if known.get(key) != now.get(key)}


def promised_by(
    provenance: Mapping[str, Any], changes: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """What is promised of a run by now.

    Args:
        provenance: Of the run.
        changes: Its events of the kind `determinism_changed`, oldest first.

    Returns:
        As `promise_of`; of a run that does not say, `promised` is None.
    """
    now = _read(provenance.get("determinism"))
    if now is None:
        return {"promised": None, "why_not": [UNSAID], "same": {}}
    for event in changes:
        new = _read(event.get("now"))
        if new is None:
            continue
        if not event.get("after_step"):
            now = new  # nothing was trained before
            continue
        said = f"after step {event['after_step']} {changes_text(event.get('changed'))}"
        now = {**new, "promised": False, "why_not": [*now["why_not"], said]}
    return now


def _read(found: Any) -> dict[str, Any] | None:
    """A promise as a folder holds it, where anything may stand; None if it is none."""
    if not isinstance(found, Mapping) or not isinstance(found.get("same"), Mapping):
        return None
    why = found.get("why_not")
    said = [str(reason) for reason in why] if isinstance(why, list) else []
    return {"promised": found.get("promised") is True, "why_not": said, "same": {**found["same"]}}


def changes_text(changed: Any) -> str:
    """What has changed, in words: `threads is 2, was 1`."""
    known = changed if isinstance(changed, Mapping) else {}
    pairs = {k: v for k, v in known.items() if isinstance(v, list) and len(v) == 2}
    said = [f"{key} is {_shown(new)}, was {_shown(old)}" for key, (old, new) in pairs.items()]
    return "; ".join(said) or "it is carried out otherwise"


def promise_text(promise: Mapping[str, Any]) -> str:
    """What is promised, as one sentence for people."""
    if promise.get("promised"):
        pairs = {k: v for k, v in promise["same"].items() if v not in (None, False)}
        same = ", ".join(f"{key} {value}" for key, value in pairs.items())
        return f"trained again it comes out the same to the last bit, given {same}"
    return f"the same bits are not promised: {'; '.join(promise.get('why_not', ()))}"


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
