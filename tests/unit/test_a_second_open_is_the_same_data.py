"""The cache: nothing is read twice, nothing stale is used, and processes may race."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from stackwise.choice import Choice
from stackwise.data.cache import cache_folder
from stackwise.data.corpora import CORPORA, Corpus
from stackwise.data.dataset import open_dataset

TEXT = "So we beat on, boats against the current, borne back ceaselessly. ü\n" * 200


@pytest.fixture
def folder(tmp_path):
    """A text file that has not changed for an hour."""
    write(tmp_path / "a.txt", TEXT)
    return tmp_path


def write(path, text, age_seconds=3600.0):
    path.write_text(text, "utf-8")
    then = time.time() - age_seconds
    os.utime(path, (then, then))


def opened(folder, tokenizer="bytes", **options):
    given = {"seq_len": 16, "data_dir": folder, "cache_dir": folder / "cache", **options}
    return open_dataset("text:a.txt", tokenizer, **given)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:300"])
def test_a_second_open_reads_and_tokenizes_nothing(folder, tokenizer, monkeypatch):
    first = opened(folder, tokenizer)

    def forbidden(*args, **options):
        raise AssertionError("the source was read again")

    monkeypatch.setattr("stackwise.data.corpora.text_pieces", forbidden)
    monkeypatch.setattr("stackwise.data.library_tokenizer.trained_bpe", forbidden)
    second = opened(folder, tokenizer)
    assert second.fingerprint == first.fingerprint
    np.testing.assert_array_equal(second.samples([0, 5]), first.samples([0, 5]))
    np.testing.assert_array_equal(second.heldout_windows(), first.heldout_windows())


def test_ids_are_mapped_not_held(folder):
    for tokenizer, dtype in (("bytes", np.uint8), ("bpe:300", np.uint16)):
        ids = opened(folder, tokenizer).tokens.train
        assert isinstance(ids, np.memmap) and ids.dtype == dtype and not ids.flags.writeable


def test_a_changed_file_is_read_again(folder):
    first = opened(folder)
    write(folder / "a.txt", TEXT.replace("boats", "ships"), age_seconds=1800)
    assert opened(folder).train_text.startswith("So we beat on, ships")
    assert opened(folder).fingerprint != first.fingerprint


def test_a_file_written_just_now_is_never_taken_on_trust(folder):
    """Two writes within the clock's grain leave size and time as they were."""
    write(folder / "a.txt", TEXT, age_seconds=0)
    opened(folder)
    found = (folder / "a.txt").stat()
    (folder / "a.txt").write_text(TEXT.replace("boats", "ships"), "utf-8")
    os.utime(folder / "a.txt", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert opened(folder).train_text.startswith("So we beat on, ships")


def test_equal_text_has_one_fingerprint_wherever_it_comes_from(folder):
    (folder / "b.jsonl").write_text(json.dumps({"text": TEXT}) + "\n", "utf-8")
    other = open_dataset("jsonl:b.jsonl", seq_len=16, data_dir=folder, cache_dir=folder / "else")
    assert other.fingerprint == opened(folder).fingerprint


def test_what_decides_the_ids_decides_the_fingerprint(folder):
    made = [
        opened(folder),
        opened(folder, heldout_frac=0.1),
        opened(folder, "bpe:300"),
        opened(folder, "bpe:301"),
    ]
    assert len({dataset.fingerprint for dataset in made}) == 4
    assert opened(folder, seq_len=32).fingerprint == made[0].fingerprint


def test_a_users_tokenizer_counts_by_content_not_by_name(folder):
    opened(folder, "bpe:300").tokenizer.save(folder / "mine.json")
    first = opened(folder, "json:mine.json")
    assert first.fingerprint == opened(folder, "bpe:300").fingerprint
    opened(folder, "bpe:290").tokenizer.save(folder / "mine.json")
    assert opened(folder, "json:mine.json").fingerprint != first.fingerprint


def test_a_file_cut_short_in_the_cache_is_made_again(folder):
    first = opened(folder, "bpe:300")
    for path in (*(folder / "cache").rglob("text.utf8"), *(folder / "cache").rglob("train.ids")):
        os.truncate(path, 10)
    second = opened(folder, "bpe:300")
    assert second.fingerprint == first.fingerprint
    assert second.train_text == TEXT[: len(second.train_text)]


def test_an_error_leaves_nothing_behind(folder):
    (folder / "a.txt").write_bytes(b"good" * 1000 + b"\xff")
    with pytest.raises(ValueError, match="byte 4000"):
        opened(folder)
    assert [p for p in (folder / "cache").rglob("*") if p.is_file()] == []


def test_processes_that_race_get_the_same_data(folder):
    code = (
        "import sys; from stackwise.data.dataset import open_dataset\n"
        "d = open_dataset('text:a.txt', 'bpe:400', seq_len=16, data_dir=sys.argv[1],"
        " cache_dir=sys.argv[1] + '/cache')\n"
        "print(d.fingerprint, d.samples(range(d.n_samples)).sum(), d.heldout_bytes().sum())"
    )
    command = [sys.executable, "-c", code, str(folder)]
    racing = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=60)[0] for process in racing}
    assert all(process.returncode == 0 for process in racing) and len(said) == 1
    assert not list((folder / "cache").rglob(".making-*"))


def test_the_cache_is_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("STACKWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / "xdg" / "stackwise"


def test_a_corpus_of_the_users_own_joins_the_registry(tmp_path, monkeypatch):
    monkeypatch.setitem(
        CORPORA, "mine", Choice(lambda params, data_dir: Corpus("mine", lambda: iter([TEXT])))
    )
    dataset = open_dataset("mine", seq_len=16, cache_dir=tmp_path)
    assert dataset.name == "mine" and dataset.train_text + dataset.heldout_text == TEXT


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path):
    """As after a power cut: the name and the length are there, the bytes are not."""
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:300"])
@pytest.mark.parametrize("damage", [flipped, cut, emptied])
def test_prepared_data_that_are_damaged_are_made_again(folder, tokenizer, damage):
    first = opened(folder, tokenizer)
    windows = first.heldout_windows()
    sizes, samples = first.heldout_bytes(), first.samples([0, 5])
    paths = [path for path in (folder / "cache").rglob("*") if path.is_file()]
    assert len(paths) > 2
    for path in paths:
        whole = path.read_bytes()
        damage(path)
        again = opened(folder, tokenizer)
        assert again.fingerprint == first.fingerprint
        np.testing.assert_array_equal(again.samples([0, 5]), samples)
        np.testing.assert_array_equal(again.heldout_windows(), windows)
        np.testing.assert_array_equal(again.heldout_bytes(), sizes)
        assert path.read_bytes() == whole, f"{path.name} was not made again"


def test_each_prepared_file_is_hashed_once_in_a_process(folder, monkeypatch):
    opened(folder, "bpe:300")

    def forbidden():
        raise AssertionError("a file was read again")

    monkeypatch.setattr("stackwise.data.cache.xxh3_128", forbidden)
    opened(folder, "bpe:300")
