"""Encoding and decoding, files in the library's format, and what is not a tokenizer."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import pre_tokenizers

from stackwise.data.errors import DataError
from stackwise.data.library_tokenizer import LibraryTokenizer, trained_bpe
from stackwise.data.tokenizer import (
    TOKENIZERS,
    BpeParams,
    BytesParams,
    ByteTokenizer,
    JsonParams,
    byte_characters,
    load_tokenizer,
    read_tokenizer,
)

TEXT = "In the beginning God created the heaven and the earth.\n" * 50
BPE = trained_bpe(iter([TEXT]), 300)


@given(st.text())
def test_any_text_comes_back(text):
    for tokenizer in (ByteTokenizer(), BPE):
        ids = tokenizer.encode(text)
        assert ids.dtype == np.int64 and (ids < tokenizer.size).all()
        assert tokenizer.decode(ids) == text


def test_bytes_are_the_bytes():
    assert ByteTokenizer().encode("aé").tolist() == [0x61, 0xC3, 0xA9]


def test_what_is_no_text_becomes_a_replacement_character():
    assert ByteTokenizer().decode([0x61, 0xC3]) == "a\ufffd"
    assert ByteTokenizer().decode([0x61, 300, 0x62]) == "a\ufffdb"
    a = BPE.encode("a")[0]
    assert BPE.decode([a, 100_000, a]) == "a\ufffda"


def test_the_byte_alphabet_is_the_librarys():
    library = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for byte in range(0x80):
        (token, _), *rest = library.pre_tokenize_str(chr(byte))
        assert token == byte_characters()[byte] and not rest
    assert sorted(byte_characters()) == sorted(pre_tokenizers.ByteLevel.alphabet())


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), BPE], ids=["bytes", "bpe"])
def test_a_saved_tokenizer_reads_back_the_same_here_and_in_the_library(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "tokenizer.json")
    again = read_tokenizer(tmp_path / "tokenizer.json")
    library = Library.from_file(str(tmp_path / "tokenizer.json"))
    text = "the Æneid — 漢"
    assert type(again) is type(tokenizer) and again.size == tokenizer.size
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert library.encode(text).ids == tokenizer.encode(text).tolist()
    assert library.decode(library.encode(text).ids) == text


def test_training_twice_in_other_processes_gives_the_same_merges():
    code = (
        "from stackwise.data.library_tokenizer import trained_bpe\n"
        "print(trained_bpe(iter(['the cat sat on the mat. ' * 9, 'a b c ' * 7]), 290).to_json())"
    )
    made = {subprocess.check_output([sys.executable, "-c", code]) for _ in range(2)}
    assert len(made) == 1


def test_a_users_tokenizer_neither_truncates_nor_pads_nor_drops_at_random():
    content = json.loads(BPE.to_json())
    content["truncation"] = {
        "direction": "Right",
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    content["model"]["dropout"] = 0.5
    tokenizer = LibraryTokenizer(json.dumps(content), "odd")
    assert tokenizer.encode(TEXT).tolist() == BPE.encode(TEXT).tolist()


def test_special_tokens_in_the_vocabulary_are_counted_and_come_back():
    library = Library.from_str(BPE.to_json())
    library.add_special_tokens(["<|end|>"])
    tokenizer = LibraryTokenizer(library.to_str(), "with an end")
    ids, counts = tokenizer.encode_counted("the<|end|>the")
    assert tokenizer.size == BPE.size + 1 and ids.max() == BPE.size
    assert counts.sum() == 13 and tokenizer.decode(ids) == "the<|end|>the"


def test_the_registry_selects_by_name():
    assert TOKENIZERS["bpe"].params.model_validate("bpe:4096") == BpeParams(entries=4096)
    assert TOKENIZERS["bytes"].params.model_validate("bytes") == BytesParams()
    with pytest.raises(ValueError, match="entries: 256 must be 257 or more"):
        BpeParams(entries=256)


def test_loading_needs_no_corpus_unless_it_must_be_trained(tmp_path):
    BPE.save(tmp_path / "mine.json")
    assert load_tokenizer(BytesParams()).size == 256
    assert load_tokenizer(JsonParams(path="mine.json"), tmp_path).size == BPE.size
    with pytest.raises(DataError, match="is trained on a corpus"):
        load_tokenizer(BpeParams())


def test_what_is_not_a_tokenizer_is_named(tmp_path):
    cases = {
        "none.json": (None, "no such file"),
        "empty.json": ("", "the file is empty"),
        "text.json": ("hello", "is not JSON"),
        "list.json": ("[1, 2]", "is not a tokenizer.json"),
        "other.json": ('{"a": 1}', "is not a tokenizer.json"),
        "config.json": ('{"model": {"type": "Nonsense"}}', "is not a tokenizer.json"),
        "bare.json": (
            '{"model": {"type": "BPE", "vocab": {}, "merges": []}}',
            "the tokenizer has no entries",
        ),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(DataError) as error:
            load_tokenizer(JsonParams(path=name), tmp_path)
        assert name in str(error.value) and message in str(error.value)


def test_a_missing_library_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match="needs the package tokenizers: pip install tokenizers"):
        trained_bpe(iter([TEXT]), 300)
    with pytest.raises(DataError, match="pip install tokenizers"):
        LibraryTokenizer(BPE.to_json(), "mine.json")


WORDS = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
HOSTILE = {
    "a pattern without end": (
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}},
        "cannot encode the text: .*limit",
    ),
    "a letter that becomes a million million": (
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
                ]
                * 4,
            }
        },
        "its rules make over 1000 characters of one",
    ),
    "the same in turning back": (
        {"decoder": {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1001}},
        "its rules make over 1000 characters of one",
    ),
    "an entry as long as a book": (
        {"model": {"type": "WordLevel", "vocab": {"a" * 20_000: 0}, "unk_token": "a"}},
        "an entry has over 16384 characters",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_tokenizer_made_to_hang_is_refused(tmp_path, what) -> None:
    pytest.importorskip("tokenizers")
    changes, said = HOSTILE[what]
    (tmp_path / "t.json").write_text(json.dumps({**WORDS, **changes}))
    with pytest.raises(DataError, match=said):
        read_tokenizer(tmp_path / "t.json").encode("a" * 40 + "!")
