"""The loss if the rack ended after each block: at the end of every stage, and on one's own text."""

from __future__ import annotations

import ipywidgets as w
import pandas as pd

import stackwise as sw
from stackwise.memory.flops import exit_flops
from stackwise.runs.layers import exit_names, layers_of
from stackwise_widgets.inspection.one_rack import RACK
from stackwise_widgets.inspection.probe import Probe
from stackwise_widgets.inspection.stills import depth_still
from stackwise_widgets.inspection.subject import DRAWS, Subject
from stackwise_widgets.latest import Latest
from stackwise_widgets.panel import Guard
from stackwise_widgets.paper import PaperFigure
from stackwise_widgets.views.lines import Axes, Line, Point, lines_legend, lines_svg
from stackwise_widgets.views.markup import escaped
from stackwise_widgets.views.noise import between
from stackwise_widgets.views.tables import behind, table_html

MOST = 6  # stages that are drawn
OWN = "on the text above"


class DepthTab(w.VBox):
    """Loss by depth.

    Args:
        guard: Of the panel.

    Attributes:
        looks: The last look of each stage, as `runs.layers` has it, with the stage's name.
        own: Exit losses of one's own text; empty before they are measured.
    """

    def __init__(self, guard: Guard) -> None:
        self.looks, self.own = pd.DataFrame(), pd.Series(dtype=float)
        self._subject: Subject | None = None
        self._reads, self._picture = Latest(guard), w.HTML()
        self.probe = Probe(guard, "measuring the loss by depth", "Measure on the text",
                           flops=self._flops, work=self._work, show=self._show)  # fmt: skip
        super().__init__([self.probe.widgets, self._picture])
        self.add_class("sw-probe")

    def use(self, subject: Subject) -> None:
        """Another run, or another text: the numbers of its folder are read at once."""
        new = self._subject is None or self._subject.run.path != subject.run.path
        self._subject, self.own = subject, pd.Series(dtype=float)
        self.probe.use(subject)
        if new:
            self._reads.ask(
                "reading the loss by depth",
                lambda: last_looks(subject),
                lambda looks: self._take(subject.run, looks),
            )
        else:
            self._draw()

    def clear(self, why: str = "") -> None:
        """Nothing is shown of any run any more; `why` there is none, in words."""
        self.looks, self.own = pd.DataFrame(), pd.Series(dtype=float)
        self._subject, self._picture.value = None, ""
        self._reads.drop()
        self.probe.clear(why)

    def data(self) -> pd.DataFrame:
        """One row per stage and exit, and one per exit of one's own text."""
        frame = self.looks
        if len(self.own):
            own = pd.DataFrame(
                {"label": OWN, "block": self.own.index, "exit_loss": self.own.values}
            )
            frame = pd.concat([frame, own], ignore_index=True)
        return frame

    def figure(self) -> PaperFigure:
        """The curves for a paper."""
        text = self._subject.run.id if self._subject is not None else ""
        return depth_still(self._curves(), self._names(), f"{text}: held-out loss by exit")

    def code(self) -> str:
        """The Python that reads and measures the same."""
        head = (
            "from stackwise.runs.layers import layers_of\n\n"
            "layers_of(run)  # the looks of its training\n"
        )
        if self._subject is None or not len(self.own):
            return head
        path = self._subject.stages[self._subject.stage].path
        return (
            f"{head}{self._subject.noisy_code()}"
            f"sw.exit_losses(run.rack(), noisy, causal={self._subject.causal}, path={path!r})\n"
        )

    def wait(self, timeout: float | None = None) -> bool:
        """Until what was asked for is shown."""
        return self._reads.wait(timeout) and self.probe.wait(timeout)

    def _flops(self, subject: Subject) -> float:
        tokens, draws = len(subject.read.ids_T), 1 if subject.causal else DRAWS
        path = subject.stages[subject.stage].path
        exp = subject.exp.replace(data={"seq_len": tokens})
        return exit_flops(exp, path, tokens * draws, tokens * draws)

    def _work(self, subject: Subject) -> pd.Series:
        path = subject.stages[subject.stage].path
        with RACK.open(subject.run) as rack:
            noisy = subject.noisy(rack.vocab)
            losses = sw.exit_losses(rack, noisy, causal=subject.causal, path=path)
        return pd.Series(losses, index=exit_names(path, len(losses)))

    def _take(self, run: sw.Run, looks: pd.DataFrame) -> None:
        if self._subject is not None and self._subject.run is run:
            self.looks = looks
            self._draw()

    def _show(self, own: pd.Series) -> None:
        self.own = own
        self._draw()

    def _curves(self) -> dict[str, pd.Series]:
        """Losses by exit, each curve under its label."""
        out = {}
        if len(self.looks):
            for label, part in self.looks.groupby("label", sort=False):
                out[str(label)] = part.set_index("block")["exit_loss"]
        labels = list(out)
        if len(labels) > MOST:  # the first, the last, and some between
            kept = {labels[round(i * (len(labels) - 1) / (MOST - 1))] for i in range(MOST)}
            out = {label: curve for label, curve in out.items() if label in kept}
        if len(self.own):
            out[OWN] = self.own
        return out

    def _names(self) -> list[str]:
        """Every exit, in the order of the whole rack."""
        if self._subject is None:
            return []
        rack = self._subject.exp.rack
        ids = sw.stack_ids(rack)
        return exit_names(ids, 1 + len(ids) * rack.blocks_per_stack)

    def _draw(self) -> None:
        curves, names = self._curves(), self._names()
        if not curves:
            self._picture.value = (
                '<figure class="sw-view"><p class="sw-note">No look of this run went by depth '
                "(eval.depths=last), or there was none yet. Measure on the text above.</p></figure>"
            )
            return
        lines = [_line(label, curve, names) for label, curve in curves.items()]
        axes = Axes("the rack ends after", "nats per token", names=names)
        words = "Held-out loss if the rack ended after each block, through its own norm and head"
        table = behind("The same as a table", _table(curves, names))
        notes = "".join(f'<p class="sw-note">{escaped(note)}</p>' for note in self._notes())
        self._picture.value = (
            f'<figure class="sw-view sw-by-depth"><figcaption>{escaped(words)}</figcaption>'
            f'<div class="sw-scroll">{lines_svg(lines, axes, words)}</div>{lines_legend(lines)}'
            f"{notes}{table}</figure>"
        )

    def _notes(self) -> list[str]:
        assert self._subject is not None
        stages = self._subject.stages
        out = []
        if any(stage.band != (0.0, 1.0) for stage in stages):
            out.append("Stages have noise bands of their own: compare exits within a stage alone.")
        many = len(stages) - MOST
        if many > 0:
            out.append(f"Of {len(stages)} stages {MOST} are drawn; data() has all of them.")
        return out


def last_looks(subject: Subject) -> pd.DataFrame:
    """The last look of each stage that went by depth."""
    frame, stages = layers_of(subject.run), subject.stages
    if frame.empty:
        return frame.assign(label=[])
    last = frame.groupby("stage")["step"].transform("max")
    frame = frame[frame["step"] == last].reset_index(drop=True)

    def named(stage: int, step: int) -> str:
        band = stages[stage].band
        noise = "" if band == (0.0, 1.0) else f", noise {between(band)}"
        return f"stage {stage}, {stages[stage].name}, step {step}{noise}"

    labels = [named(int(a), int(b)) for a, b in zip(frame["stage"], frame["step"], strict=True)]
    return frame.assign(label=labels)


def _line(label: str, curve: pd.Series, names: list[str]) -> Line:
    points = [
        Point(names.index(str(name)), float(value), f"{label}\n{float(value):.4f} after {name}")
        for name, value in curve.items()
    ]
    return Line(label, points)


def _table(curves: dict[str, pd.Series], names: list[str]) -> str:
    rows = []
    for name in names:
        found = (curve.get(name) for curve in curves.values())
        rows.append([name, *("-" if value is None else f"{value:.4f}" for value in found)])
    return table_html(["ends after", *curves], rows, "Nats per token")
