"""What a run with bfloat16 weights trained samples, scores and answers, as training computes it."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.cli import main
from stackwise.data.heldout import some_windows
from stackwise.training.score import evaluate_run
from stackwise.training.start import dataset_of

LEAN = {"compute": "bfloat16", "weights": "bfloat16"}
KINDS = {
    "whole": {"curriculum": "end_to_end", "precision": LEAN},
    "as trained": {"curriculum": "left_to_right", "precision": LEAN},
    "nf4": {"curriculum": "left_to_right", "precision": {**LEAN, "frozen": "nf4"}},
    "a float32 rack with nf4": {"curriculum": "left_to_right", "precision": {"frozen": "nf4"}},
    "causal": {"curriculum": "left_to_right", "precision": LEAN, "objective": "clm"},
}
IDS_BT = torch.arange(12).view(2, 6)


@pytest.fixture(params=KINDS)
def run(request, tiny, place) -> sw.Run:
    return sw.train(tiny.replace(**KINDS[request.param]), place)


def test_its_rack_samples_and_answers_from_memory_and_from_disk(run) -> None:
    causal = run.experiment.objective.choice == "clm"
    whole, lent = run.rack(), run.rack(lent="disk")
    compute = getattr(torch, run.experiment.precision.compute)
    with torch.autocast("cpu", compute, enabled=compute != torch.float32):
        wanted_BTV = whole(IDS_BT, causal=causal)
    methods = ["autoregressive"] if causal else ["ancestral", "confidence"]
    texts = {
        method: sw.sample(whole, "ab", tokenizer=run.tokenizer(), length=4, method=method)
        for method in methods
    }
    for rack in (whole, lent):
        assert torch.equal(rack(IDS_BT, causal=causal), wanted_BTV)
        for method, text in texts.items():
            again = sw.sample(rack, "ab", tokenizer=run.tokenizer(), length=4, method=method)
            assert again == text and again.startswith("ab")


def test_its_scores_need_no_autocast_of_the_callers(run) -> None:
    exp, rack = run.experiment, run.rack()
    causal = exp.objective.choice == "clm"
    windows_NT, size = some_windows(dataset_of(exp, run.path), exp.eval.final)
    found = sw.evaluate(rack, windows_NT, size, objective=exp.objective, seed=exp.seed)
    assert found.bits_per_byte == evaluate_run(run).bits_per_byte == run.result()["bits_per_byte"]
    rule = sw.Corruption(
        objective=exp.objective, vocab=rack.vocab, batch_size=4, seed=exp.seed, schedule="linear"
    )
    noisy = sw.fixed_draws(rule, windows_NT[:4])
    exits = sw.exit_losses(rack, noisy, causal=causal)
    entries = sw.entry_losses(rack, noisy, causal=causal)
    assert exits[-1] == entries[0] and exits[0] == entries[-1]


def test_the_command_line_samples_and_scores_it(run, capsys) -> None:
    assert main(["sample", str(run.path), "ab", "--length", "4"]) == 0
    assert capsys.readouterr().out.startswith("ab")
    assert main(["eval", str(run.path)]) == 0
    assert f"{run.result()['bits_per_byte']:.4f}" in capsys.readouterr().out


def test_a_rack_of_ones_own_answers_after_training(tiny) -> None:
    rack = sw.Rack(tiny.rack, tiny.attention, 20, dtype=torch.bfloat16)
    before_BTV = rack(IDS_BT)
    sw.train_stack_wise(rack, [IDS_BT] * 8, options={"precision": LEAN}, lr=1e-2)
    assert rack(IDS_BT).isfinite().all() and not torch.equal(rack(IDS_BT), before_BTV)
    assert sw.sample_ids(rack, [1, 2], length=3).shape == (5,)


def test_a_compiled_run_trains_and_answers(tiny, place) -> None:
    exp = tiny.replace(
        rack={"stacks": 1},
        curriculum="end_to_end",
        precision=LEAN,
        budget={"tokens": 2 * 4 * 16},
        eval={"points": 1, "windows": 4, "final": 4},
    )
    run = sw.train(exp, place.replace(compile=True))
    assert run.rack()(IDS_BT).isfinite().all()
