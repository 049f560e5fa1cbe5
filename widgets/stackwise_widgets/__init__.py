"""The workbench: figures and notebook widgets over the public names of stackwise.

Names are imported where they are first used, so that a figure needs no widgets, and a widget no
figure.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "Workbench": "workbench",
    "Design": "design",
    "RunPanel": "run_panel",
    "Compare": "compare",
    "Inspect": "inspecting",
    "Teach": "teach",
    "PaperFigure": "paper",
    "plan_figure": "plan_figure",
    "run_figure": "charts.finished",
    "run_still": "charts.still",
    "view_of": "charts.series",
    "write_page": "page",
    "study_figure": "paper",
    "paired_figure": "paired",
    "figure_data": "study_data",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stackwise_widgets' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"stackwise_widgets.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
