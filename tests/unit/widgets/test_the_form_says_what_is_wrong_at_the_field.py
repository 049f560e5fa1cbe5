"""Each problem stands at its field in the schema's words; what was typed stays."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any, Literal

import pytest

import stackwise as sw
from stackwise_widgets.form import Form


@pytest.fixture
def form() -> Form:
    return Form(sw.Experiment.preset("toy"), sw.Placement.preset("toy"))


def said(form: Form, path: str) -> str:
    return html.unescape(form.message(path))


WRONG = [
    ("optim.lr", "fast", "'fast' is not a number"),
    ("optim.lr", "0", "0 must be over 0"),
    ("optim.lr", "", "is empty; give a value, or leave the key out"),
    ("optim.lr", "1e400", "'1e400' is not a finite number"),
    ("optim.batch", "1.5", "1.5 is not a whole number"),
    ("optim.batch", "true", "'true' is not a whole number"),
    ("rack.stacks", "5000", "5000 must be 1024 or less"),
    ("rack.heads", "3", "3 does not divide d_model=64; use 2 or give head_dim"),
    ("rack.window", "4, x", "[1]: 'x' is not a whole number"),
    ("title", "a b", "'a b' must match ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    ("seed", "-1", "-1 must be 0 or more"),
    ("masking.bands", "0.5",
     "0.5 is not one of 'equal_mass', 'linear' or 'exponential', and is not a list"),
    ("masking.bands", "equal_mas", "did you mean 'equal_mass'?"),
    ("precision.weights", "bfloat16", "bfloat16 needs compute=bfloat16, not float32"),
    ("placement.micro_batch", "0", "0 must be 1 or more"),
    ("placement.stream_from", "host", "'host' is not read with trunk=recompute"),
    ("placement.cache_gb", "3", "3.0 is not read with trunk=recompute; leave it empty"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "text", "message"), WRONG)
def test_a_problem_stands_at_its_field(form: Form, path: str, text: str, message: str) -> None:
    before = (form.experiment, form.placement)
    form.field(path).value = text
    assert message in said(form, path)
    assert said(form, path).startswith('<div class="sw-problem" role="alert"><div>Problem: ')
    assert form.field(path).value == form.text[path] == text  # nothing is corrected
    assert (form.experiment, form.placement) == before
    assert [problem.path.partition("[")[0] for problem in form.problems] == [path]
    assert f"Not valid: 1 problem, at {form.problems[0].path}." in form.message("")
    form.reset(path)
    assert form.problems == ()
    assert said(form, path) == ""
    assert "Not valid" not in form.message("")


def test_all_problems_at_once_over_all_sections(form: Form) -> None:
    form.field("optim.lr").value = "fast"
    form.field("rack.heads").value = "3"
    form.field("placement.threads").value = "no"
    form.field("optim.schedule").value = "cosine"
    form.field("optim.decay_frac").value = "0.5"
    wrong = {problem.path for problem in form.problems}
    assert wrong == {"optim.lr", "rack.heads", "placement.threads"}
    form.field("optim.lr").value = "1e-3"
    assert {p.path for p in form.problems} == {
        "optim.decay_frac", "rack.heads", "placement.threads",
    }  # fmt: skip
    for problem in form.problems:
        assert f"Problem: {problem.text}" in said(form, problem.path)
    assert said(form, "optim.lr") == ""


def test_the_row_is_marked_by_more_than_colour(form: Form) -> None:
    form.field("optim.lr").value = "fast"
    row = form._board.rows["optim.lr"]
    assert "sw-invalid" in row._dom_classes
    assert "Problem: " in row.message
    form.field("optim.lr").value = "3e-4"
    assert "sw-invalid" not in row._dom_classes
    assert len(row.children) == 2  # the field and its mark: the message is gone


def test_a_section_with_a_problem_opens_and_counts(form: Form) -> None:
    optim = next(fold for fold in form._board._folds if fold.part.title == "optim")
    assert not optim.is_open
    form.write("optim.lr", "fast")
    form.write("optim.batch", "0")
    assert optim.is_open
    assert optim.button.description == "optim (2 changed, 2 problems)"
    optim.button.value = False  # closed by hand, it stays closed while nothing new is wrong
    form.write("seed", "3")
    assert not optim.is_open
    form.write("optim.clip", "no")
    assert optim.is_open


def test_a_problem_of_a_section_stands_at_its_head(form: Form) -> None:
    form.field("budget.flops").value = ""
    assert "neither tokens nor flops is given" in said(form, "budget")
    form.reset("budget.flops")
    assert "neither" not in said(form, "budget")


def test_a_problem_that_belongs_to_a_choice_names_the_rest_of_its_path(form: Form) -> None:
    with pytest.raises(sw.ExperimentError) as raised:
        sw.stages(sw.Experiment.preset("toy"), build=lambda exp: [5])
    form.show(raised.value.problems)
    assert "Problem: stages[0]: 5 is not a Stage" in said(form, "curriculum")
    assert form.problems == ()  # found by what makes the stages, not by the schema
    form.field("seed").value = "4"  # shown until the next change
    assert said(form, "curriculum") == ""


def test_a_placement_that_does_not_go_with_the_experiment(form: Form) -> None:
    form.field("optim.clip").value = ""
    form.field("optim.grads").value = "in_backward"
    form.field("placement.micro_batch").value = "4"
    assert [p.path for p in form.problems] == ["placement.micro_batch"]
    assert "4 < optim.batch=16 adds up gradients" in said(form, "placement.micro_batch")
    assert form.placement.micro_batch is None
    assert form.experiment.optim.grads == "in_backward"
    form.field("optim.grads").value = "whole"
    assert form.problems == () and form.placement.micro_batch == 4


def test_an_unknown_kind_of_a_finished_run_is_shown_and_said(
    form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = sw.Experiment.preset("toy").to_yaml().replace("name: end_to_end", "name: of_a_cell")
    exp = sw.Experiment.from_yaml(text, opening_run=True)
    form.experiment = exp
    assert form.field("curriculum").value == "of_a_cell"
    assert "unknown name 'of_a_cell'" in said(form, "curriculum")
    assert form.experiment == exp  # a run's experiment is one, though it cannot be run again here

    def of_a_cell(exp: sw.Experiment) -> Iterator[sw.Stage]:
        yield sw.Stage(path=sw.stack_ids(exp.rack))

    monkeypatch.setitem(sw.CURRICULA, "of_a_cell", of_a_cell)
    form.refresh()
    assert form.problems == () and form.experiment.curriculum.choice == "of_a_cell"


def test_an_error_of_a_kind_of_ones_own_is_said_at_the_top(
    form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(sw.Params):
        name: Literal["broken"] = "broken"

        def model_post_init(self, context: Any) -> None:
            raise AttributeError("a slip")

    monkeypatch.setitem(sw.CURRICULA, "broken", sw.Choice(lambda exp: [], Broken))
    form.write("curriculum", "broken")
    assert [p.path for p in form.problems] == [""]
    assert "a kind of your own raised AttributeError" in said(form, "")
    form.field("curriculum").value = "grow"
    assert form.problems == ()


def test_only_an_experiment_can_be_given() -> None:
    with pytest.raises(TypeError, match=r"'toy' is no experiment; give a sw\.Experiment"):
        Form("toy")  # type: ignore[arg-type]
