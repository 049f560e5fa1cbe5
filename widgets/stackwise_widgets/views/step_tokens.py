"""The tokens of a sample in a step: which are masked, what is guessed there, what that costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from stackwise_widgets.views.markup import escaped
from stackwise_widgets.views.tables import behind, table_html
from stackwise_widgets.views.tokens import readable

if TYPE_CHECKING:
    from stackwise.stepping import Phase, TokenBatch

MOST = 192  # tokens that are shown
LEVELS = (0.7, 2.3, 4.6)  # nats at which the colour deepens: odds of a half, a tenth, a hundredth


def step_tokens_html(phase: Phase, sample: int = 0) -> str:
    """A sample of a phase's batch, token by token.

    Args:
        phase: The phase: before `mask` the text is whole, from `loss` on each counted position
            shows its true token and the loss there.
        sample: Which sample, from 0.

    Returns:
        A `<figure>`, well-formed as XML too. Each token is a `<span class="sw-cell-token">` with
        `data-place`; those that are masked have `sw-hidden`, those that count `sw-counted`.

    Raises:
        ValueError: If there is no such sample.
    """
    tokens, count = phase.tokens, len(phase.tokens.ids_BT)
    if not 0 <= sample < count:
        raise ValueError(f"sample: {sample} must be 0 to {count - 1}")
    places = range(min(tokens.ids_BT.shape[1], MOST))
    cells = "".join(_cell(phase, sample, place) for place in places)
    return (
        f'<figure class="sw-view sw-step-tokens"><h4>{escaped(_head(phase, sample))}</h4>'
        f'<div class="sw-strip">{cells}</div>{_note(phase)}'
        f"{behind('The same as a table', _table(phase, sample))}</figure>"
    )


def token_said(tokens: TokenBatch, token: int) -> str:
    """A token as it is shown: its text, or its number where it is a part of a character."""
    text = tokens.texts.get(token, "")
    return readable(text) if text else f"#{token}"


def _head(phase: Phase, sample: int) -> str:
    tokens = phase.tokens
    count, length = tokens.ids_BT.shape
    said = f"Sample {sample + 1} of {count}"
    if phase.number >= 1:
        counted = int(tokens.counted_BT[sample].sum())
        each = "each with weight" if tokens.weight_BT is None else "in the mean with weight"
        said += f": {counted} of {length} positions count, {each} "
        said += f"{float(tokens.weight_B[sample]):.3g}"
    if length > MOST:
        said += f"; the first {MOST} tokens are shown"
    return said


def _note(phase: Phase) -> str:
    """How to read it, as far as there is something to be read."""
    if phase.number < 1:
        words = "As the text stands: nothing is hidden yet."
    elif phase.tokens.nats_BT is None:
        masked = bool(phase.tokens.masked_BT.any())
        words = "A box is a masked token: the rack reads [MASK] there." if masked else ""
        words = words or "Each position reads the token shown, and predicts the one after it."
    else:
        words = (
            "In each box now the token that had to be found, below it the loss there in nats, "
            "redder where it is larger; a thick green frame where the head holds it for the "
            "likeliest. Hover for what it holds likeliest elsewhere."
        )
    return f'<p class="sw-note">{escaped(words)}</p>'


def _cell(phase: Phase, sample: int, place: int) -> str:
    """One token."""
    tokens = phase.tokens
    true, read = int(tokens.ids_BT[sample, place]), int(tokens.input_BT[sample, place])
    if phase.number < 1:
        return _span("", place, token_said(tokens, true), "", f"token {place}")
    counted = bool(tokens.counted_BT[sample, place])
    hidden = read == tokens.vocab
    kind = f"{' sw-hidden' * hidden}{' sw-counted' * counted}"
    if not counted or tokens.nats_BT is None or tokens.guess_BT is None:
        shown = "▒" if hidden else token_said(tokens, read)
        tip = f"token {place}: {token_said(tokens, true)}"
        return _span(kind, place, shown, "", tip + (", masked" if hidden else ""))
    nats, guess = float(tokens.nats_BT[sample, place]), int(tokens.guess_BT[sample, place])
    level = sum(nats > edge for edge in LEVELS)
    kind += f" sw-loss-{level}" * (level > 0) + " sw-right" * (guess == true)
    tip = (
        f"token {place}: truly {token_said(tokens, true)}; likeliest {token_said(tokens, guess)}; "
        f"the true one got probability {math.exp(-nats):.3g}, a loss of {nats:.3f} nats"
    )
    return _span(kind, place, token_said(tokens, true), f"{nats:.1f}", tip)


def _span(kind: str, place: int, shown: str, below: str, tip: str) -> str:
    return (
        f'<span class="sw-cell-token{kind}" data-place="{place}" title="{escaped(tip)}">'
        f"<b>{escaped(shown)}</b><small>{escaped(below)}</small></span>"
    )


def _table(phase: Phase, sample: int) -> str:
    tokens = phase.tokens
    rows = []
    for place in range(min(tokens.ids_BT.shape[1], MOST)):
        nats = None if tokens.nats_BT is None else float(tokens.nats_BT[sample, place])
        known = nats is not None and not math.isnan(nats) and tokens.guess_BT is not None
        guess = int(tokens.guess_BT[sample, place]) if known and tokens.guess_BT is not None else -1
        read = int(tokens.input_BT[sample, place])
        rows.append(
            [
                place,
                token_said(tokens, int(tokens.ids_BT[sample, place])),
                token_said(tokens, read) if phase.number else "-",
                "yes" if phase.number and tokens.counted_BT[sample, place] else "no",
                token_said(tokens, guess) if known else "-",
                f"{nats:.3f}" if known else "-",
            ]
        )
    head = ["place", "token", "read", "counts", "likeliest", "loss, nats"]
    return table_html(head, rows, "The sample, token by token")
