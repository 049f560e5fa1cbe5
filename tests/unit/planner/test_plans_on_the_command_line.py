"""`stackwise plan` and `stackwise advise`: what is printed, and the exit code."""

from __future__ import annotations

import json

import pytest

import stackwise as sw
from stackwise.cli import main
from stackwise.memory.disk import cache_bytes

CARD = "memory_gib: 2\nbf16_tflops: 100\nmemory_tbs: 1\n"


def said(capsys, *arguments: str) -> tuple[int, str]:
    code = main([*arguments])
    streams = capsys.readouterr()
    return code, streams.out + streams.err


def test_what_fits_ends_well(capsys) -> None:
    code, text = said(capsys, "plan", "toy", "--hardware", "h200")
    assert code == 0 and text.rstrip().endswith("fits")


def test_changes_may_follow_an_option(capsys) -> None:
    assert main(["plan", "toy", "--hardware", "h200", "seed=3", "--json", "optim.batch=8"]) == 0
    found = json.loads(capsys.readouterr().out)["experiment"]
    assert (found["seed"], found["optim"]["batch"]) == (3, 8)


@pytest.mark.parametrize(
    "words", [["plan", "toy", "--hardware", "h200", "--seed=3"], ["runs", "a=b"]]
)
def test_what_no_command_takes_is_said(words, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert f"unrecognized arguments: {words[-1]}" in capsys.readouterr().err


def test_what_does_not_fit_ends_with_3_and_the_way_out(capsys) -> None:
    code, text = said(capsys, "plan", "llama-2-70b", "--hardware", "rtx-4090-24")
    assert code == 3
    assert "does not fit" in text and "change: placement.trunk=streamed" in text
    code, text = said(
        capsys, "plan", "llama-2-70b", "placement.trunk=streamed", "--hardware", "rtx-4090-24"
    )
    assert code == 0


def test_an_unknown_card_is_refused_with_those_that_there_are(capsys) -> None:
    code, text = said(capsys, "plan", "toy", "--hardware", "h2000")
    assert code == 2
    assert "--hardware: unknown 'h2000'; did you mean 'h200'" in text and "rtx-4090-24" in text


def test_a_card_of_ones_own_is_a_file(capsys, tmp_path) -> None:
    card = tmp_path / "mine.yaml"
    card.write_text(CARD)
    code, text = said(capsys, "plan", "toy", "--hardware", str(card))
    assert code == 0 and "on mine: 2.0 GiB" in text
    card.write_text(CARD + "memory_gb: 3\n")
    code, text = said(capsys, "plan", "toy", "--hardware", str(card))
    assert code == 2 and "memory_gb" in text


def test_every_stage_is_shown_when_asked(capsys) -> None:
    _, few = said(capsys, "plan", "llama-2-70b", "--hardware", "h200")
    _, every = said(capsys, "plan", "llama-2-70b", "--hardware", "h200", "--all")
    assert "69 more stages between them: --all" in few
    assert all(f"s{n} head" in every for n in range(1, 80))


def test_json_holds_all_of_it(capsys) -> None:
    code, text = said(capsys, "plan", "llama-2-70b", "--hardware", "h200", "--json")
    found = json.loads(text)
    assert code == 0 and found["fits"] and len(found["stages"]) == 80
    assert max(row["peak_bytes"] for row in found["stages"]) == found["peak_bytes"]
    assert len(found["stages"][79]["block_bytes"]) == 80


def test_fit_says_what_to_type(capsys) -> None:
    lean = ["curriculum=left_to_right", "optim.name=adamw8bit", "optim.ema=null"]
    code, text = said(capsys, "plan", "8b", *lean, "--fit", "--hardware", "h200")
    assert code == 0
    assert "rack.stacks=" in text and "placement.micro_batch=" in text
    code, text = said(capsys, "plan", "405b", "--fit", "--hardware", "rtx-4090-24")
    assert code == 3 and "no size of stack with any micro-batch" in text
    code, text = said(capsys, "plan", "8b", *lean, "--fit", "--json", "--hardware", "h200")
    first = json.loads(text)[0]
    assert code == 0 and first["changes"]["rack.stacks"] and first["peak_bytes"] > 1 << 30
    code, text = said(capsys, "plan", "8b", "--fit", "--all", "--hardware", "h200")
    assert code == 2 and "--all: shows all stages of a plan" in text


@pytest.mark.parametrize(("given", "what"), [("0", "--host-gb"), ("-1", "--host-gb")])
def test_a_host_of_nothing_is_refused(capsys, given, what) -> None:
    code, text = said(capsys, "plan", "toy", "--hardware", "h200", "--host-gb", given)
    assert code == 2 and what in text


def test_a_small_host_is_too_little(capsys) -> None:
    code, text = said(capsys, "plan", "llama-2-70b", "--hardware", "h200", "--host-gb", "2")
    assert code == 3 and "host memory: takes" in text


def test_a_short_text_makes_a_small_cache(capsys) -> None:
    """Rows repeat after 20 batches of 16 samples of 64 tokens, and are kept once each."""
    left = "curriculum=left_to_right"
    cached = ["plan", "toy", left, "data.distinct_epochs=1", "placement.trunk=cached", "--json"]
    on = ["--hardware", "h200"]
    _, endless = said(capsys, *cached, *on)
    code, text = said(capsys, *cached, *on, "--text-tokens", "21000")
    found = json.loads(text)
    exp = sw.Experiment.preset("toy").replace(curriculum="left_to_right")
    rows = 21_000 // (exp.data.seq_len * exp.optim.batch) * exp.optim.batch
    assert code == 0 and rows < json.loads(endless)["stages"][1]["tokens"] // exp.data.seq_len
    exp, place = exp.replace(data={"distinct_epochs": 1}), sw.Placement(trunk="cached")
    assert found["cache_bytes"] == cache_bytes(exp, place, sw.stages(exp), rows)
    assert found["cache_bytes"] < json.loads(endless)["cache_bytes"]
    assert found["epoch_samples"] == rows and json.loads(endless)["epoch_samples"] is None


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (["placement.trunk=cached"], "only a cache of rows that repeat"),
        (["data.distinct_epochs=1"], "only a cache of rows that repeat"),
        (
            ["placement.trunk=cached", "data.distinct_epochs=1", "curriculum=end_to_end"],
            "only a cache of rows that repeat",
        ),
        (
            ["placement.trunk=cached", "data.distinct_epochs=1", "curriculum=left_to_right"],
            "less than one batch",
        ),
    ],
)
def test_a_length_that_changes_nothing_is_refused(capsys, changes, what) -> None:
    code, text = said(capsys, "plan", "toy", *changes, "--hardware", "h200", "--text-tokens", "10")
    assert code == 2 and "--text-tokens" in text and what in text


def test_advise_says_what_days_buy(capsys) -> None:
    code, text = said(capsys, "advise", "--hardware", "h200", "--days", "0")
    assert code == 2 and "--days: 0 must be over 0" in text
