"""A sample that becomes text: step by step, and at each step through the depth of the rack."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ipywidgets as w
import numpy as np
import pandas as pd
import torch
from torch import Tensor

import stackwise as sw
from stackwise.choice import Params, parse
from stackwise.lens import Depths, depth_flops, read_depths
from stackwise.memory.flops import forward_flops_per_token, head_flops_per_position
from stackwise.sampling import samplers_for, takes_steps
from stackwise.sampling.asked import BY_BLOCK, block_in
from stackwise_widgets.inspection.knobs import Knobs
from stackwise_widgets.inspection.one_rack import RACK
from stackwise_widgets.inspection.probe import Probe
from stackwise_widgets.inspection.stills import words_still
from stackwise_widgets.inspection.subject import Subject
from stackwise_widgets.latest import Latest
from stackwise_widgets.panel import Guard
from stackwise_widgets.paper import PaperFigure
from stackwise_widgets.views.markup import flops_said, percent_said
from stackwise_widgets.views.through import denoising_html, depths_html

EMPTY, TEXT = "nothing: all is masked", "the text above"
MOST_PLACES = 24  # shown through depth, of a rack that reads left to right
HALF = 0.5  # of the text is masked where it is asked to be denoised and nothing is said
INTERVAL = 350  # milliseconds between two steps that are played


@dataclass(frozen=True)
class Asked:
    """How a sample is made."""

    start: str = EMPTY
    length: int = 32
    method: str = "ancestral"
    steps: int = 16
    temperature: float = 0.7
    seed: int = 0
    knobs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def params(self) -> Params:
        """The sampler's.

        Raises:
            ExperimentError: If a knob is wrong.
        """
        return parse(sw.SAMPLERS, {"kind": self.method, **self.knobs}, "method", "kind")

    @property
    def taken_steps(self) -> int | None:
        """The number of steps, where the sampler leaves it open."""
        return self.steps if takes_steps(self.params) else None

    @property
    def called(self) -> Any:
        """The sampler as it is written in Python: its name, with the knobs that were changed."""
        changed = self.params.model_dump(exclude_defaults=True)
        return {"kind": self.method, **changed} if changed else self.method


class Found(NamedTuple):
    """A trajectory: (steps + 1, T) ids, of which the first is what it began with; what it took."""

    subject: Subject
    asked: Asked
    ids_ST: Tensor
    mask_id: int
    start_id: int
    forwards: int
    flops: float


class Lens(NamedTuple):
    """What every depth reads at one step."""

    step: int
    input_T: Tensor
    path: tuple[str, ...]
    depths: Depths


class DenoiseTab(w.VBox):
    """A denoising trajectory through steps and through depth.

    Args:
        guard: Of the panel.

    Attributes:
        found: The trajectory that is shown; None before the first.
        lens: What the depths read at the step that is shown.
        step: The slider over the steps.
    """

    def __init__(self, guard: Guard) -> None:
        self.found: Found | None = None
        self.lens: Lens | None = None
        self._guard, self._lenses = guard, Latest(guard)
        self._sample, self._through = w.HTML(), w.HTML()
        self._make_fields()
        self.step = w.IntSlider(description="Step", min=0, max=1, value=0, readout=True,
                                layout={"flex": "1 1 260px"})  # fmt: skip
        self._play = w.Play(min=0, max=1, interval=INTERVAL, show_repeat=False)
        self._link = w.jslink((self._play, "value"), (self.step, "value"))
        self.probe = Probe(guard, "denoising a sample", "Denoise", flops=self._flops,
                           work=self._work, show=self._show)  # fmt: skip
        row = {"display": "flex", "flex_flow": "row wrap", "align_items": "center"}
        self._player = w.Box([self._play, self.step, self.depth], layout={**row, "display": "none"})
        fields = w.Box([self.start, self.length, self.method, self.steps, self.temperature,
                        self.seed], layout=row)  # fmt: skip
        super().__init__(
            [fields, self.knobs, self.probe.widgets, self._player, self._sample, self._through]
        )
        self.add_class("sw-probe")
        self.step.observe(guard("showing a step", lambda _: self._draw()), "value")
        self.depth.observe(guard("showing the depths", lambda _: self._draw()), "value")
        self.method.observe(guard("choosing a sampler", lambda _: self._choose()), "value")
        for each in (self.start, self.length, self.method, self.steps):
            each.observe(guard("saying the costs", lambda _: self._changed()), "value")

    def _make_fields(self) -> None:
        fit = {"description_width": "initial"}
        wide, small = {"width": "260px"}, {"width": "140px"}
        self.start = w.Dropdown(
            description="Begin with", options=[EMPTY, TEXT], style=fit, layout=wide
        )
        self.length = w.BoundedIntText(
            description="Tokens", value=32, min=1, max=128, style=fit, layout=small
        )
        self.method = w.Dropdown(
            description="Sampler", options=samplers_for(causal=False), style=fit,
            layout={"width": "240px"},
        )  # fmt: skip
        self.steps = w.BoundedIntText(
            description="Steps", value=16, min=1, max=512, style=fit, layout=small
        )
        self.temperature = w.BoundedFloatText(
            description="Temperature", value=0.7, min=0, max=10, step=0.1, style=fit,
            layout={"width": "160px"},
        )  # fmt: skip
        self.seed = w.BoundedIntText(
            description="Seed", value=0, min=0, max=2**31 - 1, style=fit, layout=small
        )
        self.knobs = Knobs(sw.SAMPLERS, self._guard("saying the costs", self._choose))
        self.knobs.use(self.method.value)
        self.depth = w.Checkbox(description="what every depth would read", value=True,
                                indent=False, layout={"width": "auto"})  # fmt: skip

    def use(self, subject: Subject) -> None:
        """Another run or another text."""
        block = block_in(subject.exp.objective, subject.most)
        methods = samplers_for(subject.causal) if block is None else [BY_BLOCK]
        if list(self.method.options) != methods:
            self.method.options = methods
        self.length.max = subject.most
        self.probe.use(subject)

    def clear(self, why: str = "") -> None:
        """Nothing is shown of any run any more; `why` there is none, in words."""
        self.found = self.lens = None
        self._sample.value = self._through.value = ""
        self._player.layout.display = "none"
        self.probe.clear(why)

    @property
    def asked(self) -> Asked:
        """What the fields say."""
        return Asked(self.start.value, self.length.value, self.method.value, self.steps.value,
                     self.temperature.value, self.seed.value, self.knobs.value)  # fmt: skip

    def data(self) -> pd.DataFrame:
        """One row per step and place: the id, its text, whether it is masked still."""
        if self.found is None:
            return pd.DataFrame(columns=["step", "place", "id", "token", "masked"])
        found = self.found
        step, place = np.indices(found.ids_ST.shape)
        ids = found.ids_ST.numpy().ravel()
        frame = pd.DataFrame({"step": step.ravel(), "place": place.ravel(), "id": ids})
        tokens = found.subject.labels(ids.tolist(), found.mask_id, found.start_id)
        return frame.assign(token=tokens, masked=frame["id"] == found.mask_id)

    def figure(self) -> PaperFigure:
        """Some steps, one below the other."""
        if self.found is None:
            return words_still(["nothing yet"], "")
        found, lines = self.found, []
        last = len(found.ids_ST) - 1
        for step in sorted({round(i * last / 11) for i in range(12)}):
            tokens = found.subject.labels(
                found.ids_ST[step].tolist(), found.mask_id, found.start_id
            )
            lines.append(f"{step:>4}  {''.join(tokens)[:110]}")
        return words_still(lines, f"{found.subject.run.id}: {found.asked.method}, by step")

    def code(self) -> str:
        """The Python that makes the same trajectory."""
        if self.found is None:
            return "# nothing was denoised yet\n"
        found, asked = self.found, self.found.asked
        return (
            "import torch\n\nrack = run.rack()\n"
            f"ids_BT = torch.tensor([{found.ids_ST[0].tolist()}])\n"
            f"for ids_BT in sw.trajectory(rack, ids_BT, {asked.called!r}, {asked.taken_steps}, "
            f"{asked.temperature}, {asked.seed}):\n"
            "    print(ids_BT)\n"
        )

    def wait(self, timeout: float | None = None) -> bool:
        """Until what was asked for is shown."""
        return self.probe.wait(timeout) and self._lenses.wait(timeout)

    def _choose(self) -> None:
        """A sampler, or a knob of it."""
        self.knobs.use(self.method.value)
        self._changed()

    def _changed(self) -> None:
        """Something else is asked for: its costs. It runs when the button is pressed."""
        with suppress(sw.ExperimentError):  # the costs say what is wrong with the knob
            self.steps.disabled = self.asked.taken_steps is None
        if self.probe.subject is not None:
            self.probe.say_cost()

    def _flops(self, subject: Subject) -> float:
        """At most: every step reads all tokens by the longest path."""
        asked, exp = self.asked, subject.exp
        length = self._length(subject, asked)
        exp = exp.replace(data={"seq_len": max(1, length)})
        longest = max((stage.path for stage in subject.stages), key=len)
        steps = asked.taken_steps or length
        read = steps * length * forward_flops_per_token(exp, longest)
        return read + length * steps * head_flops_per_position(exp)

    def _length(self, subject: Subject, asked: Asked) -> int:
        """Tokens of the whole sample."""
        if asked.start == EMPTY:
            return asked.length
        text = len(subject.read.ids_T)
        return text + asked.length if subject.causal else text

    def _begin(self, subject: Subject, asked: Asked, mask_id: int) -> Tensor:
        """What it begins with, (T,)."""
        masks_T = torch.full((asked.length,), mask_id)
        if asked.start == EMPTY:
            return masks_T
        text_T = torch.from_numpy(subject.read.ids_T)
        if subject.causal:
            room = subject.most - asked.length
            return torch.cat([text_T[: max(0, room)], masks_T])
        hidden = subject.hidden or HALF
        hidden_T = Subject(subject.run, subject.text, hidden).hidden_T
        return text_T.masked_fill(torch.from_numpy(hidden_T), mask_id)

    def _work(self, subject: Subject) -> Found:
        asked = self.asked
        with RACK.open(subject.run) as rack:
            ids_BT = self._begin(subject, asked, rack.mask_id)[None]
            found = Found(subject, asked, ids_BT, rack.mask_id, rack.start_id, 0, 0.0)
            for step in sw.stream(rack, ids_BT, method=asked.params, steps=asked.taken_steps,
                                  temperature=asked.temperature, seed=asked.seed):  # fmt: skip
                ids_ST = torch.cat([found.ids_ST, step.ids_BT.cpu()])
                found = found._replace(
                    ids_ST=ids_ST, forwards=step.forwards, flops=step.flops or 0.0
                )
                if self.probe.is_overtaken():
                    break
                self._sample.value = sample_html(found, step.number)
            return found

    def _show(self, found: Found) -> None:
        self.found, self.lens = found, None
        last = len(found.ids_ST) - 1
        self.step.max = self._play.max = last
        self._player.layout.display = "flex"
        middle = last // 2
        if self.step.value == middle:
            self._draw()
        else:
            self.step.value = middle

    def _draw(self) -> None:
        if self.found is None:
            return
        found, step = self.found, min(self.step.value, len(self.found.ids_ST) - 1)
        self._sample.value = sample_html(found, step)
        if not self.depth.value:
            self._through.value = ""
            return
        self._lenses.ask(
            "reading through depth",
            lambda: lens_of(found, step),
            lambda lens: self._show_lens(found, lens),
        )

    def _show_lens(self, found: Found, lens: Lens) -> None:
        if self.found is found:
            self.lens = lens
            self._through.value = lens_html(found, lens)


def sample_html(found: Found, step: int) -> str:
    """The sample after a step, and what all steps took."""
    ids_T, before_T = found.ids_ST[step], found.ids_ST[max(0, step - 1)]
    hidden_T = ids_T == found.mask_id
    new_T = (before_T == found.mask_id) & ~hidden_T
    given_T = found.ids_ST[0] != found.mask_id
    tokens = found.subject.labels(ids_T.tolist(), found.mask_id, found.start_id)
    shown = denoising_html(
        tokens, hidden_T.tolist(), new_T.tolist(), given_T.tolist(),
        step=step, steps=len(found.ids_ST) - 1,
    )  # fmt: skip
    took = f"The rack was read {found.forwards} times, for {flops_said(found.flops)} FLOPs"
    return f'{shown}<p class="sw-note">{took}</p>'


def lens_of(found: Found, step: int) -> Lens:
    """What every depth reads at a step."""
    ids_T, subject = found.ids_ST[step], found.subject
    with RACK.open(subject.run) as rack:
        masked = float((ids_T == found.mask_id).float().mean())
        path = tuple(rack.path_for(masked or 1 / len(ids_T)))
        if subject.causal:
            known_T = ids_T[ids_T != found.mask_id]
            ids_T = torch.cat([torch.tensor([found.start_id]), known_T])
        depths = read_depths(rack, ids_T[None], causal=subject.direction(len(ids_T)), path=path)
    return Lens(step, ids_T, path, depths)


def lens_html(found: Found, lens: Lens) -> str:
    """The depths at one step, at the places that are masked still, or were chosen last."""
    subject, depths = found.subject, lens.depths
    reads = subject.labels(lens.input_T.tolist(), found.mask_id, found.start_id)
    guesses = [
        subject.labels(ids_T.tolist(), found.mask_id, found.start_id)
        for ids_T in depths.ids_LBT[:, 0]
    ]
    if subject.causal:
        at = list(range(len(reads)))[-MOST_PLACES:]
        words = "What each depth would write next, after each of the last tokens"
    else:
        at = [t for t, i in enumerate(lens.input_T.tolist()) if i == found.mask_id]
        words = "What each depth would read at the places that are masked still"
        if not at:
            at = list(range(len(reads)))
            words = "Nothing is masked any more: what each depth would read at every place"
    tokens = len(lens.input_T)
    cost = depth_flops(subject.exp, lens.path, tokens)
    share = float((lens.input_T == found.mask_id).float().mean())
    words += f". Path {', '.join(lens.path)}"
    if not subject.causal:
        words += f", which serves {percent_said(share)} masked"
    words += f"; {cost:.2g} FLOPs. The fuller a cell, the surer; underlined: as at the end"
    prob_LT = depths.prob_LBT[:, 0].double().numpy()
    return depths_html(depths.names, guesses, prob_LT, reads, at, words=words)
