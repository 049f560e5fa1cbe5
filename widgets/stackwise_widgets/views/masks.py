"""The mask preview: a user's own text at some noise levels, as the chosen masking makes it.

How a text is read and cut is in `tokens.py`, how it is corrupted in `levels.py`, the schedule's
picture in `curve.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

import stackwise as sw
from stackwise.block_diffusion import BlockDiffusion
from stackwise.objective import is_causal, schedule_of
from stackwise_widgets.views.curve import curve_svg
from stackwise_widgets.views.levels import Level, corrupted_at, kind_of
from stackwise_widgets.views.markup import escaped, percent_said, stacks_said
from stackwise_widgets.views.noise import between, path_at
from stackwise_widgets.views.tables import behind, table_html
from stackwise_widgets.views.tokens import Piece, Text, part_said, read_text, readable

if TYPE_CHECKING:
    from stackwise import Experiment, Stage
    from stackwise.data.tokenizer import Tokenizer

HIDDEN = "▒"  # in a masked token's box: what is copied, and read where there is no style sheet
EMPTY = "Type some text to see what masking makes of it."


def mask_preview_html(
    exp: Experiment,
    text: str,
    *,
    tokenizer: Tokenizer,
    levels: Sequence[float] = (0.1, 0.5, 0.9),
    seed: int = 0,
) -> str:
    """A text as the rack reads it under the experiment's masking.

    Args:
        exp: Its objective, masking, rack and curriculum.
        text: Anything; of a long one the first 200 tokens are shown, and it is said.
        tokenizer: That of the data: `sw.open_dataset(...).tokenizer`, or a run's.
        levels: Diffusion times, or parts of the training done, each within 0 and 1.
        seed: Of the draw.

    Returns:
        A `<figure>`, well-formed as XML too. In it each level is a `<div class="sw-level">` with
        `data-level`, `data-masked` and `data-tokens`, each masked token an element of class
        `sw-mask` whose tooltip is the true token.

    Raises:
        ValueError: If a level is not within 0 and 1.
    """
    odd = [level for level in levels if not 0 <= level <= 1]
    if odd:
        raise ValueError(f"levels: {odd[0]} must be within 0 and 1")
    read, vocab = read_text(text, tokenizer), exp.rack.vocab or tokenizer.size
    if not len(read.ids_T):
        body = [f'<p class="sw-note">{EMPTY}</p>']
    elif is_causal(exp.objective):
        body = [_shifted(read)]
    else:
        made = _stages(exp)
        found = [corrupted_at(exp, read.ids_T, at, vocab=vocab, seed=seed) for at in levels]
        body = [_side(exp, made, found, read, tokenizer), _table(exp, found)]
    notes = "".join(f'<p class="sw-note">{escaped(note)}</p>' for note in _notes(exp, read))
    return (
        f'<figure class="sw-view sw-masks"><figcaption>{escaped(said_of(exp))}</figcaption>'
        f"{''.join(body)}{notes}</figure>"
    )


def _stages(exp: Experiment) -> Sequence[Stage]:
    """The stages; none where they contradict the masking, which is for the grid to say."""
    try:
        return sw.stages(exp)
    except sw.ExperimentError:
        return ()


def said_of(exp: Experiment) -> str:
    """The masking in one line."""
    schedule = schedule_of(exp.objective, exp.masking.schedule)
    if is_causal(exp.objective):
        return f"{exp.objective.choice}: nothing is masked; a token is predicted from those before"
    if schedule is None:
        return f"{exp.objective.choice}: an objective of your own, which takes no schedule"
    over = "diffusion time" if kind_of(exp) == "time" else "training"
    if isinstance(exp.objective, BlockDiffusion):
        size = exp.objective.last
        over += f", each block of {size} token{'s' * (size > 1)} at a time of its own"
    bands = f", noise bands by depth: {_bands_said(exp)}" if exp.masking.bands else ""
    return f"{exp.objective.choice}: schedule {schedule.choice} over {over}{bands}"


def _bands_said(exp: Experiment) -> str:
    bands = exp.masking.bands
    return bands if isinstance(bands, str) else "edges " + ", ".join(map(percent_said, bands or ()))


def _notes(exp: Experiment, read: Text) -> Iterator[str]:
    if read.note:
        yield read.note
    if len(read.ids_T) > exp.data.seq_len:
        yield f"In training a sample has {exp.data.seq_len} tokens; this is longer."


def _shifted(read: Text) -> str:
    """What `clm` reads and predicts: each token is the target of the place before it."""
    first = '<span class="sw-token sw-part" title="a vector of its own, read first">START</span>'
    tokens = "".join(_shown(piece) for piece in read.pieces)
    last = readable(read.pieces[-1].text)
    count = len(read.ids_T)
    return (
        f'<div class="sw-level" data-masked="0" data-tokens="{count}"><p>0 of {count} tokens are '
        f"masked. At each place the rack has read what stands to the left and predicts the next "
        f"token: after START the first, and at the end {escaped(last)}, which is never read.</p>"
        f'<p class="sw-text">{first}→{tokens}</p></div>'
    )


def _side(
    exp: Experiment,
    made: Sequence[Stage],
    found: Sequence[Level],
    read: Text,
    tokenizer: Tokenizer,
) -> str:
    """The text at each level, and beside it the schedule."""
    texts = "".join(_level(exp, made, level, read, tokenizer) for level in found)
    curve = ""
    if kind_of(exp) != "none":
        drawn = curve_svg(exp, made, [level.at for level in found])
        curve = f'<div class="sw-fixed sw-curve-box">{drawn}</div>'
    return f'<div class="sw-side"><div>{texts}</div>{curve}</div>'


def _level(
    exp: Experiment, made: Sequence[Stage], level: Level, read: Text, tokenizer: Tokenizer
) -> str:
    tokens = "".join(_piece(piece, level, read, tokenizer) for piece in read.pieces)
    masked, count = int(level.hidden_T.sum()), len(read.ids_T)
    facts = f'data-level="{level.at:g}" data-masked="{masked}" data-tokens="{count}"'
    return (
        f'<div class="sw-level" {facts}><p>{escaped(level_said(exp, made, level, read))}</p>'
        f'<p class="sw-text">{tokens}</p></div>'
    )


def level_said(exp: Experiment, made: Sequence[Stage], level: Level, read: Text) -> str:
    """A level in words: how much is masked, how much the schedule asks for, which stacks work."""
    masked, count, kind = int(level.hidden_T.sum()), len(read.ids_T), kind_of(exp)
    asked = f"; the schedule asks for {percent_said(level.asked)}" if kind != "none" else ""
    if kind == "progress":
        chosen = int(level.counted_T.sum())
        seen_T = level.counted_T & ~level.hidden_T
        own = int((seen_T & (level.input_T == read.ids_T)).sum())
        return (
            f"{percent_said(level.at)} of training: {_of(chosen, count)} to be predicted "
            f"({percent_said(chosen / count)}{asked}). {masked} of them read [MASK], "
            f"{int(seen_T.sum()) - own} another token, {own} their own."
        )
    where = f"t = {level.at:g}: " if kind == "time" else ""
    said = f"{where}{_of(masked, count)} masked ({percent_said(masked / count)}{asked})."
    return f"{said} {_depth_said(exp, made, level)}".strip()


def _of(some: int, count: int) -> str:
    return f"{some} of {count} token{'s' * (count != 1)} {'is' if some == 1 else 'are'}"


def _depth_said(exp: Experiment, made: Sequence[Stage], level: Level) -> str:
    """Time as depth: which stack trains at this noise, and what a sample so noisy runs through."""
    if exp.masking.bands is None:
        return ""
    ids = sw.stack_ids(exp.rack)
    bands = sw.stack_bands(exp.masking, exp.rack.stacks, exp.objective)
    at = min(max(level.asked, 1e-9), 1.0)
    stack, band = next((s, b) for s, b in zip(ids, bands, strict=True) if b[0] < at <= b[1])
    said = f"Here {stack} works: its band is {between(band)}"
    stage = path_at(made, at)
    return said + (f"; the path is {stacks_said(stage.path, ids)}." if stage else ".")


def _piece(piece: Piece, level: Level, read: Text, tokenizer: Tokenizer) -> str:
    """Tokens that are text together: as text if nothing was done to them, else one by one."""
    places = range(piece.first, piece.first + len(piece.parts))
    if not level.counted_T[places].any() and (level.input_T[places] == read.ids_T[places]).all():
        return _shown(piece)
    return "".join(
        _token(piece, level, read, tokenizer, place, part)
        for place, part in zip(places, piece.parts, strict=True)
    )


def _token(
    piece: Piece, level: Level, read: Text, tokenizer: Tokenizer, place: int, part: str
) -> str:
    """One token of a text that was corrupted."""
    true, shown = _named(piece, place, part), part
    kind, tip = "sw-token", true
    if level.hidden_T[place]:
        return f'<span class="sw-mask" title="masked; hides {escaped(true)}">{HIDDEN}</span>'
    if level.input_T[place] != read.ids_T[place]:
        shown = part_said(int(level.input_T[place]), tokenizer)
        kind, tip = "sw-token sw-random", f"another token is read in the place of {true}"
    elif level.counted_T[place]:
        kind, tip = "sw-token sw-kept", f"is to be predicted, and is read as it is: {true}"
    kind += " sw-part" * (len(shown) > 1 and shown != piece.text)
    return f'<span class="{kind}" title="{escaped(tip)}">{escaped(shown)}</span>'


def _named(piece: Piece, place: int, part: str) -> str:
    """A token for a tooltip: its text, or which part of which character it is."""
    count, number = len(piece.parts), place - piece.first + 1
    whole = readable(piece.text)
    return f"“{whole}”" if count == 1 else f"{part}, part {number} of {count} of “{whole}”"


def _shown(piece: Piece) -> str:
    """Tokens that can be seen, as text; a line ends where the text's own ends."""
    text = piece.parts[0] if len(piece.parts) == 1 else readable(piece.text)
    blank = " sw-blank" if not piece.text.strip() else ""
    wrap = "<wbr/>" if blank else ""
    return f'<span class="sw-token{blank}">{escaped(text)}</span>{wrap}'


def _table(exp: Experiment, found: Sequence[Level]) -> str:
    """The levels as a table, and the stacks' bands."""
    head = ["diffusion time" if kind_of(exp) == "time" else "training done"]
    head += ["tokens", "masked", "masked part", "schedule asks for"]
    rows = [
        [
            f"{level.at:g}",
            len(level.input_T),
            int(level.hidden_T.sum()),
            percent_said(float(np.mean(level.hidden_T))),
            percent_said(level.asked),
        ]
        for level in found
    ]
    tables = [table_html(head, rows, "The text at each level")]
    if exp.masking.bands is not None:
        bands = sw.stack_bands(exp.masking, exp.rack.stacks, exp.objective)
        lines = [[s, between(b)] for s, b in zip(sw.stack_ids(exp.rack), bands, strict=True)]
        tables.append(table_html(["stack", "masked"], lines, "The noise band of each stack"))
    return behind("The same as tables", *tables)
