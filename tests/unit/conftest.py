"""A language so small that every probability in it can be written down."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stackwise.choice import parse
from stackwise.model.attention import ATTENTION
from stackwise.model.direction import BlockCausal
from stackwise.objective import OBJECTIVES
from stackwise.schedules import SCHEDULES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def maker(request: pytest.FixtureRequest) -> ModuleType:
    """The module that writes a page of docs/: the one that the test's own names as PAGE."""
    name = request.module.PAGE
    spec = importlib.util.spec_from_file_location(f"{name}_page", DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def params():
    """Parameters from text: `params.objective("mlm")`, `params.schedule("polynomial:3")`."""
    return SimpleNamespace(
        objective=lambda text: parse(OBJECTIVES, text, "objective", "kind"),
        schedule=lambda text: parse(SCHEDULES, text, "masking.schedule", "name"),
        attention=lambda text: parse(ATTENTION, text, "attention", "kind"),
    )


@pytest.fixture
def batch_of():
    """A batch as the data layer makes it: samples and places count from `first`."""

    def make(ids_BT, first: int = 0, draw: int = 0):
        place_B = np.arange(first, first + len(ids_BT))
        draw_B = np.full(len(ids_BT), draw)
        return SimpleNamespace(ids_BT=ids_BT, sample_B=place_B, draw_B=draw_B, place_B=place_B)

    return make


class ToyLaw(nn.Module):
    """A random law over words of `length` letters, and a rack that knows all its conditionals.

    The hidden states are the logits themselves. It remembers what it was asked.
    """

    def __init__(
        self, letters: int = 3, length: int = 3, seed: int = 0, spread: float = 1.0
    ) -> None:
        super().__init__()
        law = np.random.default_rng(seed).dirichlet(np.full(letters**length, spread))
        self.p = torch.from_numpy(law)
        self.words_XT = torch.cartesian_prod(*[torch.arange(letters)] * length)
        self.vocab, self.mask_id, self.start_id = letters, letters, letters + 1
        self.calls: list[tuple[Tensor, tuple[str, ...] | None]] = []

    @property
    def entropy(self) -> float:
        """Nats per word."""
        return float(-torch.special.xlogy(self.p, self.p).sum())

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        causal: bool | BlockCausal,
        path: tuple[str, ...] | None = None,
        time_B: Tensor | None = None,
    ) -> Tensor:
        """Log-probability of every letter given the visible ones, or given those before it.

        Block by block, given the visible ones of its block and the clean blocks before it.
        """
        self.calls.append((ids_BT, path))
        if isinstance(causal, BlockCausal):
            return self._by_block(ids_BT, causal)
        if causal:
            places = range(ids_BT.shape[1])
            unknown_BT = ids_BT.new_full((len(ids_BT), self.words_XT.shape[1]), self.mask_id)
            columns = [
                self._posterior(torch.cat([ids_BT[:, 1 : t + 1], unknown_BT[:, t:]], 1))[:, t]
                for t in places
            ]
            return torch.stack(columns, 1)
        return self._posterior(ids_BT)

    def _by_block(self, ids_BR: Tensor, how: BlockCausal) -> Tensor:
        noisy_BT, clean_BC = ids_BR[:, : how.noisy], ids_BR[:, how.noisy :]
        if not how.noisy:  # one text, of which each block sees itself and those before it
            noisy_BT = clean_BC = ids_BR
        found = ids_BR.new_zeros((*ids_BR.shape, self.mask_id), dtype=torch.float64)
        length = self.words_XT.shape[1]
        for start in range(0, noisy_BT.shape[1], how.size):
            stop = min(start + how.size, noisy_BT.shape[1])
            known_BT = ids_BR.new_full((len(ids_BR), length), self.mask_id)
            known_BT[:, :start] = clean_BC[:, :start]
            known_BT[:, start:stop] = noisy_BT[:, start:stop]
            found[:, start:stop] = self._posterior(known_BT)[:, start:stop]
        return found

    def _posterior(self, ids_BT: Tensor) -> Tensor:
        agree_BX = ((ids_BT[:, None] == self.words_XT) | (ids_BT[:, None] == self.mask_id)).all(2)
        weight_BX = agree_BX * self.p
        letter_XTV = nn.functional.one_hot(self.words_XT, self.mask_id).double()
        joint_BTV = torch.einsum("bx,xtv->btv", weight_BX, letter_XTV)
        return (joint_BTV / weight_BX.sum(1)[:, None, None]).clamp_min(1e-300).log()

    def exits(
        self,
        ids_BT: Tensor,
        *,
        causal: bool,
        path: tuple[str, ...] | None = None,
        time_B: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """After the embedding nothing is known; after the one block everything is."""
        x_BTD = self.hidden(ids_BT, causal=causal, path=path)
        yield torch.zeros_like(x_BTD)
        yield x_BTD

    def logits(self, x_ND: Tensor) -> Tensor:
        """The hidden states are the logits."""
        return x_ND

    def held(self) -> tuple[str, ...]:
        """One stack."""
        return ("s0",)

    def path_for(self, mask_frac: float) -> tuple[str, ...]:
        """One path for all noise."""
        return ("s0",)

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Words drawn from the law, (count, length)."""
        generator = torch.Generator().manual_seed(seed)
        return self.words_XT[torch.multinomial(self.p, count, True, generator=generator)]


@pytest.fixture
def toy_law():
    """The class: `toy_law()` is a random law over 27 words of 3 letters out of 3."""
    return ToyLaw
