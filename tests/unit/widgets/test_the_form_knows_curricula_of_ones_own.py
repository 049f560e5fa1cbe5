"""What a notebook cell puts into a registry is in the list, with its own parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from pydantic import Field

import stackwise as sw
from stackwise_widgets.form import Form
from stackwise_widgets.form.cells import after_each_cell


def outside_in(exp: sw.Experiment) -> Iterator[sw.Stage]:
    """Both ends first, then towards the middle."""
    ids = sw.stack_ids(exp.rack)
    yield sw.Stage(path=(ids[0], ids[-1]))
    for n in range(2, len(ids)):
        yield sw.Stage(path=(*ids[:n], ids[-1]), active=(ids[n - 1],), embedding=False)


class Spiral(sw.Params):
    """Round and round."""

    name: Literal["spiral"] = "spiral"
    turns: int = Field(2, ge=1, le=9, description="how often it goes round")


@pytest.fixture
def form() -> Form:
    return Form(sw.Experiment.preset("toy"), sw.Placement.preset("toy"))


def names(form: Form, path: str = "curriculum") -> list[str]:
    return [value for _, value in form.field(path).options]


def test_a_function_is_a_choice(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "outside_in" not in names(form)
    monkeypatch.setitem(sw.CURRICULA, "outside_in", outside_in)
    form.refresh()
    assert names(form)[-1] == "outside_in"
    assert form.field("curriculum").value == "end_to_end"  # new entries choose nothing
    form.field("curriculum").value = "outside_in"
    assert form.experiment == sw.Experiment.preset("toy").replace(curriculum="outside_in")
    assert len(sw.stages(form.experiment)) == 3
    assert "Both ends first" in form.field("curriculum").tooltip


def test_any_change_looks_again(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sw.CURRICULA, "outside_in", outside_in)
    form.field("seed").value = "1"
    assert "outside_in" in names(form)


def test_showing_the_form_looks_again(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sw.CURRICULA, "outside_in", outside_in)
    assert "application/vnd.jupyter.widget-view+json" in form._repr_mimebundle_()
    assert "outside_in" in names(form)


def test_its_parameters_are_fields(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sw.CURRICULA, "spiral", sw.Choice(outside_in, Spiral))
    form.write("curriculum", "spiral")
    assert form.field("curriculum.turns").tooltip == (
        "curriculum.turns\nhow often it goes round\n1 or more, 9 or less"
    )
    form.field("curriculum.turns").value = "12"
    assert [str(p) for p in form.problems] == ["curriculum.turns: 12 must be 9 or less"]
    assert "Problem: 12 must be 9 or less" in form.message("curriculum.turns")
    form.field("curriculum.turns").value = "3"
    assert form.experiment.curriculum == Spiral(turns=3)
    other = Form(sw.Experiment.from_yaml(form.experiment.to_yaml()))
    assert other.text["curriculum.turns"] == "3"


def test_a_cell_that_is_run_again_brings_its_new_parameters(
    form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sw.CURRICULA, "spiral", sw.Choice(outside_in, Spiral))
    form.write("curriculum", "spiral")
    form.field("curriculum.turns").value = "3"

    class Wider(sw.Params):
        name: Literal["spiral"] = "spiral"
        turns: int = Field(2, ge=1, le=9)
        width: float | None = None

    monkeypatch.setitem(sw.CURRICULA, "spiral", sw.Choice(outside_in, Wider))
    form.refresh()
    assert form.experiment.curriculum == Wider(turns=3)
    form.field("curriculum.width").value = "0.5"
    assert form.experiment.curriculum == Wider(turns=3, width=0.5)
    monkeypatch.setitem(sw.CURRICULA, "spiral", outside_in)
    form.refresh()
    assert form.problems == ()
    assert "curriculum.turns" not in form.text
    with pytest.raises(KeyError):
        form.field("curriculum.turns")


def test_what_is_chosen_stays_when_it_is_taken_out(
    form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sw.CURRICULA, "outside_in", outside_in)
        form.write("curriculum", "outside_in")
        kept = form.experiment
    form.refresh()
    assert form.field("curriculum").value == "outside_in"
    assert form.experiment == kept
    assert "unknown name 'outside_in'" in form.problems[0].text


def test_the_runs_own_parameters_come_with_the_cell(
    form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {"curriculum": {"name": "spiral", "turns": 5}}
    with monkeypatch.context() as patch:
        patch.setitem(sw.CURRICULA, "spiral", sw.Choice(outside_in, Spiral))
        text = sw.Experiment.preset("toy").replace(**values).to_yaml()
    form.experiment = sw.Experiment.from_yaml(text, opening_run=True)
    assert form.problems != ()
    monkeypatch.setitem(sw.CURRICULA, "spiral", sw.Choice(outside_in, Spiral))
    form.refresh()
    assert form.problems == ()
    assert form.experiment.curriculum == Spiral(turns=5)


def test_what_was_set_for_a_kind_is_there_when_it_is_chosen_again(form: Form) -> None:
    form.field("attention").value = "mla"
    form.field("attention.kv_rank").value = "8"
    form.field("attention").value = "mha"
    assert "attention.kv_rank" not in form.text
    form.field("attention").value = "mla"
    assert form.field("attention.kv_rank").value == "8"
    form.use("toy")
    form.field("attention").value = "mla"
    assert form.field("attention.kv_rank").value == ""


def test_a_kind_begins_with_its_own_defaults(form: Form) -> None:
    form.field("curriculum").value = "left_to_right"
    assert form.field("curriculum.split").value == "flops"
    form.field("curriculum.split").value = "1, 2, 3, 4"
    form.field("curriculum").value = "grow"
    assert form.field("curriculum.split").value == "tokens"
    assert form.experiment == sw.Experiment.preset("toy").replace(curriculum="grow")


def test_schedules_and_the_others_grow_too(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, registry in {
        "masking.schedule": sw.SCHEDULES, "attention": sw.ATTENTION, "objective": sw.OBJECTIVES,
        "data.corpus": sw.CORPORA, "data.tokenizer": sw.TOKENIZERS,
    }.items():  # fmt: skip
        entry = next(iter(registry.values()))
        monkeypatch.setitem(registry, "of_my_own", entry)  # type: ignore[index]
        form.refresh()
        assert "of_my_own" in names(form, path)


class Events:
    """The two calls of IPython's event manager that are used."""

    def __init__(self) -> None:
        self.called: list[Any] = []

    def register(self, event: str, function: Any) -> None:
        assert event == "post_run_cell"
        self.called.append(function)

    def unregister(self, event: str, function: Any) -> None:
        self.called.remove(function)


class Shell:
    def __init__(self) -> None:
        self.events = Events()

    def run(self) -> None:
        for function in list(self.events.called):
            function(None)


class Listener:
    def __init__(self) -> None:
        self.heard = 0

    def hear(self) -> None:
        self.heard += 1


def test_a_cell_that_ran_is_heard_until_it_is_ended() -> None:
    shell, listener = Shell(), Listener()
    end = after_each_cell(listener.hear, shell)
    shell.run()
    shell.run()
    assert listener.heard == 2
    end()
    end()
    shell.run()
    assert listener.heard == 2


def test_what_is_gone_is_forgotten() -> None:
    shell, listener = Shell(), Listener()
    after_each_cell(listener.hear, shell)
    del listener
    shell.run()
    assert shell.events.called == []


def test_a_form_listens_in_a_notebook_and_stops_when_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shell = Shell()
    monkeypatch.setattr("stackwise_widgets.form.cells._shell", lambda: shell)
    form = Form(sw.Experiment.preset("toy"))
    monkeypatch.setitem(sw.CURRICULA, "outside_in", outside_in)
    shell.run()
    assert "outside_in" in names(form)
    form.close()
    assert shell.events.called == []
