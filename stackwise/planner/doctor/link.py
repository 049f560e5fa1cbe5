"""The link between host and card: how fast copies go, from pinned memory and from any other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from stackwise.planner.doctor.checks import Finding, Visit
from stackwise.planner.doctor.disk import FORMAT, trunk_bytes

BYTES, ROUNDS = 256 << 20, 7


def link(visit: Visit) -> Finding:
    """What the link does, and what that means for a trunk that is streamed from host memory."""
    if visit.device != "cuda":
        return Finding("skipped", "there is no card in use; host and device are one")
    return judged(visit.call(rates), trunk_bytes())


def judged(found: Mapping[str, Any], trunk: int) -> Finding:
    """What `rates` found, judged."""
    pinned, pageable = found["pinned_bytes_per_second"], found["pageable_bytes_per_second"]
    measured = (
        f"to the card {pinned / 1e9:.1f} GB/s from pinned memory, {pageable / 1e9:.1f} GB/s from "
        f"pageable; back {found['back_bytes_per_second'] / 1e9:.1f} GB/s"
    )
    if not found["intact"]:
        return Finding(
            "failed",
            "a copy to the card and back has other bytes",
            "the card, its memory or the link is defective",
            "train on another card; look at the system's log for errors of this one",
            found,
        )
    seconds = trunk / pinned
    means = (
        f"a 70B trunk in {FORMAT}, {trunk / 1e9:.1f} GB, streamed from host memory takes "
        f"{seconds:.1f} s for each forward pass"
    )
    return Finding("ok", measured, means, figures={**found, "pass_seconds": seconds})


def rates() -> dict[str, Any]:
    """Bytes a second of copies of 256 MiB, medians; in a process of its own."""
    import torch

    from stackwise.trunk.pages import pages, pin, unpin

    card = torch.device("cuda")
    held, loose = pages(BYTES), pages(BYTES)
    held.random_(0, 256)
    loose.copy_(held)
    pin(held)
    try:
        there = torch.empty(BYTES, dtype=torch.uint8, device=card)
        pinned = _rate(lambda: there.copy_(held, non_blocking=True))
        pageable = _rate(lambda: there.copy_(loose))
        intact = bool(torch.equal(there.cpu(), loose))
        back = _rate(lambda: held.copy_(there, non_blocking=True))
        intact = intact and bool(torch.equal(held, loose))
    finally:
        unpin(held)
    return {
        "pinned_bytes_per_second": pinned,
        "pageable_bytes_per_second": pageable,
        "back_bytes_per_second": back,
        "intact": intact,
    }


def _rate(copy: Callable[[], Any]) -> float:
    import torch

    seconds = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        copy()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return BYTES / statistics.median(seconds[1:])
