"""The attention pattern: what is drawn is what the layers see, and its costs are the ledger's."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch

import stackwise as sw
from stackwise.model.attention.mha import window_mask
from stackwise_widgets.views import attention_pattern_html
from stackwise_widgets.views.attention import attention_share
from stackwise_widgets.views.markup import bytes_said, percent_said

SVG = "{http://www.w3.org/2000/svg}"
TOY = sw.Experiment.preset("toy")
KINDS = {
    "mha": TOY,
    "gqa": TOY.replace(attention="gqa", rack={"kv_heads": 1}),
    "mla": TOY.replace(attention={"kind": "mla", "q_rank": 24}),
    "kernel": TOY.replace(attention="kernel"),
    "linear": TOY.replace(attention="linear"),
    "mqa": TOY.replace(attention="mqa"),
    "window": TOY.replace(attention="window:5"),
}


def seen_in(picture, length):
    seen = torch.zeros(length, length, dtype=torch.bool)
    for rect in picture.iter(f"{SVG}rect"):
        if rect.get("data-query"):
            row = seen[int(rect.get("data-query"))]
            row[int(rect.get("data-first")) : int(rect.get("data-last")) + 1] = True
    return seen


@pytest.mark.parametrize("objective", ["clm", "mlm", "diffusion"])
@pytest.mark.parametrize("window", [None, 1, 3, 20, (None, 3, 3), (2, 5)])
@pytest.mark.parametrize("length", [1, 7, 16])
def test_each_token_sees_what_the_layer_lets_it_see(objective, window, length):
    exp = TOY.replace(objective=objective, rack={"window": window})
    root = ElementTree.fromstring(attention_pattern_html(exp, length))
    pictures = [p for p in root.iter(f"{SVG}svg") if p.get("data-window")]
    windows = list(dict.fromkeys(window if isinstance(window, tuple) else [window]))
    assert [p.get("data-window") for p in pictures] == [str(w or "all") for w in windows]
    for picture, each in zip(pictures, windows, strict=True):
        mask = window_mask(length, each, objective == "clm", torch.device("cpu"))
        if mask is None:
            mask = torch.ones(length, length, dtype=torch.bool)
            mask = mask.tril() if objective == "clm" else mask
        assert torch.equal(seen_in(picture, length), mask)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_and_the_share_are_the_ledgers(kind):
    exp = KINDS[kind]
    html = attention_pattern_html(exp)
    (row,) = sw.plan_rows(exp, sw.Placement(), sw.stages(exp))
    if kind in ("kernel", "linear"):
        assert row["cache_bytes_per_token"] == 0
        assert "nothing per token" in html
    else:
        assert f"{bytes_said(row['cache_bytes_per_token'])} per token over all 4 blocks" in html
    scores, attention, whole = attention_share(exp)
    assert 0 < scores < attention < whole
    forward = sw.Stage(path=sw.stack_ids(exp.rack), active=(), embedding=False)
    assert whole == sw.stage_flops_per_token(exp, forward).trunk
    assert f"{percent_said(attention / whole)} of the blocks" in html


def test_half_the_flops_of_a_toy_block_are_as_counted_by_hand():
    """Width 64, 64 tokens, 2 heads of 32: 4 D^2 weights of attention and 4 T D of scores."""
    scores, attention, whole = attention_share(TOY)
    assert scores == 4 * 4 * 64 * 64
    assert attention == 4 * (2 * 4 * 64**2 + 4 * 64 * 64)
    assert whole - attention == 4 * 2 * 3 * 64 * 192  # the feed-forward, 8/3 of 64 up to 192


def test_sizes_are_said_in_words():
    assert "1 key head, each for 2 query heads" in attention_pattern_html(KINDS["gqa"])
    mla = attention_pattern_html(KINDS["mla"])
    assert "32 numbers for keys and values of all heads; queries from a latent of 24" in mla
    assert "128 random features per head (softmax_positive): dense" in attention_pattern_html(
        KINDS["kernel"]
    )
    assert "320.0 KiB per token over all 80 blocks" in attention_pattern_html(
        sw.Experiment.preset("llama-2-70b")
    )


def test_a_kinds_own_window_and_heads_are_shown():
    near = attention_pattern_html(KINDS["window"])
    assert 'data-window="5"' in near and "of the last tokens in a window alone" in near
    assert "1 key head, each for 2 query heads" in attention_pattern_html(KINDS["mqa"])
    states = 4 * 4 * 2 * 32 * 33  # blocks, bytes, heads, features times values with ones
    assert f"running sums, {bytes_said(states)} over all" in attention_pattern_html(KINDS["linear"])


def test_a_kind_of_ones_own_is_shown_too(monkeypatch):
    entry = sw.ATTENTION["mha"]
    monkeypatch.setitem(sw.ATTENTION, "own", type(entry)(**{**vars(entry), "params": None}))
    html = attention_pattern_html(TOY.replace(attention="own"))
    assert "own, bidirectional" in html


@pytest.mark.parametrize("length", [0, 65])
def test_a_length_out_of_range_is_refused(length):
    with pytest.raises(ValueError, match="must be 1 to 64"):
        attention_pattern_html(TOY, length)
