"""Hidden knobs keep their values; a search leaves the knobs that speak of its words."""

from __future__ import annotations

import html
from collections.abc import Iterator

import pytest
from ipywidgets import Widget

import stackwise as sw
from stackwise_widgets.form import Form
from stackwise_widgets.form.fields import Row
from stackwise_widgets.form.groups import Fold


def seen(widget: Widget) -> Iterator[Widget]:
    """What is on the page."""
    layout = getattr(widget, "layout", None)
    if layout is not None and layout.display == "none":
        return
    yield widget
    for child in getattr(widget, "children", ()):
        yield from seen(child)


def paths(form: Form) -> list[str]:
    return [each.spec.path for each in seen(form) if isinstance(each, Row)]


def sections(form: Form) -> list[str]:
    return [each.part.title for each in seen(form) if isinstance(each, Fold)]


ALL = ["experiment", "rack", "masking", "adapters", "data"]
ALL += ["optim", "precision", "preserve", "eval", "placement"]
BUDGET = [f"budget.{unit}" for unit in ("tokens", "flops", "days", "hours", "minutes")]


def test_sections_in_the_order_of_the_schema() -> None:
    form = Form(sw.Experiment.preset("toy"))
    assert sections(form) == ALL  # all sides of the budget are main knobs
    assert paths(form) == [
        "curriculum", "masking.schedule", "masking.bands", "attention", "objective",
        "precision.compute", "placement.trunk", "data.corpus", *BUDGET, "seed",
    ]  # fmt: skip


def test_hidden_knobs_keep_their_values() -> None:
    exp = sw.Experiment.preset("llama-3-70b")
    hide = ["rack", "optim.lr", "curriculum", "placement", "budget", "preset", "find"]
    form = Form(exp, sw.Placement.preset("llama-3-70b"), hide=hide)
    assert (form.experiment, form.placement) == (exp, sw.Placement.preset("llama-3-70b"))
    assert form.text["optim.lr"] == "0.00015"
    assert sections(form) == [k for k in ALL if k not in ("rack", "placement")]
    there = set(form.text) - {
        path for path in form.text if path.split(".")[0] in ("rack", "curriculum", "placement")
    }
    for path in there - {"optim.lr", *BUDGET}:
        form.field(path)
    for path in ("optim.lr", "rack.heads", "curriculum", "curriculum.split", "budget.flops"):
        with pytest.raises(KeyError):
            form.field(path)
    assert [line for line in seen(form) if line in (form._top.preset, form._top.find)] == []
    form.write("optim.lr", "1e-4")  # by code they are set all the same
    assert form.experiment == exp.replace(**{"optim.lr": 1e-4})


def test_hidden_parameters_of_a_kind_stay_hidden() -> None:
    form = Form(sw.Experiment.preset("toy"), hide=["curriculum.split", "curriculum.init"])
    form.field("curriculum").value = "left_to_right"
    assert [path for path in paths(form) if path.startswith("curriculum.")] == [
        "curriculum.noise", "curriculum.embedding", "curriculum.head", "curriculum.lr",
        "curriculum.optimizer_state", "curriculum.fuse",
    ]  # fmt: skip
    assert form.experiment.curriculum.split == "flops"


def test_a_problem_of_a_hidden_knob_is_said_at_what_is_seen() -> None:
    form = Form(sw.Experiment.preset("toy"), hide=["rack.heads", "optim"])
    form.write("rack.heads", "3")
    assert "heads: 3 does not divide d_model=64" in form.message("rack")
    form.write("optim.lr", "fast")
    assert "Problem: optim.lr: 'fast' is not a number" in html.unescape(form.message(""))


def test_an_unknown_key_to_hide_is_refused() -> None:
    exp = sw.Experiment.preset("toy")
    with pytest.raises(ValueError, match=r"hide: 'optim\.lrr' is no knob; did you mean 'optim\.lr"):
        Form(exp, hide=["optim.lrr"])
    with pytest.raises(ValueError, match="hide: 'Ω' is no knob; name a key"):
        Form(exp, hide="Ω")
    Form(exp, hide=["attention.kv_rank"])  # of a kind that is not chosen


def test_a_search_leaves_what_speaks_of_it() -> None:
    form = Form(sw.Experiment.preset("toy"))
    form._top.find.value = "learning RATE"
    assert paths(form) == ["optim.lr", "optim.schedule"]
    assert sections(form) == ["optim"]
    form._top.find.value = "antithetic"  # one of its names
    assert paths(form) == ["masking.sampling"]
    form._top.find.value = "no such thing <b>"
    assert paths(form) == sections(form) == []
    assert "No knob speaks of &#x27;no such thing &lt;b&gt;&#x27;." in form.message("")
    form._top.find.value = ""
    assert sections(form) == ALL
    assert [fold.is_open for fold in form._board._folds] == [False] * len(ALL)
    assert "No knob" not in form.message("")


def test_a_search_shows_what_holds_its_finds_and_survives_a_change() -> None:
    form = Form(sw.Experiment.preset("toy"))
    form.field("attention").value = "mla"
    form._top.find.value = "nope_dim"
    assert paths(form) == ["attention", "attention.nope_dim"]
    form.field("attention.nope_dim").value = "8"
    assert paths(form) == ["attention", "attention.nope_dim"]
    assert form.experiment.attention.nope_dim == 8
    form.field("attention").value = "mha"
    assert paths(form) == []


def test_an_open_section_is_open_again_after_a_search() -> None:
    form = Form(sw.Experiment.preset("toy"))
    rack = form._board._folds[1]
    rack.button.value = True
    form._top.find.value = "antithetic"
    form._top.find.value = ""
    assert [fold.part.title for fold in form._board._folds if fold.is_open] == ["rack"]
    assert "rack.d_model" in paths(form)


def test_explaining_says_at_each_knob_what_its_tooltip_says() -> None:
    form = Form(sw.Experiment.preset("toy"))
    form._top.explain.value = True
    assert "number of every" not in form.message("seed")
    assert "of every random draw; 0 or more, under 2_147_483_648" in form.message("seed")
    assert "end_to_end: All stacks at once: the control." in form.message("curriculum")
    form.field("seed").value = "-1"
    assert "Problem: -1 must be 0 or more" in form.message("seed")
    form._top.explain.value = False
    assert "of every random draw" not in form.message("seed")
