"""What each token of one's own text takes of each other, in a block and a head of one's choice."""

from __future__ import annotations

from typing import NamedTuple

import ipywidgets as w
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from stackwise.attention_maps import AttentionMap, attention_map, block_names, map_flops
from stackwise.model.direction import BlockCausal
from stackwise_widgets.inspection.one_rack import RACK
from stackwise_widgets.inspection.probe import Probe
from stackwise_widgets.inspection.stills import map_still
from stackwise_widgets.inspection.subject import Subject
from stackwise_widgets.panel import Guard
from stackwise_widgets.paper import PaperFigure
from stackwise_widgets.views.maps import attention_map_html
from stackwise_widgets.views.noise import between

FEW = 7  # shades in words


class Found(NamedTuple):
    """One map, with what is needed to show it."""

    subject: Subject
    map: AttentionMap
    names: list[str]
    labels: list[str]
    path: tuple[str, ...]


class AttentionTab(w.VBox):
    """Attention maps.

    Args:
        guard: Of the panel.

    Attributes:
        block, head: Which map.
        found: What is shown; None before the first.
    """

    def __init__(self, guard: Guard) -> None:
        self.found: Found | None = None
        self._filling = False
        self.block = w.Dropdown(description="Block", options=[], layout={"width": "200px"})
        self.head = w.Dropdown(description="Head", options=[("mean of all", -1)], value=-1,
                               layout={"width": "220px"})  # fmt: skip
        self._picture = w.HTML()
        self.probe = Probe(guard, "reading the attention", "Read the map", flops=self._flops,
                           work=self._work, show=self._show)  # fmt: skip
        row = {"display": "flex", "flex_flow": "row wrap"}
        super().__init__([w.Box([self.block, self.head], layout=row), self.probe.widgets,
                          self._picture])  # fmt: skip
        self.add_class("sw-probe")
        self.block.observe(guard("choosing a block", lambda _: self._chosen()), "value")
        self.head.observe(guard("choosing a head", lambda _: self._draw()), "value")

    def clear(self, why: str = "") -> None:
        """Nothing is shown of any run any more; `why` there is none, in words."""
        self.found, self._picture.value = None, ""
        self.probe.clear(why)

    def data(self) -> pd.DataFrame:
        """One row per head, and pair of tokens of which the one sees the other."""
        if self.found is None:
            return pd.DataFrame(columns=["head", "looks", "seen", "weight"])
        weights_HTS = self._weights()
        seen = np.argwhere(np.broadcast_to(self._seen(), weights_HTS.shape))
        frame = pd.DataFrame(seen, columns=["head", "looks", "seen"])
        labels = self.found.labels
        return frame.assign(
            looks_token=[labels[i] for i in frame["looks"]],
            seen_token=[labels[i] for i in frame["seen"]],
            weight=weights_HTS[tuple(seen.T)],
        )

    def figure(self) -> PaperFigure:
        """The map for a paper."""
        if self.found is None:
            return map_still(np.zeros((1, 1)), [""], "nothing was read yet")
        weights_HTS = np.where(self._seen(), self._weights(), np.nan)
        shown = weights_HTS.mean(0) if self.head.value < 0 else weights_HTS[self.head.value]
        head = self.head.label if self.head.value < 0 else f"head {self.head.value}"
        text = f"{self.found.subject.run.id}: block {self.found.map.block}, {head}"
        return map_still(shown, self.found.labels, text)

    def code(self) -> str:
        """The Python that reads the same map."""
        found = self.found
        if found is None:
            return "# nothing was read yet\n"
        row = found.subject.input_BT(*_special(found))[0].tolist()
        by_block = isinstance(found.map.causal, BlockCausal)
        blocks = "from stackwise.model.direction import BlockCausal\n" if by_block else ""
        return (
            "import torch\n\nfrom stackwise.attention_maps import attention_map\n"
            f"{blocks}\n"
            f"rack = run.rack()\nids_BT = torch.tensor([{row}])\n"
            f"found = attention_map(rack, ids_BT, {found.map.block!r}, "
            f"causal={found.map.causal}, path={found.path!r})\nfound.weights_BHTS\n"
        )

    def wait(self, timeout: float | None = None) -> bool:
        """Until what was asked for is shown."""
        return self.probe.wait(timeout)

    def _flops(self, subject: Subject) -> float:
        path = subject.stages[subject.stage].path
        block = self.block.value or f"{path[-1]}.0"
        if block.partition(".")[0] not in path:
            block = f"{path[-1]}.0"
        return map_flops(subject.exp, block, path, len(subject.read.ids_T))

    def _work(self, subject: Subject) -> Found:
        with RACK.open(subject.run) as rack:
            input_BT = subject.input_BT(rack.mask_id, rack.start_id)
            masked = float((input_BT == rack.mask_id).float().mean())
            path = tuple(rack.path_for(masked or 1 / input_BT.shape[1]))
            names = block_names(rack, path)
            block = self.block.value if self.block.value in names else names[-1]
            how = subject.direction(input_BT.shape[1])
            found = attention_map(rack, input_BT, block, causal=how, path=path)
            labels = subject.labels(input_BT[0].tolist(), rack.mask_id, rack.start_id)
        return Found(subject, found, names, labels, path)

    def _show(self, found: Found) -> None:
        self.found, self._filling = found, True
        heads = found.map.weights_BHTS.shape[1]
        options = [("mean of all", -1), *((str(head), head) for head in range(heads))]
        try:
            if list(self.block.options) != found.names:
                self.block.options = found.names
            self.block.value = found.map.block
            if list(self.head.options) != options:
                self.head.options = options
        finally:
            self._filling = False
        self._draw()

    def _chosen(self) -> None:
        if not self._filling:
            self.probe.run()

    def _draw(self) -> None:
        if self._filling or self.found is None:
            return
        found = self.found
        head = None if self.head.value is None or self.head.value < 0 else self.head.value
        self._picture.value = attention_map_html(
            self._weights(),
            found.labels,
            head=head,
            seen_TS=self._seen(),
            words=f"{found.subject.exp.attention.choice}, block {found.map.block}",
            note=". ".join(self._notes(found)),
        )

    def _notes(self, found: Found) -> list[str]:
        out = [f"Path: {', '.join(found.path)}"]
        bands = found.subject.stages[found.subject.stage].band
        if bands != (0.0, 1.0):
            out[0] += f"; the last stage's band is {between(bands)}"
        if found.map.note:
            out.append(found.map.note[:1].upper() + found.map.note[1:])
        if found.subject.note:
            out.append(found.subject.note.rstrip("."))
        return out

    def _weights(self) -> NDArray[np.float64]:
        assert self.found is not None
        weights: NDArray[np.float64] = self.found.map.weights_BHTS[0].double().numpy()
        return weights

    def _seen(self) -> NDArray[np.bool_]:
        """Where a token may look: a weight of 0 there is one."""
        assert self.found is not None
        found, length = self.found.map, len(self.found.labels)
        ahead_TS = np.arange(length)[None] - np.arange(length)[:, None]
        if isinstance(found.causal, BlockCausal):
            return found.causal.seen(found.window, torch.device("cpu")).numpy()
        seen_TS = np.ones((length, length), bool)
        if found.causal:
            seen_TS &= ahead_TS <= 0
        if found.window is not None:
            seen_TS &= np.abs(ahead_TS) <= found.window
        return seen_TS


def _special(found: Found) -> tuple[int, int]:
    """The ids that read as [MASK] and [START]."""
    return found.subject.vocab, found.subject.vocab + 1
