"""Form to YAML to form is the identity, and a filled form reads as `replace` does."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stackwise as sw
from stackwise_widgets.form import Form
from stackwise_widgets.form.schema import Spec, specs_of
from stackwise_widgets.form.sheet import Sheet
from stackwise_widgets.form.text import text_of

CHOICES = ("attention", "objective", "curriculum", "masking.schedule", "data.tokenizer")


def experiment_said(form: Form) -> sw.Experiment:
    """What the fields alone say."""
    values = form.values()
    values.pop("placement")
    return sw.Experiment(**values)


@pytest.mark.parametrize("preset", sw.presets())
def test_a_preset_comes_back(preset: str) -> None:
    exp, placement = sw.Experiment.preset(preset), sw.Placement.preset(preset)
    form = Form(exp, placement)
    assert form.problems == ()
    assert (form.preset, form.changed) == (preset, [])
    for path, text in form.text.items():
        assert form.field(path).value == text  # what is shown is what is read
    assert experiment_said(form) == exp
    assert sw.Placement(**form.values()["placement"]) == placement
    other = Form(sw.Experiment.from_yaml(form.experiment.to_yaml()), form.placement)
    assert other.text == form.text
    assert other.experiment == exp and other.experiment.hash == exp.hash


@pytest.mark.parametrize("preset", sw.presets())
def test_a_form_that_was_used_is_filled_whole(preset: str) -> None:
    form = Form(sw.Experiment.preset("toy"))
    form.field("attention").value = "mla"
    form.field("attention.kv_rank").value = "eight"
    form.field("optim.lr").value = "fast"
    form.use(preset)
    fresh = Form(sw.Experiment.preset(preset), sw.Placement.preset(preset))
    assert form.text == fresh.text
    assert form.problems == ()
    assert {path: form.field(path).value for path in form.text} == fresh.text


OWN_KINDS = [
    {"attention": {"kind": "mla", "kv_rank": 8, "rope_dim": 0}},
    {"attention": {"kind": "kernel", "map": "gaussian", "gain": 0.25}},
    {"curriculum": {"name": "left_to_right", "split": [1, 2, 3, 4.5]}},
    {"curriculum": {"name": "right_to_left"}, "masking": {"bands": [0.25, 0.5, 0.75]}},
    {"curriculum": {"name": "grow", "start": 2, "by": "one"}},
    {"curriculum": {"name": "block_coordinate", "order": "random", "cycles": 3}},
    {"masking": {"schedule": {"name": "geometric", "sigma_min": 1e-3}, "sampling": "iid"}},
    {"objective": {"kind": "mlm", "keep_frac": 0.25}, "masking": {"schedule": "ramp"}},
    {"data": {"corpus": {"kind": "text", "path": 'a b, "c".txt'}, "tokenizer": "bpe:300"}},
    {"data": {"corpus": {"kind": "markov", "order": 3, "size_bytes": 5_000_000}}},
    {"rack": {"window": [4, None], "rope_base": [1e4, 5e5], "d_ff": 96}},
    {"rack": {"rope_base": [12345.678]}},
    {"rack": {"rope_scaling": {"factor": 8, "original": 4096}, "vocab": 1_000_000}},
    {"budget": {"tokens": 123_456_789}, "optim": {"clip": None, "ema": None}},
    {"optim": {"lr": 1e-5, "eps": 1.5e-9, "batch": 1}, "seed": 2**31 - 1},
    {"title": "123", "start": "null"},
    {"start": ""},
    {"start": '"quoted" name'},
    {"start": " spaces and\nlines "},
]


@pytest.mark.parametrize("values", OWN_KINDS, ids=str)
def test_parameters_of_kinds_come_back(values: dict[str, Any]) -> None:
    exp = sw.Experiment(**values)
    form = Form(sw.Experiment.preset("toy"))
    form.experiment = exp
    assert form.problems == ()
    assert form.experiment == experiment_said(form) == exp
    other = Form(sw.Experiment.from_yaml(exp.to_yaml()))
    assert other.text == form.text | {p: t for p, t in other.text.items() if "placement" in p}


def value_for(spec: Spec) -> st.SearchStrategy[Any]:
    """Values that a field may be given, in range or not."""
    found: list[st.SearchStrategy[Any]] = [st.none()] if spec.empty else []
    if spec.control == "checkbox":
        return st.booleans()
    if spec.literals:
        found.append(st.sampled_from(spec.literals))
    if "list" in spec.types:
        found.append(st.lists(st.floats(0.01, 9e9), min_size=1, max_size=4))
    elif "int" in spec.types:
        found.append(st.integers(-2, 3_000_000))
    elif "float" in spec.types:
        found.append(st.floats(-1, 1e7))
    elif "str" in spec.types:
        found.append(st.text(max_size=12))
    return st.one_of(found)


@st.composite
def changed(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A preset, and changes of a few of its knobs: kinds first, then what they brought."""
    preset = draw(st.sampled_from(sw.presets()))
    sheet = Sheet(specs_of(sw.Experiment))
    values = sw.Experiment.preset(preset).model_dump(mode="json")
    sheet.fill(values, values)
    changes: dict[str, Any] = {}
    for path in draw(st.lists(st.sampled_from(CHOICES), max_size=2, unique=True)):
        others = [kind for kind in sheet.find(path).options if kind != sheet.texts[path]]
        changes[path] = draw(st.sampled_from(others))
        sheet.write(path, changes[path])
    knobs = [
        spec
        for spec in sheet.present()
        if spec.control not in ("section", "choice") and not spec.path.startswith("budget")
    ]
    for spec in draw(st.lists(st.sampled_from(knobs), max_size=4, unique=True)):
        changes[spec.path] = draw(value_for(spec))
    if draw(st.booleans()):
        changes["budget.tokens"] = draw(st.integers(0, 10**16))
    return preset, changes


@settings(deadline=None, max_examples=100)
@given(changed())
def test_what_is_filled_in_is_what_replace_makes(case: tuple[str, dict[str, Any]]) -> None:
    preset, changes = case
    base, form, other = sw.Experiment.preset(preset), *forms()
    form.use(preset)
    for path, value in changes.items():
        spec = form._sheet.find(path)
        form.field(path).value = value if spec.control == "choice" else text_of(spec, value)
    mine = [p for p in form.problems if not p.path.startswith("placement")]
    try:
        wanted = base.replace(**changes)
    except sw.ExperimentError as error:
        assert {p.path for p in mine} == {p.path for p in error.problems}
    else:
        assert mine == []
        assert experiment_said(form) == wanted
        form.experiment = sw.Experiment.from_yaml(wanted.to_yaml())
        assert experiment_said(form) == wanted
        other.fill(form.experiment, form.placement)
        assert other.text == form.text


@cache
def forms() -> tuple[Form, Form]:
    return Form(sw.Experiment.preset("toy")), Form(sw.Experiment.preset("toy"))
