"""Tokens that become text: a sample while it is denoised, and what every depth would read there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stackwise_widgets.views.markup import escaped, percent_said, shortened
from stackwise_widgets.views.tables import behind, table_html

HIDDEN = "▒"
AT_ONCE = 64  # tokens of a table through depth; more is for the page to scroll


def denoising_html(
    tokens: Sequence[str], hidden: Sequence[bool], new: Sequence[bool], given: Sequence[bool],
    *, step: int, steps: int,
) -> str:  # fmt: skip
    """A sample after one step.

    Args:
        tokens: What stands for each token.
        hidden: Whether it reads [MASK] still.
        new: Whether this step chose it.
        given: Whether it was there from the start.
        step: Done so far.
        steps: In all.

    Returns:
        A `<figure>`, well-formed as XML too, with `data-step` and `data-hidden`.
    """
    count, left = len(tokens), sum(hidden)
    now = sum(new)
    said = (
        f"Step {step} of {steps}: {count - left} of {count} tokens are known, "
        f"{now} of them since the step before."
    )
    shown = "".join(_token(*each) for each in zip(tokens, hidden, new, given, strict=True))
    return (
        f'<figure class="sw-view sw-denoise" data-step="{step}" data-hidden="{left}">'
        f'<figcaption>{escaped(said)}</figcaption><p class="sw-text">{shown}</p></figure>'
    )


def _token(token: str, hidden: bool, new: bool, given: bool) -> str:
    if hidden:
        return f'<span class="sw-token sw-mask" title="masked">{HIDDEN}</span>'
    kind, tip = "sw-token", "chosen at an earlier step"
    if new:
        kind, tip = "sw-token sw-fresh", "chosen at this step"
    elif given:
        kind, tip = "sw-token sw-given", "given"
    return f'<span class="{kind}" title="{tip}">{escaped(token)}</span>'


def depths_html(
    names: Sequence[str],
    tokens: Sequence[Sequence[str]],
    prob_LT: NDArray[np.float64],
    reads: Sequence[str],
    at: Sequence[int],
    *,
    words: str,
) -> str:
    """What the rack would read at some places if it ended after each block.

    Args:
        names: Of the exits, from the embedding on.
        tokens: (L, T) what stands for the best guess.
        prob_LT: Its probability.
        reads: What stands for each token that goes in.
        at: The places that are shown.
        words: What it is of.

    Returns:
        A `<figure>`, well-formed as XML too; each guess is a `<td>` with `data-exit`.
    """
    places = list(at)[:AT_ONCE]
    top = "".join(f'<th scope="col" title="place {t}">{escaped(_cut(reads[t]))}</th>'
                  for t in places)  # fmt: skip
    body = []
    for depth in reversed(range(len(names))):  # the last block on top, as in the picture of a rack
        cells = "".join(_guess(names[depth], tokens[depth][t], float(prob_LT[depth, t]),
                               tokens[-1][t]) for t in places)  # fmt: skip
        body.append(f'<tr><th scope="row">{escaped(names[depth])}</th>{cells}</tr>')
    more = len(at) - len(places)
    rest = f'<p class="sw-note">and {more} more places</p>' if more > 0 else ""
    table = (
        f'<table class="sw-table sw-depths"><thead><tr><th scope="col">reads</th>{top}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    rows = [[names[d], *(f"{tokens[d][t]} {percent_said(float(prob_LT[d, t]))}" for t in places)]
            for d in range(len(names))]  # fmt: skip
    head = ["after", *(f"{reads[t]} ({t})" for t in places)]
    numbers = behind("The same with probabilities", table_html(head, rows, words))
    return (
        f'<figure class="sw-view"><figcaption>{escaped(words)}</figcaption>'
        f'<div class="sw-scroll">{table}</div>{rest}{numbers}</figure>'
    )


def _guess(exit_: str, token: str, prob: float, last: str) -> str:
    """A guess, on a ground that is the fuller the surer it is; underlined if it is the last one."""
    same = " sw-same" if token == last else ""
    ground = f"background:rgba(0, 114, 178, {0.55 * prob:.3f})"
    tip = f"after {exit_}: {token} with {percent_said(prob)}"
    return (
        f'<td class="sw-guess{same}" data-exit="{escaped(exit_)}" style="{ground}" '
        f'title="{escaped(tip)}">{escaped(_cut(token))}</td>'
    )


def _cut(token: str) -> str:
    return shortened(token, 8)
