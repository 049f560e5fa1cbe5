"""How far a rack moved between the ends of its stages: its weights, and what blocks put out."""

from __future__ import annotations

from typing import NamedTuple

import ipywidgets as w
import pandas as pd

import stackwise as sw
from stackwise.drift import drift_flops, representation_drift, weight_drift
from stackwise.runs.layers import exit_names
from stackwise.stage_ends import stage_ends
from stackwise_widgets.inspection.one_rack import RACK, room_for
from stackwise_widgets.inspection.probe import Probe
from stackwise_widgets.inspection.stills import table_still
from stackwise_widgets.inspection.subject import DRAWS, Subject
from stackwise_widgets.panel import Guard
from stackwise_widgets.paper import PaperFigure
from stackwise_widgets.views.drift import drift_table_html
from stackwise_widgets.views.markup import escaped

Cells = dict[tuple[str, str], float]
Words = dict[tuple[str, str], str]


class Found(NamedTuple):
    """What was measured."""

    weights: pd.DataFrame
    outputs: pd.DataFrame


class DriftTab(w.VBox):
    """Drift between the kept ends of stages.

    Args:
        guard: Of the panel.

    Attributes:
        found: What is shown; None before it is measured.
    """

    def __init__(self, guard: Guard) -> None:
        self.found: Found | None = None
        self._subject: Subject | None = None
        self._picture = w.HTML()
        self.probe = Probe(guard, "measuring the drift", "Measure the drift",
                           flops=self._flops, work=self._work, show=self._show)  # fmt: skip
        super().__init__([self.probe.widgets, self._picture])
        self.add_class("sw-probe")

    def use(self, subject: Subject) -> None:
        """Another run or another text."""
        self._subject, self.found = subject, None
        self.probe.use(subject)
        ends = stage_ends(subject.run)
        few = len(ends) < 2
        self.probe.widgets.layout.display = "none" if few else ""
        self._picture.value = _nothing(len(ends), len(subject.run.stages())) if few else ""

    def clear(self, why: str = "") -> None:
        """Nothing is shown of any run any more; `why` there is none, in words."""
        self.found, self._subject, self._picture.value = None, None, ""
        self.probe.widgets.layout.display = ""
        self.probe.clear(why)

    def begin(self) -> None:
        """The tab is seen."""
        if self._subject is not None and len(stage_ends(self._subject.run)) > 1:
            self.probe.begin()

    def data(self) -> pd.DataFrame:
        """Weights (`of` weights) and outputs (outputs) below each other."""
        if self.found is None:
            return pd.DataFrame(columns=["of", "part", "stage", "since", "drift"])
        weights = self.found.weights.rename(columns={"distance": "drift"}).assign(of="weights")
        outputs = self.found.outputs.rename(columns={"exit": "part"}).assign(of="outputs")
        return pd.concat([weights, outputs], ignore_index=True)

    def figure(self) -> PaperFigure:
        """What blocks put out, for a paper."""
        if self.found is None or self._subject is None:
            return table_still(pd.DataFrame([[0.0]], ["nothing"]), ["nothing"], "", "not measured")
        outputs = self.found.outputs
        frame = outputs[outputs["exit"] != "prediction"].pivot(
            index="exit", columns="stage", values="drift"
        )
        names = [name for name in self._exits() if name in frame.index]
        title = "1 - CKA, from the end of one stage to that of the next"
        return table_still(frame, names, title, self._subject.run.id)

    def code(self) -> str:
        """The Python that measures the same."""
        head = "from stackwise.drift import representation_drift, weight_drift\n\n"
        if self._subject is None:
            return head
        return (
            f"{head}weight_drift(run)\n{self._subject.noisy_code()}"
            "representation_drift(run, noisy)\n"
        )

    def wait(self, timeout: float | None = None) -> bool:
        """Until what was asked for is shown."""
        return self.probe.wait(timeout)

    def _flops(self, subject: Subject) -> float:
        rows = 1 if subject.causal else DRAWS
        return drift_flops(subject.run, len(subject.read.ids_T), rows)

    def _work(self, subject: Subject) -> Found:
        with RACK.alone():  # its racks are read one after the other, and none beside them
            room = room_for(subject.run)
            noisy = subject.noisy(subject.vocab)
            lent = "disk" if room.lent else None
            outputs = representation_drift(subject.run, noisy, lent=lent)
            return Found(weight_drift(subject.run), outputs)

    def _show(self, found: Found) -> None:
        self.found = found
        parts = ["embedding", *sw.stack_ids(self._exp.rack), "head"]
        weights = drift_table_html(
            [part for part in parts if part in set(found.weights["part"])],
            _columns(found.weights),
            *_of_weights(found.weights),
            "Weights: |W - W'| / |W'| of all numbers of a part",
            "part",
        )
        outputs = drift_table_html(
            [*self._exits(), "prediction"],
            _columns(found.outputs),
            *_of_outputs(found.outputs),
            "What blocks put out on the text above: 1 - CKA; prediction: KL in nats",
            "after",
            apart=["prediction"],
        )
        note = (
            "Each column: from the end of the stage before to the end of this one. An exact 0: not "
            "one number moved. A frozen part keeps its weights; what it puts out moves all the "
            "same where what it reads has moved."
        )
        self._picture.value = (
            f'<figure class="sw-view"><div class="sw-side"><div>{weights}</div><div>{outputs}</div>'
            f'</div><p class="sw-note">{escaped(note)}</p></figure>'
        )

    @property
    def _exp(self) -> sw.Experiment:
        assert self._subject is not None
        return self._subject.exp

    def _exits(self) -> list[str]:
        ids = sw.stack_ids(self._exp.rack)
        return exit_names(ids, 1 + len(ids) * self._exp.rack.blocks_per_stack)


def _columns(frame: pd.DataFrame) -> list[str]:
    return [f"stage {stage}" for stage in sorted(frame["stage"].unique())]


def _of_weights(frame: pd.DataFrame) -> tuple[Cells, Words]:
    cells, words = {}, {}
    for row in frame.itertuples():
        key = (str(row.part), f"stage {row.stage}")
        cells[key] = float(row.distance)
        did = "trained" if row.trained else "did not train"
        kept = f", frozen to {row.format}" if row.format else ""
        words[key] = (
            f"{row.part} {did} from the end of stage {row.since} to that of {row.stage}{kept}: "
            f"{row.distance:.6g}; from its first end {row.from_first:.6g}"
        )
    return cells, words


def _of_outputs(frame: pd.DataFrame) -> tuple[Cells, Words]:
    cells, words = {}, {}
    for row in frame.itertuples():
        key = (str(row.exit), f"stage {row.stage}")
        last = row.exit == "prediction"
        cells[key] = float(row.kl if last else row.drift)
        what = f"KL {row.kl:.6g} nats" if last else f"1 - CKA {row.drift:.6g}"
        words[key] = f"{row.exit}, from the end of stage {row.since} to that of {row.stage}: {what}"
    return cells, words


def _nothing(ends: int, stages: int) -> str:
    """Why there is no drift to be seen."""
    why = (
        "This run has one stage: between its ends there is nothing to compare."
        if stages < 2
        else f"Drift is between the ends of stages, and this run has kept {ends or 'none'} of "
        f"{stages}. Runs keep them with placement.keep_stages=true, which is the default; shared "
        "and shipped runs often leave them out."
    )
    return f'<figure class="sw-view"><p class="sw-note">{escaped(why)}</p></figure>'
