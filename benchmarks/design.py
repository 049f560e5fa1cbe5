"""How long it takes Design to follow a change: of the toy, and of every preset.

    python benchmarks/design.py     prints a table and exits 1 if a bound is missed

Seconds from a change in the form until stages, plan, masks and attention are drawn, and what to
change if it does not fit this machine is worked out: the second of two like changes, of each of
several knobs. Bounds: 0.3 s for the toy, 3 s for 70B.
"""

from __future__ import annotations

import sys
import time

import stackwise as sw
from stackwise.report import table
from stackwise_widgets import Design

CHANGES = {
    "curriculum": ("left_to_right", "right_to_left"),
    "masking.sampling": ("iid", "antithetic"),
    "attention": ("mla", "gqa"),
    "placement.micro_batch": ("1", "2"),
}
BOUNDS = {"toy": 0.3, "llama-2-70b": 3.0, "llama-3-70b": 3.0}


def seconds(design: Design, path: str, texts: tuple[str, ...]) -> float:
    """Of the last of some changes of a knob, after which the preset's own is there again."""
    taken = 0.0
    for text in texts:
        began = time.perf_counter()
        design.form.write(path, text)
        assert design.settle()
        taken = time.perf_counter() - began
    design.form.reset(path)
    assert design.settle()
    return taken


def main() -> int:
    """Print the table."""
    rows, good = [], True
    for name in sorted(sw.presets()):
        design = Design(name)
        assert design.settle()
        taken = [seconds(design, *change) for change in CHANGES.items()]
        bound = BOUNDS.get(name, float("inf"))
        good &= max(taken) <= bound
        said = f"{bound:g} s" if name in BOUNDS else ""
        rows.append([name, *(f"{one:.2f} s" for one in taken), said])
        design.close()
    print(table(["preset", *CHANGES, "bound"], rows))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
