"""Local files and Hugging Face folders become the text that is in them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackwise.data.corpora import CORPORA
from stackwise.data.errors import DataError

TEXTS = ["First, Æ.", "Second\nwith a line end", "", "Last 漢."]
TOGETHER = "\n\n".join(TEXTS)


def read(folder, corpus):
    name = corpus if isinstance(corpus, str) else corpus["kind"]
    choice = CORPORA[name.split(":")[0]]
    return "".join(choice.build(choice.params.model_validate(corpus), folder).pieces())


def test_text_keeps_its_line_ends_and_drops_a_byte_order_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert read(tmp_path, "text:a.txt") == "one\r\ntwo\rthree\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "shift_jis", "utf-8-sig"])
def test_text_in_other_encodings_across_block_ends(tmp_path, encoding):
    text = "xｱ漢字\n" * 150_000
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert read(tmp_path, {"kind": "text", "path": "a.txt", "encoding": encoding}) == text


def test_jsonl_puts_an_empty_line_between_texts(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "a\\n"}\n\n{"body": "\\u00e9"}', "utf-8")
    corpus = {"kind": "jsonl", "path": "a.jsonl", "field": "body"}
    assert read(tmp_path, corpus) == "a\n\n\né"


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_parquet_reads_any_kind_of_string(tmp_path, kind):
    column = pa.array(TEXTS).cast(kind)
    pq.write_table(pa.table({"other": range(4), "story": column}), tmp_path / "a.parquet")
    corpus = {"kind": "parquet", "path": "a.parquet", "column": "story"}
    assert read(tmp_path, corpus) == TOGETHER


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """Where `datasets` prepares what it reads."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    return datasets


def test_hf_reads_a_folder_of_files(tmp_path, hub_cache):
    (tmp_path / "stories").mkdir()
    for split in ("train", "test"):
        table = pa.table({"text": [f"{split} {text}" for text in TEXTS], "n": range(4)})
        pq.write_table(table, tmp_path / "stories" / f"{split}.parquet")
    assert read(tmp_path, "hf:stories") == "\n\n".join(f"train {text}" for text in TEXTS)
    options = {"kind": "hf", "dataset": "stories", "split": "test"}
    assert read(tmp_path, options) == "\n\n".join(f"test {text}" for text in TEXTS)
    for streaming in (False, True):
        few = read(tmp_path, {**options, "streaming": streaming, "documents": 2})
        assert few == "\n\n".join(f"test {text}" for text in TEXTS[:2])


def test_hf_reads_what_save_to_disk_wrote(tmp_path, hub_cache):
    single = hub_cache.Dataset.from_dict({"text": TEXTS})
    single.save_to_disk(tmp_path / "single")
    hub_cache.DatasetDict({"valid": single}).save_to_disk(tmp_path / "several")
    assert read(tmp_path, "hf:single") == TOGETHER
    assert read(tmp_path, {"kind": "hf", "dataset": "several", "split": "valid"}) == TOGETHER
    with pytest.raises(DataError, match=r'Unknown split "train". Should be one of \[\'valid\'\]'):
        read(tmp_path, "hf:several")


def test_hf_says_what_is_missing(tmp_path, hub_cache):
    (tmp_path / "stories").mkdir()
    pq.write_table(pa.table({"body": TEXTS, "n": range(4)}), tmp_path / "stories/train.parquet")
    for streaming in (False, True):
        options = {"kind": "hf", "dataset": "stories", "streaming": streaming}
        with pytest.raises(DataError, match=r"data set stories.*no column 'text'.*: body, n"):
            read(tmp_path, options)
        with pytest.raises(DataError, match=r"data set stories: .*nosuch.*check data\.corpus"):
            read(tmp_path, {**options, "split": "nosuch"})
        with pytest.raises(DataError, match=r"data set stories: .*nosuch.*check data\.corpus"):
            read(tmp_path, {**options, "config": "nosuch"})
        with pytest.raises(DataError, match="row 1, column 'n' holds int, not text"):
            read(tmp_path, {**options, "column": "n"})


def test_hf_without_a_network_is_one_clear_error(tmp_path, hub_cache):
    with pytest.raises(DataError, match=r"data set no/such: .*that the network answers"):
        read(tmp_path, "hf:no/such")


def test_only_a_pinned_revision_on_the_hub_is_taken_to_be_unchanged(tmp_path):
    build, params = CORPORA["hf"].build, CORPORA["hf"].params
    assert build(params(dataset="some/name"), tmp_path).stamp is None
    assert build(params(dataset="some/name", revision="main"), tmp_path).stamp is None
    assert build(params(dataset="some/name", revision="0" * 40), tmp_path).stamp is not None
