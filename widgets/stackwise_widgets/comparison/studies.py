"""Of the panel `Compare`: the studies that lie beside the runs, and what the chosen one says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as w

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.study.folder import RUNS
from stackwise_widgets.latest import Latest
from stackwise_widgets.views.markup import clean, escaped
from stackwise_widgets.views.study import study_html

if TYPE_CHECKING:
    from stackwise_widgets.panel import Guard

NONE = "no study"


def studies_in(where: Sequence[str | Path | sw.Run]) -> dict[str, Path]:
    """Folders of studies, by name: those named themselves, and those in folders of runs.

    Args:
        where: Folders of runs or of studies; runs are left out.
    """
    found: dict[str, Path] = {}
    for place in where:
        if isinstance(place, sw.Run):
            continue
        inside = sorted(Path(place).glob(f"*/{RUNS}")) if Path(place).is_dir() else []
        for folder in [Path(place), *(path.parent for path in inside)]:
            if (folder / RUNS).is_file():
                name = folder.name if folder.name not in found else str(folder)
                found.setdefault(name, folder)
    return found


class Studies(w.VBox):
    """A list of studies; of the chosen one the verdict, the arms beside the control, and remarks.

    Args:
        guard: What its handlers run through.
        on_runs: Called with the runs of the arms of a study that is chosen.

    Attributes:
        choice: The list; empty for no study.
        result: What the chosen one came to; None for none.
    """

    def __init__(self, guard: Guard, on_runs: Callable[[list[sw.Run]], None]) -> None:
        self._on_runs, self._reads = on_runs, Latest(guard)
        self.result: sw.StudyResult | None = None
        self.choice = w.Dropdown(options=[(NONE, "")], description="study",
                                 tooltip="A study: its verdict, and its runs ticked",
                                 layout={"max_width": "480px"})  # fmt: skip
        self._said = w.HTML()
        super().__init__([self.choice, self._said])
        self.choice.observe(guard("reading a study", lambda _: self._read()), "value")
        self.show({})

    def show(self, found: dict[str, Path]) -> None:
        """List these; the one that is chosen stays if it is there."""
        kept = self.choice.value
        options = [(NONE, ""), *((clean(name), str(folder)) for name, folder in found.items())]
        if list(self.choice.options) != options:
            self.choice.options = options
            self.choice.value = kept if kept in dict(options).values() else ""
        self.layout.display = "" if found else "none"

    def wait(self, timeout: float | None = None) -> bool:
        """Until the chosen one is read and shown."""
        return self._reads.wait(timeout)

    def _read(self) -> None:
        folder = self.choice.value
        if not folder:
            self.result, self._said.value = None, ""
            return
        self._reads.ask("reading a study", lambda: read(Path(folder)), self._take)

    def _take(self, found: tuple[sw.StudyResult | None, str]) -> None:
        self.result, self._said.value = found
        if self.result is not None:
            self._on_runs([run for _, _, run in self.result.runs])


def read(folder: Path) -> tuple[sw.StudyResult | None, str]:
    """A study's result with its picture; or none, and why."""
    try:
        result = sw.StudyResult.load(folder)
        return result, study_html(result)
    except ExperimentError as error:
        return None, f'<div class="sw-remarks" role="note">{escaped(str(error))}</div>'
