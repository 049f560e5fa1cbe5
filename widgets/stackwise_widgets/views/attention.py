"""The attention pattern: which token sees which, and what a kind of attention costs.

Rows are tokens that look, columns those that are looked at. The direction is the objective's, the
window the rack's; what a kind costs is what its entry in `sw.ATTENTION` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import stackwise as sw
from stackwise.block_diffusion import rows_read
from stackwise.model.shape import AttentionShape, attention_shape, cycle, total_blocks
from stackwise.objective import direction_of, is_causal
from stackwise.sampling.asked import block_in
from stackwise_widgets.views import svg
from stackwise_widgets.views.legend import legend_html
from stackwise_widgets.views.markup import bytes_said, escaped, flops_said, percent_said
from stackwise_widgets.views.tables import behind, table_html

if TYPE_CHECKING:
    from stackwise import Experiment

LONGEST = 64  # positions that a picture may have
SIDE = 200.0
LEFT, TOP = 34.0, 34.0
PATTERNS = 3  # that are drawn where windows are cycled over the blocks


def attention_pattern_html(exp: Experiment, length: int = 16) -> str:
    """Which query sees which key, for the first positions of a sample.

    Args:
        exp: Its objective, rack and attention.
        length: Positions that are drawn, 1 to 64.

    Returns:
        A `<figure>`, well-formed as XML too. Each pattern is an `<svg data-window="...">` in which
        each row of keys that a query sees is a `<rect>` with `data-query`, `data-first` and
        `data-last`.

    Raises:
        ValueError: If `length` is not in that range.
    """
    if not 1 <= length <= LONGEST:
        raise ValueError(f"length: {length} must be 1 to {LONGEST}")
    kinds = _windows(exp)
    drawn = "".join(_pattern(exp, length, w, blocks) for w, blocks in kinds[:PATTERNS])
    facts = [*facts_of(exp), *_more(kinds)]
    sums = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(said)}</dd>" for name, said in facts)
    seen = svg.rect(3, 0, 14, 14, "sw-seen")
    unseen = svg.rect(3, 0, 14, 14, "sw-unseen")
    legend = legend_html([(seen, "is seen"), (unseen, "is not seen")])
    table = behind("The same as a table", _table(exp, length, kinds))
    words = f"{exp.attention.choice}, {direction_said(exp)}"
    return (
        f'<figure class="sw-view sw-attention"><figcaption>{escaped(words)}</figcaption>'
        f'<div class="sw-side"><div class="sw-fixed"><div class="sw-side">{drawn}</div>{legend}'
        f'</div><div><dl class="sw-sums">{sums}</dl></div></div>{table}</figure>'
    )


def direction_said(exp: Experiment) -> str:
    """The direction in words."""
    kind = exp.objective.choice
    if is_causal(exp.objective):
        return f"causal, since {kind} predicts each token from those before it"
    if (block := _block(exp)) is not None:
        return (
            f"by blocks of {block} token{'s' * (block > 1)}, each of which sees itself whole and, "
            "clean, those before it; in training noisy and clean text are read at once"
        )
    return f"bidirectional, since {kind} reads to both sides of what it predicts"


def keys_seen(
    query: int, length: int, *, causal: bool, window: int | None, block: int | None = None
) -> range:
    """The keys that a query sees: |i - j| <= window, and j <= i if causal, or j's block is."""
    first = 0 if window is None else max(0, query - window)
    last = length - 1 if window is None else min(length - 1, query + window)
    if block is not None:
        last = min(last, (query // block + 1) * block - 1)
    return range(first, (query if causal else last) + 1)


def _block(exp: Experiment) -> int | None:
    """Tokens of a block, where samples are read block by block."""
    return block_in(exp.objective, exp.data.seq_len)


def _windows(exp: Experiment) -> list[tuple[int | None, list[int]]]:
    """The windows of the rack, each with the blocks of one cycle that have it."""
    found: dict[int | None, list[int]] = {}
    for block in range(min(cycle(exp.rack), total_blocks(exp.rack))):
        found.setdefault(_shape(exp, block).window, []).append(block)
    return list(found.items())


def _shape(exp: Experiment, block: int) -> AttentionShape:
    """A block's attention, as its kind works on it."""
    kind = sw.ATTENTION[exp.attention.choice]
    return kind.shaped(attention_shape(exp.rack, block), exp.attention)


def _more(kinds: Sequence[tuple[int | None, list[int]]]) -> Iterator[tuple[str, str]]:
    if len(kinds) > PATTERNS:
        others = ", ".join(window_said(window) for window, _ in kinds[PATTERNS:])
        yield "not drawn", f"blocks with {others}"


def window_said(window: int | None) -> str:
    """A window in words."""
    if window is None:
        return "all tokens"
    return f"a window of {window} token{'s' * (window != 1)} to each side"


def _pattern(exp: Experiment, length: int, window: int | None, blocks: Sequence[int]) -> str:
    """The picture of one window."""
    causal, cell, whole = is_causal(exp.objective), SIDE / length, len(_windows(exp)) == 1
    named = "every block" if whole else f"block {', '.join(map(str, blocks[:6]))} of each cycle"
    words = f"{named}: {window_said(window)}"
    parts = [*_axes(length, cell), svg.rect(LEFT, TOP, SIDE, SIDE, "sw-unseen")]
    for query in range(length):
        keys = keys_seen(query, length, causal=causal, window=window, block=_block(exp))
        parts.append(_seen(query, keys, cell))
    edges = [i * cell for i in range(1, length)]
    across = "".join(f"M{LEFT} {svg.number(TOP + edge)}h{SIDE}" for edge in edges)
    down = "".join(f"M{svg.number(LEFT + edge)} {TOP}v{SIDE}" for edge in edges)
    parts.append(svg.path(across + down, "sw-grid-lines"))
    shown = "all" if window is None else window
    size = (LEFT + SIDE + 4, TOP + SIDE + 4)
    drawn = svg.picture(*size, words, parts, small=True, data_window=shown)
    return f'<div class="sw-fixed sw-pattern">{drawn}<p class="sw-note">{escaped(words)}</p></div>'


def _seen(query: int, keys: range, cell: float) -> str:
    """The keys that one query sees, next to each other."""
    first, last = keys.start, keys.stop - 1
    seen = f"tokens {first} to {last}" if last > first else f"token {first} alone"
    return svg.rect(
        LEFT + first * cell,
        TOP + query * cell,
        len(keys) * cell,
        cell,
        "sw-seen",
        svg.title(f"token {query} sees {seen}"),
        data_query=query,
        data_first=first,
        data_last=last,
    )


def _axes(length: int, cell: float) -> Iterator[str]:
    """Numbers of tokens, of many some; what rows and columns are."""
    step = next(n for n in (1, 2, 4, 5, 8, 10, 16, 20) if n * cell >= 20 or n == 20)
    yield svg.label(LEFT, TOP - 20, "is seen: token", "sw-faint")
    yield svg.label(0, TOP - 6, "sees", "sw-faint")
    for i in range(0, length, step):
        yield svg.label(LEFT + (i + 0.5) * cell, TOP - 6, str(i), "sw-faint", at="middle")
        yield svg.label(LEFT - 5, TOP + (i + 0.5) * cell + 3.5, str(i), "sw-faint", at="end")


def facts_of(exp: Experiment) -> Iterator[tuple[str, str]]:
    """Heads, sizes, cache and FLOPs of an attention kind, in words."""
    shape = _shape(exp, 0)
    yield "heads", _heads_said(shape)
    yield from _kind_facts(exp, shape)
    yield "sees", "; ".join(window_said(window) for window, _ in _windows(exp))
    yield "KV cache", _cache_said(exp)
    yield "FLOPs", _flops_said(exp)


def _cache_said(exp: Experiment) -> str:
    """What a decoder keeps: of each token, in windows of the last ones, or running sums."""
    kind, blocks = sw.ATTENTION[exp.attention.choice], total_blocks(exp.rack)
    given, each = attention_shape(exp.rack, 0), 2 if exp.precision.compute == "bfloat16" else 4
    floats, state = (f(given, exp.attention) for f in (kind.cache_floats, kind.state_floats))
    said = f"{bytes_said(floats * blocks * each)} per token over all {blocks} blocks"
    if floats and all(window is not None for window, _ in _windows(exp)):
        said += ", of the last tokens in a window alone"
    if not floats:
        sums = f", {bytes_said(4 * state * blocks)} over all {blocks} blocks" if state else ""
        said = f"nothing per token: running sums{sums}, however long the text"
    if is_causal(exp.objective):
        return said
    return said + "; of use where text is written left to right, as with clm"


def _heads_said(shape: AttentionShape) -> str:
    heads, keys = shape.heads, shape.kv_heads
    said = f"{heads} query head{'s' * (heads > 1)} of {shape.head_dim} numbers"
    if keys == heads:
        return said + ", each with keys and values of its own"
    return said + f"; {keys} key head{'s' * (keys > 1)}, each for {heads // keys} query heads"


def _kind_facts(exp: Experiment, shape: AttentionShape) -> Iterator[tuple[str, str]]:
    """What only some kinds have: latents, features, windows of their own."""
    params = exp.attention
    if params.choice == "mla":
        from stackwise.model.attention.mla import Mla, sizes

        assert isinstance(params, Mla)
        size = sizes(shape, params)
        query = f"queries from a latent of {size.q_rank}" if size.q_rank else "full queries"
        yield "latent", f"{size.kv_rank} numbers for keys and values of all heads; {query}"
        yield "positions", f"{size.rope} numbers of a key that RoPE turns, {size.nope} without"
    elif params.choice == "kernel":
        features, law = getattr(params, "features", None), getattr(params, "map", None)
        yield (
            "features",
            f"{features} random features per head ({law}): dense, every pair counts, but through "
            "sums over keys that are taken once; no score of a single pair is ever computed",
        )
    elif params.choice == "linear":
        yield (
            "features",
            f"elu + 1 of each of the {shape.head_dim} numbers of a head: dense, every pair counts, "
            "but through sums over keys that are taken once",
        )
    elif params.choice == "window":
        yield "cost", "each token is compared with those near it alone, whatever the length"


def attention_share(exp: Experiment) -> tuple[float, float, float]:
    """FLOPs per token forward, over all blocks: of scores, of attention, of whole blocks."""
    length, params = exp.data.seq_len, exp.attention
    kind, again = sw.ATTENTION[params.choice], cycle(exp.rack)
    rows, direction = rows_read(exp.objective, length), direction_of(exp.objective, length)
    scores = weights = 0.0
    for block in range(total_blocks(exp.rack)):
        shape = attention_shape(exp.rack, block % again)
        scores += rows / length * sum(kind.score_flops(shape, params, rows, direction))
        weights += rows / length * 2 * kind.matmul_parameters(shape, params)
    # All frozen and nothing but the head trains: the blocks run forward alone.
    forward = sw.Stage(path=sw.stack_ids(exp.rack), active=(), embedding=False)
    return scores, scores + weights, sw.stage_flops_per_token(exp, forward).trunk


def _flops_said(exp: Experiment) -> str:
    scores, attention, whole = attention_share(exp)
    return (
        f"{percent_said(attention / whole)} of the blocks' {flops_said(whole)} per token forward "
        f"at {exp.data.seq_len} tokens; products without weights, as scores, are "
        f"{percent_said(scores / whole)}"
    )


def _table(exp: Experiment, length: int, kinds: Sequence[tuple[int | None, list[int]]]) -> str:
    """The keys that each query sees, by window."""
    causal = is_causal(exp.objective)
    rows = []
    for query in range(length):
        how = {"causal": causal, "block": _block(exp)}
        seen = [keys_seen(query, length, window=window, **how) for window, _ in kinds]
        rows.append([query, *(f"{keys.start} to {keys.stop - 1}" for keys in seen)])
    head = ["token", *(f"sees, with {window_said(window)}" for window, _ in kinds)]
    return table_html(head, rows, f"What the first {length} tokens see")
