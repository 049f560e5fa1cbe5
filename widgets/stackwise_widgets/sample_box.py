"""A sample being denoised, from the last checkpoint of a run, one step after the other."""

from __future__ import annotations

import time

import ipywidgets as w

import stackwise as sw
from stackwise_widgets.denoising import frames
from stackwise_widgets.latest import Latest
from stackwise_widgets.panel import Guard

FRAME_SECONDS = 0.1


class SampleBox(w.VBox):
    """A prompt, a button, and the text as it is written.

    Args:
        guard: Takes what goes wrong.

    Attributes:
        text: The last sample.
    """

    def __init__(self, guard: Guard) -> None:
        self.run: sw.Run | None = None
        self.text = ""
        self.prompt = w.Text(
            "In the beginning",
            description="prompt",
            continuous_update=False,
            style={"description_width": "initial"},
        )
        self.steps = w.BoundedIntText(
            value=16, min=1, max=64, description="steps", layout={"width": "130px"}
        )
        self.button = w.Button(
            description="Denoise a sample",
            tooltip="Write 64 tokens with the weights of the last checkpoint",
            layout={"width": "auto"},
        )
        self.shown = w.HTML()
        self._latest = Latest(guard)
        self.button.on_click(guard("sampling", lambda _: self.press()))
        row = w.HBox([self.prompt, self.steps, self.button], layout={"flex_flow": "row wrap"})
        super().__init__([row, self.shown])

    def show(self, run: sw.Run | None, *, has_weights: bool) -> None:
        """Take the run that is sampled from; without a checkpoint the button says so."""
        self.run = run
        self.button.disabled = not has_weights

    def press(self) -> None:
        """Write a sample."""
        if self.run is not None:
            run, prompt, steps = self.run, self.prompt.value, self.steps.value
            self._latest.ask("sampling", lambda: self._write(run, prompt, steps))

    def settle(self, timeout: float = 60.0) -> bool:
        """Wait until it is written; whether it is."""
        return self._latest.wait(timeout)

    def _write(self, run: sw.Run, prompt: str, steps: int) -> None:
        for frame in frames(run, prompt, length=64, steps=steps):
            if self._latest.is_overtaken():
                return
            self.shown.value, self.text = frame.html(), frame.text
            time.sleep(FRAME_SECONDS)  # to be seen
