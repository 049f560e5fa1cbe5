"""Bits per byte divide by the true bytes of the decoded text, so every byte is counted once."""

import json

import numpy as np
import pytest

from stackwise.data.dataset import open_dataset
from stackwise.data.library_tokenizer import LibraryTokenizer, trained_bpe
from stackwise.data.tokenizer import ByteTokenizer

MIXED = "Æneas — “naïve” 漢字 😀 über alles;  two  spaces\n\n\ttab 1234567\n" * 40


def bpe_like(**changes):
    """The library's JSON of a small BPE, with parts replaced."""
    return json.dumps({**json.loads(trained_bpe(iter([MIXED[:400]]), 300).to_json()), **changes})


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:300", "bpe:280"])
@pytest.mark.parametrize("seq_len", [2, 7, 64])
def test_windows_and_remainder_are_the_heldout_text(tmp_path, tokenizer, seq_len):
    (tmp_path / "mixed.txt").write_text(MIXED, "utf-8")
    dataset = open_dataset(
        "text:mixed.txt", tokenizer, seq_len=seq_len, heldout_frac=0.3, data_dir=tmp_path
    )
    windows, sizes = dataset.heldout_windows(), dataset.heldout_bytes()
    assert windows.shape == (len(sizes), seq_len) and windows.dtype == np.int64
    rest = dataset.tokens.heldout[windows.size :]
    rest_bytes = len(rest) if tokenizer == "bytes" else dataset.tokens.heldout_bytes[-len(rest) :]
    left_over = int(np.sum(rest_bytes)) if len(rest) else 0
    assert sizes.sum() + left_over == len(dataset.heldout_text.encode())
    assert dataset.tokenizer.decode(dataset.tokens.heldout) == dataset.heldout_text


def test_a_window_that_cuts_a_character_counts_only_its_own_bytes():
    """A BPE without merges for 😀 splits it into four tokens of one byte each."""
    tokenizer = trained_bpe(iter(["aaaa bbbb"]), 257)
    ids, counts = tokenizer.encode_counted("a😀b漢")
    assert len(ids) == 9 and counts.tolist() == [1] * 9


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), trained_bpe(iter([MIXED]), 400)])
def test_each_count_is_the_size_of_what_the_token_decodes_to(tokenizer):
    """Oracle: the bytes of the first n tokens, by decoding them where no character is cut."""
    ids, counts = tokenizer.encode_counted(MIXED)
    ends = np.cumsum(counts)
    checked = 0
    for n in range(1, len(ids)):
        text = tokenizer.decode(ids[:n])
        if "\ufffd" not in text:
            assert len(text.encode()) == ends[n - 1]
            checked += 1
    assert checked > len(ids) / 2 and ends[-1] == len(MIXED.encode())


def test_offsets_that_leave_out_spaces_lose_no_byte():
    """RoBERTa's post-processor trims the space off each token's offsets."""
    trimming = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    tokenizer = LibraryTokenizer(bpe_like(post_processor=trimming), "trimmed")
    _, counts = tokenizer.encode_counted(MIXED)
    assert counts.sum() == len(MIXED.encode())


def test_a_tokenizer_that_loses_text_gets_no_credit_for_it(tmp_path):
    """Words, with spaces dropped and anything unseen turned into one unknown token."""
    vocabulary = {"[UNK]": 0, "the": 1, "cat": 2, "sat": 3}
    content = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    (tmp_path / "words.json").write_text(json.dumps(content), "utf-8")
    (tmp_path / "cat.txt").write_text("the cat sat, naïve\n" * 50, "utf-8")
    _, counts = LibraryTokenizer(json.dumps(content), "words").encode_counted("the cat sat, naïve")
    assert counts.tolist() == [3, 3, 3, 0, 0]
    dataset = open_dataset(
        "text:cat.txt", "json:words.json", seq_len=4, heldout_frac=0.4, data_dir=tmp_path
    )
    size = len(dataset.heldout_text.encode())
    assert size == 400
    assert dataset.notes == (
        "the tokenizer does not give back the text: bits per byte count 180 of the 400 held-out "
        "bytes, and compare only with the same tokenizer",
    )


def test_a_lossless_tokenizer_with_gaps_credits_them_to_the_next_token():
    """Whitespace split off and put back by the decoder: offsets cover the words alone."""
    content = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"<u>": 0, "né": 1, "ab": 2}, "unk_token": "<u>"},
    }
    _, counts = LibraryTokenizer(json.dumps(content), "words").encode_counted("né ab né")
    assert counts.tolist() == [3, 3, 4]
