"""The King James text: whole, in canonical order, clean, and the same everywhere."""

import hashlib

import pytest

from stackwise.data.corpora import CORPORA, KjvParams


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return "".join(CORPORA["kjv"].build(KjvParams(), tmp_path_factory.getbasetemp()).pieces())


def test_it_begins_and_ends_where_it_should(text):
    assert text.startswith("In the beginning God created the heaven and the earth. And the earth")
    assert text.endswith("grace of our Lord Jesus Christ [be] with you all. Amen.\n")


def test_books_stand_in_canonical_order(text):
    openings = [
        "Now these [are] the names of the children of Israel",  # Exodus
        "Blessed [is] the man that walketh not in the counsel",  # Psalms
        "The book of the generation of Jesus Christ",  # Matthew
        "The Revelation of Jesus Christ",
    ]
    places = [text.index(f"\n{opening}") for opening in openings]
    assert places == sorted(places)


def test_every_chapter_starts_a_line(text):
    assert "\nLORD, how are they increased that trouble me!" in text  # Psalm 3
    assert text.count("\n") == 4785 and max(map(len, text.split("\n"))) < 14_000


def test_no_stray_space_is_left(text):
    assert "  " not in text and " \n" not in text and "\n " not in text and "\n\n" not in text
    assert set(text) - set(map(chr, range(0x20, 0x7F))) == {"\n", "\u2019", "æ", "Æ", "—"}


def test_it_is_the_same_text_everywhere(text):
    """Golden: the figures of studies on this text hold only for these bytes."""
    assert len(text.encode()) == 4_185_658
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "3f58a3204b854dcf"
