"""Runs by id, folder or none; texts of any kind; held-out text; the newest request is shown."""

import threading

import pytest

import stackwise as sw
from stackwise.runs import RunError
from stackwise_widgets.inspecting import Inspect
from stackwise_widgets.latest import Latest
from stackwise_widgets.panel import Guard


def test_without_a_name_it_is_the_newest_with_weights(runs):
    panel = Inspect(runs_dir=runs)
    assert panel.run.id == sw.runs_in(runs)[0].id
    assert set(panel.choice.options) == {path.name for path in runs.iterdir()}
    panel.wait(60)
    assert panel.errors == []


def test_no_run_at_all_says_what_to_do(tmp_path):
    panel = Inspect(runs_dir=tmp_path / "none")
    assert panel.run is None
    assert "Launch one" in panel._rack.value
    for tab in ("attention", "depth", "drift", "denoise", "rack"):
        panel.tab = tab
        panel.wait(60)
        assert len(panel.data()) == 0
        panel.figure()
        assert "Launch one" in panel.code()
    assert panel.errors == []


def test_a_run_is_named_by_the_beginning_of_its_id(runs):
    assert "-grow-" in Inspect("shipped-grow", runs_dir=runs).run.id
    with pytest.raises(RunError, match="no such run"):
        Inspect("nothing", runs_dir=runs)


def test_another_run_is_chosen_in_the_list_or_in_code(runs):
    panel = Inspect("shipped-grow", runs_dir=runs)
    panel.tab = "attention"
    panel.wait(60)
    before = panel.data()
    panel.choice.value = next(one for one in panel.choice.options if "end_to_end" in one)
    panel.wait(60)
    assert "end_to_end" in panel.run.id
    assert not panel.data().equals(before)
    panel.run = "shipped-grow"
    panel.wait(60)
    assert panel.choice.value == panel.run.id
    assert panel.data().equals(before)
    assert panel.errors == []


@pytest.mark.parametrize(
    "text", ["é漢🂡", "<script>alert(1)</script>", "\x00\ud800\x7f", "x" * 10_000, "\n\t "]
)
def test_any_text_can_be_read(kept, text):
    panel = Inspect(kept)
    panel.text.value = text
    for tab in ("attention", "denoise", "depth"):
        panel.tab = tab
        panel.wait(60)
    panel.denoise.start.value = "the text above"
    panel.denoise.probe.run()
    panel.wait(60)
    assert panel.errors == []
    shown = panel.attention._picture.value + panel.denoise._sample.value
    assert "<script" not in shown
    if len(text) > 24:
        assert "Only the first 24 tokens" in shown


def test_no_text_is_said_where_the_costs_stand(kept):
    panel = Inspect(kept)
    panel.tab = "attention"
    panel.wait(60)
    panel.text.value = ""
    panel.wait(60)
    assert "text: is empty" in panel.attention.probe.cost.value
    panel.text.value = "ab"
    panel.wait(60)
    assert panel.attention.found.labels == ["a", "b"]
    assert panel.errors == []


def test_held_out_text_is_a_window_of_the_runs_data(kept):
    panel = Inspect(kept)
    exp = kept.experiment
    dataset = sw.open_dataset(exp.data.corpus, exp.data.tokenizer, seq_len=exp.data.seq_len,
                              heldout_frac=exp.data.heldout_frac)  # fmt: skip
    windows_NT = dataset.heldout_windows()
    for number in (0, 1):
        panel._fetch.click()
        panel.wait(60)
        assert panel.text.value == dataset.tokenizer.decode(windows_NT[number])
    assert panel.errors == []


def test_a_damaged_rack_is_said_and_the_panel_goes_on(runs):
    run = next(runs.glob("*grow*"))
    part = next((run / "rack").glob("s1-*"))
    part.write_bytes(part.read_bytes()[:-8])
    panel = Inspect(run)
    panel.tab = "attention"
    panel.wait(60)
    assert part.name in str(panel.errors[0])
    assert "failed" in panel.attention.probe.said.value
    panel.choice.value = next(one for one in panel.choice.options if "end_to_end" in one)
    panel.wait(60)
    assert panel.attention.found is not None
    assert panel.guard.card.value == ""


def test_only_the_newest_request_is_shown():
    guard, shown, held, begun = Guard(), [], threading.Event(), threading.Event()
    latest = Latest(guard)

    def slow():
        begun.set()
        held.wait(10)
        return "first"

    latest.ask("working", slow, shown.append)
    begun.wait(10)
    for number in range(5):
        latest.ask("working", lambda number=number: number, shown.append)
    held.set()
    assert latest.wait(10)
    assert shown == [4]
    assert guard.errors == []


def test_what_is_raised_beside_is_seen():
    guard, failed = Guard(), []
    latest = Latest(guard)
    latest.ask("working", lambda: 1 / 0, lambda _: None, lambda: failed.append(1))
    assert latest.wait(10)
    assert [str(error) for error in guard.errors] == ["working: division by zero"]
    assert failed == [1]
    assert "division by zero" in guard.card.value
