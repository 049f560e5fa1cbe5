"""Stages that read shorter samples or another mixture: resumable, and counted as they are."""

from __future__ import annotations

import math

import numpy as np
import pytest

import stackwise as sw
from stackwise.memory.bytes import plan_rows
from stackwise.training.opening import open_work
from stackwise.training.run import execute
from stackwise.training.start import create_run

NUMBERS = ["step", "stage", "stage_step", "tokens", "flops", "loss", "lr", "grad_norm"]
MIX = {
    "kind": "mix",
    "corpora": [{"kind": "markov", "size_bytes": 9_000}, {"kind": "pcfg", "size_bytes": 5_000}],
    "weights": [3, 1],
}
DATA = {
    "lengths": {"seq_len_by_stage": [4, 8, 12, 16]},
    "mixture": {"corpus": MIX, "weights_by_stage": [[1, 0], [3, 1], [1, 1], [0, 1]]},
    "both": {
        "corpus": MIX,
        "seq_len_by_stage": [4, 8, 16, 16],
        "weights_by_stage": [[1, 0], [1, 2], [1, 1], [0, 1]],
    },
    "from the first sample": {"corpus": MIX, "restart": True, "seq_len_by_stage": [8, 16, 16, 16]},
}


@pytest.fixture(params=["lengths", "both", "from the first sample"])
def changing(request, tiny) -> sw.Experiment:
    curriculum = {"name": "left_to_right", "split": "tokens"}
    return tiny.replace(
        curriculum=curriculum,
        data=DATA[request.param],
        masking={"sampling": "bell"},
        eval={"points": 2, "windows": 4, "final": 4},
    )


def stop_after(steps):
    seen = []

    def on_step(work, numbers):
        seen.append(numbers.loss)
        work.stop_requested = len(seen) == steps

    return on_step


def test_a_run_that_is_stopped_and_one_that_caches_have_the_same_numbers(changing, place) -> None:
    whole = sw.train(changing, place)
    pieces = create_run(changing, place, rerun=True)
    while pieces.state != "finished":
        execute(pieces, on_step=stop_after(3))
    cached = sw.train(changing, place.replace(trunk="cached"), rerun=True)
    for run in (pieces, cached):
        assert run.metrics()[NUMBERS].equals(whole.metrics()[NUMBERS])
        assert run.weights_hash() == whole.weights_hash()
        assert run.result()["bits_per_byte"] == whole.result()["bits_per_byte"]


def test_a_fork_goes_on_where_its_data_were(changing, place) -> None:
    """The last stages of a fork that changes nothing of them read what the run read."""
    whole = sw.train(changing, place)
    fork = whole.fork(after_stage=1, eval={"windows": 5})
    execute(fork)
    mine, theirs = (run.metrics().query("stage > 1").loss.tolist() for run in (fork, whole))
    assert mine == theirs


def test_plan_and_ledger_are_of_each_stages_own_length(changing, place) -> None:
    run = sw.train(changing, place)
    made, spent = sw.stages(changing), run.metrics()
    for number, stage in enumerate(made):
        own = changing.replace(
            data={"seq_len": stage.seq_len or 16, "seq_len_by_stage": None, "restart": False}
        )
        plain = stage.model_copy(update={"seq_len": None})
        assert sw.stage_flops_per_token(changing, stage) == sw.stage_flops_per_token(own, plain)
        (row,) = plan_rows(changing, place, [stage])
        (short,) = plan_rows(own, place, [plain])
        assert row["bytes_by_part"] == short["bytes_by_part"]
        assert row["peak"]["activations"] == short["peak"]["activations"]
        steps = spent[spent.stage == number]
        each = changing.optim.batch * (stage.seq_len or 16)
        assert len(steps) * each == stage.tokens
        assert steps.tokens.diff().dropna().eq(each).all()
    tokens = sum(stage.tokens or 0 for stage in made)
    assert tokens == spent.tokens.iloc[-1] == run.result()["trained_tokens"]
    assert tokens == pytest.approx(changing.budget.tokens, abs=changing.optim.batch * 16)


def test_no_text_is_read_twice_in_an_epoch_and_none_that_is_held_out(changing, place) -> None:
    """Every stage goes on where the one before it ended, whatever the lengths and the weights."""
    if changing.data.restart:
        changing = changing.replace(data={"restart": False})
    seen: list[bytes] = []
    run = create_run(changing, place)
    with open_work(run) as work:
        train = np.asarray(work.dataset.tokens.train)
        for number in range(len(work.stages)):
            length, parts = work.length_of(number), work.parts_in(number)
            for step in range(work.steps_of(number)):
                batch = work.clean_batch(number, step)
                assert batch.ids_BT.shape == (4, length)
                for ids, name, draw in zip(batch.ids_BT, batch.sample_B, batch.draw_B, strict=True):
                    start = name // parts * 16 + name % parts * length
                    assert ids.tolist() == train[start : start + length].tolist()
                    assert draw == 0
                    seen += [f"{place}".encode() for place in range(start, start + length)]
    assert len(seen) == len(set(seen)) == sum(s.tokens or 0 for s in sw.stages(changing))


def test_every_look_is_at_whole_samples_of_the_same_held_out_text(changing, place) -> None:
    run = sw.train(changing, place)
    read = [
        look["loss"] / math.log(2) / look["bits_per_byte"]
        for look in run.evals().to_dict("records")
    ]
    assert len(read) >= 4
    assert np.allclose(read, 1)  # a byte each, in every window of 16
    assert run.result()["tokens"] == 4 * 16


def test_what_was_read_of_each_corpus_is_told(tiny, place) -> None:
    exp = tiny.replace(
        curriculum={"name": "left_to_right", "split": "tokens"}, data=DATA["mixture"]
    )
    found = sw.train(exp, place).result()
    markov, grammar = found["corpora"]
    # Four stages of 4 steps of 4 samples: all, three quarters, half and none of them.
    assert (markov["samples"], grammar["samples"]) == (16 + 12 + 8, 4 + 8 + 16)
    assert found["epochs"] == grammar["epochs"] == 28 / (4750 // 16)


def test_end_to_end_in_stages_that_read_alike_is_one_stage(tiny, place) -> None:
    """The control of a length curriculum: schedule and moments go through the borders."""
    exp = tiny.replace(curriculum="end_to_end", optim={"ema": None})
    parts = exp.replace(data={"seq_len_by_stage": [16, 16, 16, 16]})
    one, several = sw.train(exp, place), sw.train(parts, place)
    assert len(several.stages()) == 4
    assert several.metrics().loss.tolist() == one.metrics().loss.tolist()
    assert several.weights_hash() == one.weights_hash()
