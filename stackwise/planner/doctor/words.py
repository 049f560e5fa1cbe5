"""An examination in words, and as the facts of its record."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from stackwise import __version__
from stackwise.planner.doctor.checks import Finding, Visit


def said(finding: Finding, seconds: float) -> Iterator[str]:
    """A finding as it is printed."""
    yield from wrapped(f"{finding.state}, {seconds:.0f} s: {finding.measured}")
    if finding.means:
        yield from wrapped(f"it means: {finding.means}")
    if finding.to_do:
        yield from wrapped(f"what to do: {finding.to_do}")


def wrapped(text: str) -> list[str]:
    """Lines below the name of a check."""
    return textwrap.wrap(
        text,
        100,
        initial_indent=" " * 6,
        subsequent_indent=" " * 8,
        break_on_hyphens=False,
    )


def named(findings: Mapping[str, Finding], state: str) -> list[str]:
    """The checks that came out so."""
    return [name for name, finding in findings.items() if finding.state == state]


def is_good(findings: Mapping[str, Finding]) -> bool:
    """Whether something was looked at, and nothing failed."""
    return bool(named(findings, "ok")) and not named(findings, "failed")


def verdict(findings: Mapping[str, Finding], *, quick: bool) -> str:
    """The whole of it in a few sentences."""
    bad, left = named(findings, "failed"), named(findings, "skipped")
    counted = len(findings) - len(left)
    if bad:
        many = f"{len(bad)} of {counted} checks failed: {', '.join(bad)}"
        words = [f"Do not trust it here yet: {many}. What to do about each stands above."]
    elif not counted:
        words = ["Nothing could be looked at, so nothing is known of it here."]
    else:
        words = [f"It can be trusted here: all {counted} checks that were made are good."]
    if left:
        words.append(f"Not looked at: {', '.join(left)}.")
    if quick:
        words.append("Plans, disk and resuming are looked at without --quick.")
    return " ".join(words)


def facts_of(
    visit: Visit, findings: Mapping[str, Finding], *, quick: bool, seconds: float, words: str
) -> dict[str, Any]:
    """What the record holds beside the bars."""
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.node(),
        "ok": is_good(findings),
        "verdict": words,
        "quick": quick,
        "seconds": round(seconds, 1),
        "environment": {
            "stackwise": __version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            **visit.results.get("environment", {}),
        },
        "checks": [{"name": name, **asdict(finding)} for name, finding in findings.items()],
    }


def bars_of(visit: Visit, made: str) -> dict[str, dict[str, Any]]:
    """What was measured of plans, by the device's name."""
    found = {kind: visit.results.get(f"bar of {kind}") for kind in ("peak", "time")}
    name = visit.results.get("environment", {}).get("device_name")
    if name is None or not any(found.values()):
        return {}
    return {name: {**found, "made": made, "version": __version__}}
