"""Attention maps and small pictures: the numbers in them, what is blank, what strangers wrote."""

import base64
import itertools
import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest

from stackwise_widgets.views.maps import attention_map_html, most_taken, row_said, spread_of
from stackwise_widgets.views.png import SHADES, matrix_png, palette

SVG = "{http://www.w3.org/2000/svg}"


def read_png(uri):
    """Width, height, and the index of each pixel; the chunks' sums are checked."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        (sum_,) = struct.unpack(">I", data[at + 8 + size : at + 12 + size])
        assert sum_ == zlib.crc32(name + body)
        chunks[name], at = body, at + 12 + size
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    assert chunks[b"tRNS"][SHADES] == 0
    assert set(chunks[b"tRNS"][:SHADES]) == {255}
    return lines[:, 1:]


def test_a_picture_holds_the_matrix():
    value = np.array([[0.0, 0.5, 1.0], [np.nan, 2.0, -1.0]])
    shade = read_png(matrix_png(value, 0.0, 1.0))
    assert shade.tolist() == [[0, (SHADES - 1) // 2, SHADES - 1], [SHADES, SHADES - 1, 0]]
    grey = [0.299 * r + 0.587 * g + 0.114 * b
            for r, g, b in zip(*[iter(palette()[: 3 * SHADES])] * 3, strict=True)]  # fmt: skip
    assert all(b >= a - 1 for a, b in itertools.pairwise(grey))  # lighter is more


def weights(heads=2, length=4):
    made = np.random.default_rng(0).random((heads, length, length))
    seen = np.tril(np.ones((length, length), bool))
    made = np.where(seen, made, 0)
    return made / made.sum(-1, keepdims=True), seen


def test_rows_say_what_they_take_and_the_unseen_is_blank():
    made, seen = weights()
    html = attention_map_html(made, list("abcd"), head=1, seen_TS=seen)
    root = ElementTree.fromstring(html)
    rows = [r for r in root.iter(f"{SVG}rect") if r.get("data-query")]
    assert [row.get("data-query") for row in rows] == ["0", "1", "2", "3"]
    want = np.where(seen, made[1], np.nan)
    for place, row in enumerate(rows):
        assert row.find(f"{SVG}title").text == row_said(want[place], list("abcd"), place)
    large = next(root.iter(f"{SVG}image")).get("href")
    assert ((read_png(large) == SHADES) == ~seen).all()
    assert most_taken(want[0]) == [0]
    small = [img.get("alt") for img in root.iter("img")]
    assert len(small) == 2
    assert small[0] == f"head 0, spread over {spread_of(made[0]):.1f} tokens"


def test_the_mean_is_over_heads():
    made, seen = weights(heads=3)
    html = attention_map_html(made, list("abcd"), seen_TS=seen)
    mean = np.where(seen, made, np.nan).mean(0)
    assert row_said(mean[3], list("abcd"), 3).splitlines()[1] in html.replace("&amp;", "&")


def test_spread_is_one_for_one_token_and_all_for_even_rows():
    assert spread_of(np.eye(5)) == pytest.approx(1)
    assert spread_of(np.full((5, 5), 0.2)) == pytest.approx(5)
    assert np.isnan(spread_of(np.array([[-0.5, 1.5], [0.0, 1.0]])))


def test_tokens_of_strangers_are_text():
    made, _ = weights()
    tokens = ["<b>", "&\"'", "\x00\ud800", "]]>"]
    root = ElementTree.fromstring(attention_map_html(made, tokens))
    assert root.find(".//b") is None
    assert any(text.text == "<b>" for text in root.iter(f"{SVG}text"))


def test_what_does_not_fit_is_refused():
    made, _ = weights()
    with pytest.raises(ValueError, match="tokens: 3 for a map of 4 x 4"):
        attention_map_html(made, list("abc"))
    with pytest.raises(ValueError, match="head: 2 is none of the 2 that there are"):
        attention_map_html(made, list("abcd"), head=2)


def test_a_long_text_and_many_heads_stay_small():
    made = np.random.default_rng(0).dirichlet(np.ones(128), (32, 128))
    assert len(attention_map_html(made, ["token"] * 128)) < 1_500_000
