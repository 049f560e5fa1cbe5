"""A knob that differs from the preset is marked in words, and put back by one press."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise_widgets.form import Form


@pytest.fixture
def form() -> Form:
    return Form(sw.Experiment.preset("toy"), sw.Placement.preset("toy"))


def test_a_mark_says_what_it_was(form: Form) -> None:
    row = form._board.rows["seed"]
    assert not row.marked and form.changed == []
    assert "As preset toy." in form.message("")
    form.field("seed").value = "7"
    assert form.changed == ["seed"]
    mark = row.children[1]
    assert mark.description == "changed: reset"
    assert mark.tooltip == "seed was 0; press to put it back"
    assert "sw-changed" in mark._dom_classes
    assert "1 knob changed from preset toy." in form.message("")
    mark.click()
    assert form.changed == [] and not row.marked
    assert form.field("seed").value == "0" and form.experiment == sw.Experiment.preset("toy")


def test_the_same_value_in_other_words_is_no_change(form: Form) -> None:
    for path, text in {"optim.lr": "5e-3", "rack.stacks": " 4 ", "budget.flops": "3.5E+12"}.items():
        form.field(path).value = text
        assert form.field(path).value == text  # and stays as it was typed
    assert form.changed == []
    assert form.experiment == sw.Experiment.preset("toy")


def test_a_kind_is_put_back_with_what_it_had(form: Form) -> None:
    form.use("small")
    form.field("data.tokenizer.entries").value = "300"
    form.field("data.tokenizer").value = "bytes"
    assert form.changed == ["data.tokenizer"]
    form.reset("data.tokenizer")
    assert form.field("data.tokenizer.entries").value == "4096"
    assert form.changed == []
    assert form.experiment == sw.Experiment.preset("small")


def test_parameters_of_another_kind_are_compared_with_their_defaults(form: Form) -> None:
    form.field("attention").value = "kernel"
    assert form.changed == ["attention"]
    form.field("attention.features").value = "64"
    assert form.changed == ["attention", "attention.features"]
    form.reset("attention.features")
    assert form.field("attention.features").value == "128"
    assert form.changed == ["attention"]


def test_all_at_once(form: Form) -> None:
    form.use("llama-3-70b")
    assert form._top.reset.disabled
    for path, text in {
        "rack.rope_scaling": True, "curriculum": "grow", "optim.clip": "", "optim.lr": "x",
        "budget.tokens": "5", "placement.micro_batch": "", "masking.bands": "linear",
    }.items():  # fmt: skip
        form.field(path).value = text
    assert not form._top.reset.disabled
    form._top.reset.click()
    assert form.changed == [] and form.problems == ()
    assert form.experiment == sw.Experiment.preset("llama-3-70b")
    assert form.placement == sw.Placement.preset("llama-3-70b")


def test_what_has_no_preset_is_compared_with_itself() -> None:
    exp = sw.Experiment(title="mine", seed=4)
    form = Form(exp, sw.Placement(threads=2))
    assert (form.preset, form.changed) == ("", [])
    assert form._top.preset.value == ""
    assert "As the experiment given." in form.message("")
    form.field("seed").value = "5"
    form.field("placement.threads").value = "3"
    assert form.changed == ["seed", "placement.threads"]
    form.reset()
    assert (form.experiment, form.placement) == (exp, sw.Placement(threads=2))
    form._top.preset.value = "toy"
    assert form.preset == "toy"
    assert "" not in [value for _, value in form._top.preset.options]


def test_an_experiment_that_began_as_a_preset_is_compared_with_it() -> None:
    form = Form(sw.Experiment.preset("toy").replace(seed=3, attention="mla"))
    assert form.preset == "toy" and form.changed == ["attention", "seed"]
    assert form._board.rows["seed"].marked
    form.field("title").value = "another"
    assert form.preset == "toy" and "title" in form.changed


def test_a_field_that_is_not_there_cannot_be_put_back(form: Form) -> None:
    with pytest.raises(KeyError):
        form.reset("attention.kv_rank")
    with pytest.raises(KeyError):
        form.write("attention.kv_rank", "3")
    with pytest.raises(TypeError, match=r"rack\.tied: 'yes' is not what its field holds"):
        form.write("rack.tied", "yes")
