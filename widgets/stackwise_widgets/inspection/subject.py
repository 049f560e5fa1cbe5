"""What probes look at: a run, and a text of one's own as its rack reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

import stackwise as sw
from stackwise import Experiment, Stage
from stackwise.by_stage import in_blocks
from stackwise.data.tokenizer import Tokenizer
from stackwise.model.direction import BlockCausal, Direction
from stackwise.objective import Corrupted, is_causal
from stackwise.sampling.asked import block_in
from stackwise.training.start import stages_of
from stackwise_widgets.views.tokens import Text, part_said, read_text

MOST_TOKENS = 128
DRAWS = 32  # masks of one text, whose losses are averaged
TEXT = "In the beginning God created the heaven and the earth."
MASK, START = "▒", "START"


@dataclass(frozen=True, eq=False)
class Subject:
    """A run with a text.

    Attributes:
        run: It has a checkpoint.
        text: Anything; its first tokens are read.
        hidden: Part of the tokens that read [MASK]; of no meaning where nothing is masked.
    """

    run: sw.Run
    text: str = TEXT
    hidden: float = 0.0

    @property
    def exp(self) -> Experiment:
        """What was asked, with the blocks of text of the stage that it stands at."""
        return in_blocks(self.run.experiment, self.stages[self.stage])

    @property
    def causal(self) -> bool:
        """Whether tokens see only those before them."""
        return is_causal(self.exp.objective)

    def direction(self, tokens: int) -> Direction:
        """How a text of so many tokens is read by itself: of blocks each after those before it."""
        block = block_in(self.exp.objective, tokens)
        return self.causal if block is None else BlockCausal(block, 0, tokens)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """That of the run."""
        return self.run.tokenizer()

    @property
    def most(self) -> int:
        """Tokens that are read: as many as a sample has, and no more than can be shown."""
        return min(self.exp.data.seq_len, MOST_TOKENS)

    @cached_property
    def read(self) -> Text:
        """The text as tokens.

        Raises:
            ValueError: If there are none.
        """
        found = read_text(self.text, self.tokenizer, self.most)
        if not len(found.ids_T):
            raise ValueError("text: is empty; type something for the rack to read")
        return found

    @property
    def note(self) -> str:
        """What was left out of the text."""
        return self.read.note

    @cached_property
    def hidden_T(self) -> np.ndarray:
        """Which tokens read [MASK]: always the same ones of a text."""
        count = len(self.read.ids_T)
        order = np.random.default_rng(0).permutation(count)
        return np.isin(np.arange(count), order[: round(self.hidden * count)])

    def input_BT(self, mask_id: int, start_id: int) -> Tensor:
        """What the rack reads, (1, T): shifted right by [START], or with some [MASK]s."""
        ids_T = torch.from_numpy(self.read.ids_T)
        if self.causal:
            return torch.cat([torch.tensor([start_id]), ids_T[:-1]])[None]
        return ids_T.masked_fill(torch.from_numpy(self.hidden_T), mask_id)[None]

    def labels(self, ids_T: Sequence[int], mask_id: int, start_id: int) -> list[str]:
        """What stands for each token that is read."""
        special = {mask_id: MASK, start_id: START}
        return [special.get(i) or part_said(i, self.tokenizer) for i in ids_T]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those of the run."""
        return stages_of(self.run)

    @property
    def stage(self) -> int:
        """The number of the last one that has begun."""
        last = len(self.run.stages()) - 1
        if self.run.state == "finished":
            return last
        return min(last, int(self.run.status().get("stage") or 0))

    def noisy(self, vocab: int) -> Corrupted:
        """The text under the noise of the last stage, many times.

        Args:
            vocab: Entries of the head.
        """
        exp, stage = self.exp, self.stages[self.stage]
        rule = sw.Corruption(
            objective=exp.objective,
            vocab=vocab,
            batch_size=1,
            seed=exp.seed,
            schedule=exp.masking.schedule,
            sampling=exp.masking.sampling,
            band=stage.band,
            bell=exp.masking.bell,
        )
        # As many windows as masks, for noise is spread evenly over windows.
        rows_NT = np.tile(self.read.ids_T, (1 if self.causal else DRAWS, 1))
        return sw.fixed_draws(rule, rows_NT, progress=1.0)

    def noisy_code(self) -> str:
        """The Python that makes the same, from `run`."""
        rows = 1 if self.causal else DRAWS
        return (
            "import numpy as np\n\nexp = run.experiment\n"
            f"ids_T = run.tokenizer().encode({self.text!r})[:{len(self.read.ids_T)}]\n"
            "rule = sw.Corruption(\n"
            f"    objective=exp.objective, vocab={self.vocab}, batch_size=1, seed=exp.seed,\n"
            "    schedule=exp.masking.schedule, sampling=exp.masking.sampling,\n"
            f"    band={self.stages[self.stage].band!r}, bell=exp.masking.bell,\n)\n"
            f"noisy = sw.fixed_draws(rule, np.tile(ids_T, ({rows}, 1)), progress=1.0)\n"
        )

    @property
    def vocab(self) -> int:
        """Entries of the head."""
        return self.exp.rack.vocab or self.tokenizer.size


def heldout_text(run: sw.Run, number: int = 0) -> str:
    """One held-out window of a run's data, as text.

    Raises:
        DataError: If the corpus cannot be read.
    """
    from stackwise.training.changed import data_of

    placement = sw.Placement.load(run.path / "placement.yaml")
    dataset = data_of(run, placement)
    number %= max(1, dataset.n_windows)
    return dataset.tokenizer.decode(dataset.heldout_windows([number])[0])
