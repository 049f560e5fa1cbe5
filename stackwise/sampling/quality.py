"""How good samples are: what a reference thinks of them, beside how varied they are.

Generative perplexity alone is flattered by low temperatures and by repetition: a text that says one
likely token for ever scores best of all. So it stands beside the entropy of the samples, always
(Zheng et al., arXiv 2409.02908, section 5.1). The reference is a chain whose probabilities are
known: a Markov corpus' own source, against which perfect samples have a known score, or the bigram
of a training text. Likelihoods of held-out text are in `evaluation.py`.

Shapes: N samples, T tokens, S symbols, C contexts of the last k symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stackwise.data.baselines import bigram
from stackwise.data.markov import ALPHABET, MarkovParams, stationary, transitions

Float = NDArray[np.float64]
Reference = Callable[[ArrayLike], Float]


@dataclass(frozen=True)
class Quality:
    """What is to be known of a set of samples.

    Attributes:
        nats_per_token: Mean cost under the reference of the tokens that it thinks possible.
        perplexity: exp of it, the generative perplexity.
        impossible_frac: Share of the tokens that the reference gives no probability, in [0, 1].
        entropy: Nats: that of the token counts in one sample, mean over samples. At most log T.
        pooled_entropy: Nats: that of the token counts in all samples together.
    """

    nats_per_token: float
    perplexity: float
    impossible_frac: float
    entropy: float
    pooled_entropy: float


def quality(ids_NT: ArrayLike, reference: Reference) -> Quality:
    """Score samples.

    Args:
        ids_NT: Token ids, (N, T), 0 or more.
        reference: Takes them, and gives minus the log-probability of each token given those before
            it, in nats, (N, T); infinite where it is impossible.

    Raises:
        ValueError: If there is no token.
    """
    ids_NT = np.asarray(ids_NT)
    if ids_NT.ndim != 2 or not ids_NT.size:
        raise ValueError(f"ids_NT: shape {ids_NT.shape}; give (N, T), with one token or more")
    nats_NT = reference(ids_NT)
    possible_NT = np.isfinite(nats_NT)
    nats = float(nats_NT[possible_NT].mean()) if possible_NT.any() else math.inf
    return Quality(
        nats_per_token=nats,
        perplexity=math.exp(nats) if nats < math.inf else math.inf,
        impossible_frac=float(1 - possible_NT.mean()),
        entropy=float(np.mean([count_entropy(ids_T) for ids_T in ids_NT])),
        pooled_entropy=count_entropy(ids_NT),
    )


def count_entropy(ids: ArrayLike) -> float:
    """Entropy in nats of how often each token occurs."""
    _, count_S = np.unique(np.asarray(ids), return_counts=True)
    p_S = count_S / count_S.sum()
    return float(-(p_S * np.log(p_S)).sum())


@dataclass(frozen=True, eq=False)
class Chain:
    """A stationary Markov chain over token ids, as a reference.

    Attributes:
        start_C: Probability of each context of k symbols, (S^k,); its last symbol counts singly.
        follow_CS: Probability of each symbol after each context, (S^k, S).
        symbol_I: Token id to symbol, (ids,); -1 for a token that never occurs.
    """

    start_C: Float
    follow_CS: Float
    symbol_I: NDArray[np.int64]

    def __call__(self, ids_NT: ArrayLike) -> Float:
        """Minus the log-probability of each token, (N, T), nats.

        The first k tokens have that of the stationary chain, each given those before it. After a
        token that never occurs, the chain begins anew.
        """
        ids_NT = np.asarray(ids_NT)
        inside_NT = ids_NT < len(self.symbol_I)
        symbol_NT = np.where(inside_NT, self.symbol_I[np.where(inside_NT, ids_NT, 0)], -1)
        symbols, p_NT = self.follow_CS.shape[1], np.zeros(ids_NT.shape)
        tables, context_N = self._tables(), np.zeros(len(ids_NT), dtype=np.int64)
        known_N = np.zeros(len(ids_NT), dtype=np.int64)  # symbols that the context holds
        for t in range(ids_NT.shape[1]):
            next_N = symbol_NT[:, t]
            for depth, table_CS in enumerate(tables):
                row_N = (known_N == depth) & (next_N >= 0)
                p_NT[row_N, t] = table_CS[context_N[row_N], next_N[row_N]]
            seen_N = next_N >= 0
            known_N = np.where(seen_N, np.minimum(known_N + 1, len(tables) - 1), 0)
            context_N = np.where(seen_N, context_N * symbols + next_N, 0) % symbols**known_N
        with np.errstate(divide="ignore"):
            return -np.log(p_NT)

    def expected_nats_per_token(self, length: int) -> float:
        """What samples of so many tokens score in the mean if they are of this very chain."""
        tables, nats = self._tables(), 0.0
        for t in range(length):
            table_CS = tables[min(t, len(tables) - 1)]
            context_C = self._contexts(min(t, len(tables) - 1))
            with np.errstate(divide="ignore", invalid="ignore"):
                row_C = -np.nansum(table_CS * np.log(table_CS), axis=1)
            nats += float(context_C @ row_C)
        return nats / length

    def _contexts(self, depth: int) -> Float:
        """Probability of each context of the last `depth` symbols, (S^depth,)."""
        return self.start_C.reshape(-1, self.follow_CS.shape[1] ** depth).sum(axis=0)

    def _tables(self) -> list[Float]:
        """Probability of the next symbol after each context of 0, 1, ..., k symbols."""
        symbols = self.follow_CS.shape[1]
        order = round(math.log(len(self.start_C), symbols)) if symbols > 1 else 0
        found = []
        for depth in range(order):
            joint_CS = self._contexts(depth + 1).reshape(-1, symbols)
            total_C1 = joint_CS.sum(axis=1, keepdims=True)
            found.append(np.divide(joint_CS, total_C1, where=total_C1 > 0, out=joint_CS * 0))
        return [*found, self.follow_CS]


def markov_reference(params: MarkovParams) -> Chain:
    """The source of a `markov` corpus, for racks that read bytes.

    Args:
        params: Of the corpus.
    """
    follow_CS = transitions(params)
    symbol_I = np.full(256, -1)
    symbol_I[np.frombuffer(ALPHABET[: params.symbols].encode(), np.uint8)] = range(params.symbols)
    return Chain(stationary(follow_CS), follow_CS, symbol_I)


def bigram_reference(train_U8: ArrayLike) -> Reference:
    """The bigram of a training text (`data/baselines.py`), for racks that read bytes.

    It thinks everything possible. The first byte follows the training text, as there.

    Args:
        train_U8: Bytes, one or more.

    Raises:
        ValueError: If there is none.
    """
    text_U8 = np.asarray(train_U8, dtype=np.uint8)
    if not len(text_U8):
        raise ValueError("train_U8: is empty; give the bytes of a training text")
    nats_AB = -np.log(bigram(text_U8))

    def reference(ids_NT: ArrayLike) -> Float:
        after_NT = np.asarray(ids_NT)
        before_NT = np.roll(after_NT, 1, axis=1)
        before_NT[:, 0] = text_U8[-1]
        return np.asarray(nats_AB[before_NT, after_NT])

    return reference
