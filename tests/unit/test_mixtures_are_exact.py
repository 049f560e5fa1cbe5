"""A mixture gives each corpus its share to the sample, in an order that nothing draws.

The oracle is greedy apportionment by Webster's rule: the corpus with the smallest (n + 1/2) / w
gives the next sample, n being how many it gave so far.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stackwise as sw
from stackwise.data.batches import batch_at, part_of
from stackwise.data.dataset import open_dataset
from stackwise.data.errors import DataError
from stackwise.data.mixing import mixed_batch, read_of, turns
from stackwise.errors import ExperimentError

MARKOV = {"kind": "markov", "size_bytes": 9_000}
GRAMMAR = {"kind": "pcfg", "size_bytes": 5_000}
WEIGHTS = st.lists(st.integers(0, 20), min_size=2, max_size=6).filter(any)


def greedy(weights, count):
    given_C, out = [0] * len(weights), []
    for _ in range(count):
        late = [(Fraction(2 * given_C[c] + 1, w), c) for c, w in enumerate(weights) if w]
        _, corpus = min(late)
        out.append((corpus, given_C[corpus]))
        given_C[corpus] += 1
    return out, given_C


@given(weights=WEIGHTS, first=st.integers(0, 300), count=st.integers(1, 60))
def test_turns_are_those_of_greedy_apportionment(weights, first, count):
    expected, read = greedy(weights, first + count)
    corpus_B, own_B = turns(weights, first, count)
    ours = set(zip(corpus_B.tolist(), own_B.tolist(), strict=True))
    # Equal times in exact numbers may be told apart by a rounding, which swaps two neighbours.
    for place, (corpus, own) in enumerate(expected[first:], first):
        if (corpus, own) not in ours:
            assert near_the_edge(weights, corpus, own, place, first, count)
    assert np.abs(read_of(weights, first + count) - read).max() <= 1
    assert read_of(weights, first + count).sum() == first + count


def near_the_edge(weights, corpus, own, place, first, count):
    times = [Fraction(2 * j + 1, w) for w in weights if w for j in range(place + 2)]
    return times.count(Fraction(2 * own + 1, weights[corpus])) > 1 and (
        place - first < len(weights) or first + count - place <= len(weights)
    )


@given(weights=WEIGHTS, cut=st.integers(0, 100), count=st.integers(1, 100))
def test_an_order_is_the_same_from_wherever_it_is_read(weights, cut, count):
    whole = np.stack(turns(weights, 0, cut + count), 1)
    assert (np.stack(turns(weights, cut, count), 1) == whole[cut:]).all()
    corpora = np.arange(len(weights))
    assert read_of(weights, cut).tolist() == [(whole[:cut, 0] == c).sum() for c in corpora]


@given(weights=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=6), count=st.integers(0, 10**12))
def test_shares_are_met_to_half_as_many_samples_as_there_are_corpora(weights, count):
    share_C = np.array(weights) / sum(weights) * count
    rounding = 1e-3  # of a share of 10^12 in float64
    assert np.abs(read_of(weights, count) - share_C).max() <= len(weights) / 2 + rounding


@pytest.fixture
def mixture(tmp_path):
    def make(*corpora, tokenizer="bytes", seq_len=16, **more):
        asked = {"kind": "mix", "corpora": corpora, **more}
        return open_dataset(asked, tokenizer, seq_len=seq_len, cache_dir=tmp_path / "cache")

    return make


@pytest.mark.parametrize("tokenizer", ["bytes", {"kind": "bpe", "entries": 300}])
def test_each_corpus_is_split_and_cut_by_itself(mixture, tokenizer, tmp_path):
    mixed = mixture(MARKOV, GRAMMAR, tokenizer=tokenizer)
    trained, held = "", ""
    for number, corpus in enumerate((MARKOV, GRAMMAR)):
        alone = open_dataset(corpus, seq_len=16, cache_dir=tmp_path / "cache")
        trained, held = trained + alone.train_text, held + alone.heldout_text
        rows = mixed.part_rows(number)
        text = "".join(mixed.tokenizer.decode(row) for row in mixed.samples(rows))
        assert text and text in alone.train_text
    assert (mixed.train_text, mixed.heldout_text) == (trained, held)
    assert mixed.tokenizer.decode(mixed.tokens.heldout) == held
    assert len({*mixed.part_rows(0)} & {*mixed.part_rows(1)}) == 0


def test_opened_again_it_is_the_same_and_another_order_of_corpora_is_another(mixture):
    first, again, other = (
        mixture(MARKOV, GRAMMAR),
        mixture(MARKOV, GRAMMAR),
        mixture(GRAMMAR, MARKOV),
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert [part["corpus"] for part in first.provenance()["corpora"]] == ["markov", "pcfg"]


def test_the_entropy_is_the_mean_over_held_out_bytes(mixture):
    found = mixture(MARKOV, GRAMMAR)
    sizes, known = zip(
        *((part.heldout_bytes, part.text.entropy_bits_per_byte) for part in found.parts),
        strict=True,
    )
    assert found.entropy_bits_per_byte == pytest.approx(np.average(known, weights=sizes))


def batches(dataset, numbers, weights=(3, 1), firsts=(0, 0), batch=8):
    def one(number):
        at = number * batch
        return mixed_batch(dataset, weights, firsts, first=at, place=at, batch=batch, seed=4)

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(one, numbers))


def test_batches_are_the_same_whatever_the_workers_and_their_order(mixture):
    dataset = mixture(MARKOV, GRAMMAR)
    forwards = batches(dataset, range(40))
    for number, batch in zip(
        reversed(range(40)), batches(dataset, reversed(range(40))), strict=True
    ):
        assert batch.ids_BT.equal(forwards[number].ids_BT)
        assert (batch.sample_B == forwards[number].sample_B).all()
        assert (batch.draw_B == forwards[number].draw_B).all()


def test_each_corpus_goes_through_all_its_samples_in_each_of_its_epochs(mixture):
    dataset = mixture(MARKOV, GRAMMAR)
    rows = dataset.part_rows(1)
    found = batches(dataset, range(3 * len(rows) * 4 // 8))
    sample_N = np.concatenate([batch.sample_B for batch in found])
    draw_N = np.concatenate([batch.draw_B for batch in found])
    assert (np.isin(sample_N, rows).reshape(-1, 8).sum(1) == 2).all()  # a quarter of each batch
    for epoch in (0, 1):
        seen = sample_N[np.isin(sample_N, rows) & (draw_N == epoch)]
        assert sorted(seen) == list(rows)
    going_on = batches(dataset, [0], firsts=(0, len(rows)))[0]
    assert (going_on.draw_B[np.isin(going_on.sample_B, rows)] == 1).all()


def test_parts_of_samples_are_the_texts_of_whole_ones_in_the_same_order(mixture):
    dataset = mixture(MARKOV, GRAMMAR)
    whole = batch_at(dataset, 16, 8, seed=4)
    parts = [part_of(whole, part, 3, 5) for part in range(3)]  # 16 tokens: one is left over
    assert np.concatenate([p.ids_BT for p in parts], 1).tolist() == whole.ids_BT[:, :15].tolist()
    names = np.concatenate([part.sample_B for part in parts])
    assert len(set(names)) == 24 and (names // 3 == np.tile(whole.sample_B, 3)).all()
    groups = [set((part.place_B // 8).tolist()) for part in parts]
    assert groups == [{6}, {7}, {8}]  # each step has evenly spaced times of its own
    assert part_of(whole, 0, 1, 16) is whole


def test_a_corpus_without_a_whole_sample_is_named(mixture):
    with pytest.raises(
        DataError, match=r"training part of pcfg \(38 bytes\) holds no whole sample"
    ):
        mixture(MARKOV, {"kind": "pcfg", "size_bytes": 40}, seq_len=64)


MIX = {"kind": "mix", "corpora": ["markov", "pcfg"]}
WRONG = {
    "an unknown corpus": ({"corpus": "mix:kjv,bible"}, "unknown corpus 'bible'"),
    "a mixture in a mixture": ({"corpus": {**MIX, "corpora": ["kjv", MIX]}}, "holds no other"),
    "one corpus": ({"corpus": "mix:kjv"}, "corpus.corpora"),
    "a weight of 0": ({"corpus": {**MIX, "weights": [1, 0]}}, r"corpus.weights\[1\]"),
    "too many weights": ({"corpus": {**MIX, "weights": [1, 1, 1]}}, "3 for 2 corpora"),
    "no mixture to weigh": (
        {"weights_by_stage": [[1, 1]]},
        "data.weights_by_stage: weighs the corpora of a mixture, and data.corpus is kjv; "
        "leave it empty, or use data.corpus=mix",
    ),
    "weights of other corpora": (
        {"corpus": MIX, "weights_by_stage": [[1]]},
        r"data.weights_by_stage\[0\]: 1 weights for the 2 corpora of data.corpus; give one for",
    ),
    "weights that read nothing": (
        {"corpus": MIX, "weights_by_stage": [[0, 0]]},
        r"data.weights_by_stage\[0\]: \[0.0, 0.0\] reads nothing; give one of them over 0",
    ),
    "a negative weight": ({"corpus": MIX, "weights_by_stage": [[1, -1]]}, "weights_by_stage"),
    "epochs that repeat": (
        {"corpus": MIX, "distinct_epochs": 2},
        "data.distinct_epochs: 2 with data.corpus=mix, whose corpora have epochs of their own",
    ),
    "longer samples in a stage": (
        {"seq_len": 64, "seq_len_by_stage": [32, 128]},
        r"data.seq_len_by_stage\[1\]: 128 > data.seq_len=64, of which shorter samples are cut",
    ),
    "no sample at all": ({"seq_len_by_stage": [1]}, r"seq_len_by_stage\[0\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_read_is_refused(case):
    data, said = WRONG[case]
    with pytest.raises(ExperimentError, match=said):
        sw.Experiment(data=data)


LISTS = {
    "lengths": {"seq_len_by_stage": [32, 64, 128]},
    "weights": {"corpus": MIX, "weights_by_stage": [[1, 1]] * 3},
}


@pytest.mark.parametrize("case", LISTS)
def test_a_list_that_does_not_fit_the_stages_is_refused(case):
    exp = sw.Experiment(curriculum="left_to_right", data=LISTS[case])
    said = r"data.\w+: 3 entries for the 4 stages of curriculum=left_to_right; give one for each"
    with pytest.raises(ExperimentError, match=said):
        sw.stages(exp)


def test_a_stage_of_a_curriculum_of_ones_own_is_checked_too():
    def with_stage(**reads):
        exp = sw.Experiment(data={"seq_len": 64})
        return sw.stages(exp, lambda exp: [sw.Stage(path=sw.stack_ids(exp.rack), **reads)])

    assert with_stage(seq_len=16)[0].seq_len == 16
    with pytest.raises(ExperimentError, match=r"stages\[0\].seq_len: 65 > data.seq_len=64"):
        with_stage(seq_len=65)
    with pytest.raises(ExperimentError, match=r"stages\[0\].weights: .* data.corpus is kjv; leave"):
        with_stage(weights=(1, 1))
    with pytest.raises(ExperimentError, match=r"weights: .* must be 0 or more, and one of them"):
        sw.Stage(path=("s0",), weights=(0, 0))
