"""The last part of the text, by bytes and at a character, is held out of everything."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackwise.data.dataset import open_dataset
from stackwise.data.text import heldout_start, segments

LETTERS = st.text(st.sampled_from("aé漢😀\n "), min_size=1)


@given(LETTERS, st.floats(0.01, 0.99))
def test_the_cut_falls_on_a_character_at_or_before_the_stated_byte(text, frac):
    text_U8 = np.frombuffer(text.encode(), dtype=np.uint8)
    start = heldout_start(text_U8, frac)
    text_U8[:start].tobytes().decode()
    text_U8[start:].tobytes().decode()
    wanted = len(text_U8) - round(len(text_U8) * frac)
    assert 0 <= wanted - start <= 3


@given(LETTERS)
def test_segments_put_together_are_the_text(text):
    text_U8 = np.frombuffer(text.encode(), dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stackwise.data.text.SEGMENT_BYTES", 7)
        parts = list(segments(text_U8, 0, len(text_U8)))
    assert "".join(parts) == text and all(len(part.encode()) <= 7 for part in parts)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:270"])
def test_samples_are_the_training_text_packed_without_gaps(tmp_path, tokenizer):
    text = "".join(f"line {i} of the training text é\n" for i in range(300))
    (tmp_path / "a.txt").write_text(text, "utf-8")
    dataset = open_dataset("text:a.txt", tokenizer, seq_len=10, data_dir=tmp_path)
    assert dataset.train_text + dataset.heldout_text == text
    packed = dataset.samples(np.arange(dataset.n_samples))
    assert packed.shape == (dataset.n_samples, 10) and packed.dtype == np.int64
    assert dataset.train_text.startswith(dataset.tokenizer.decode(packed.flatten())[:-1])
    assert len(dataset.tokens.train) - packed.size < 10


def test_the_tokenizer_learns_nothing_from_the_heldout_part(tmp_path):
    """Two corpora that differ only in their held-out part get the same BPE."""
    made = []
    for tail in ("zqzqzqzqzq" * 50, "xwxwxwxwxw" * 50):
        (tmp_path / "a.txt").write_text("the cat sat on the mat\n" * 100 + tail, "utf-8")
        made.append(
            open_dataset(
                "text:a.txt", "bpe:280", seq_len=8, heldout_frac=0.2, data_dir=tmp_path
            ).tokenizer.to_json()
        )
    assert made[0] == made[1] and "zq" not in made[0]
