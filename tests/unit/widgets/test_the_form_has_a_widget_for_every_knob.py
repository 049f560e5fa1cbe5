"""Every key of the schema has one widget, and a new key has one by itself."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import pytest
from ipywidgets import Widget
from pydantic import Field
from pydantic.fields import FieldInfo

import stackwise as sw
from stackwise_widgets.form import Form
from stackwise_widgets.form.arrangement import MAIN
from stackwise_widgets.form.fields import Row
from stackwise_widgets.form.schema import specs_of

KINDS = {
    "attention": sw.ATTENTION,
    "objective": sw.OBJECTIVES,
    "curriculum": sw.CURRICULA,
    "masking.schedule": sw.SCHEDULES,
    "data.corpus": sw.CORPORA,
    "data.tokenizer": sw.TOKENIZERS,
}


def keys(values: Mapping[str, Any], fields: Mapping[str, FieldInfo], at: str = "") -> Iterator[str]:
    """The keys of a dumped value, a kind's selector being the key that holds it."""
    for key, value in values.items():
        path = f"{at}{key}"
        selector = next((k for k in ("kind", "name") if path in KINDS), None)
        if path in KINDS or not isinstance(value, Mapping):
            yield path
        if isinstance(value, Mapping):
            inner = {k: v for k, v in value.items() if not (selector and k in ("kind", "name"))}
            yield from keys(inner, fields, f"{path}.")


def expected(exp: sw.Experiment, placement: sw.Placement) -> set[str]:
    unsaid = {"adapters": exp.adapters.model_dump()}  # written where it says something
    dumped = {**unsaid, **exp.model_dump(), "placement": placement.model_dump()}
    found = set(keys(dumped, sw.Experiment.model_fields))
    stretched = exp.rack.rope_scaling is not None
    return found | ({"rack.rope_scaling"} if stretched else set())


def rows(widget: Widget) -> Iterator[Row]:
    if isinstance(widget, Row):
        yield widget
    for child in getattr(widget, "children", ()):
        yield from rows(child)


def drawn(form: Form) -> list[str]:
    for path in form.text:
        form.field(path)  # sections make their rows when they are opened
    return [row.spec.path for row in rows(form)]


@pytest.mark.parametrize("preset", sw.presets())
def test_every_key_of_a_preset_has_one_widget(preset: str) -> None:
    exp, placement = sw.Experiment.preset(preset), sw.Placement.preset(preset)
    form = Form(exp, placement)
    assert Counter(drawn(form)) == Counter(expected(exp, placement))
    assert set(form.text) == expected(exp, placement)


@pytest.mark.parametrize(
    ("path", "kind"), [(path, kind) for path, kinds in KINDS.items() for kind in kinds]
)
def test_every_kind_brings_its_own(path: str, kind: str) -> None:
    form = Form(sw.Experiment.preset("toy"))
    form.field(path).value = kind
    entry = KINDS[path][kind]
    own = {f"{path}.{key}" for key in list(entry.params.model_fields)[1:]}
    assert {key for key in form.text if key.startswith(f"{path}.")} == own
    found = Counter(drawn(form))
    assert set(found.values()) == {1}
    assert own <= found.keys()


def test_a_stretch_of_rope_brings_its_own() -> None:
    form = Form(sw.Experiment.preset("toy"))
    form.field("rack.rope_scaling").value = True
    form.field("rack.rope_scaling.factor").value = "8"
    assert form.experiment.rack.rope_scaling.factor == 8
    form.field("rack.rope_scaling").value = False
    assert form.experiment.rack.rope_scaling is None
    assert "rack.rope_scaling.factor" not in drawn(form)


def described(model: Any, at: str) -> Iterator[tuple[str, str]]:
    for key, info in model.model_fields.items():
        yield f"{at}{key}", info.description
        if isinstance(info.annotation, type) and hasattr(info.annotation, "model_fields"):
            yield from described(info.annotation, f"{at}{key}.")


def test_every_field_says_what_it_is_for() -> None:
    form = Form(sw.Experiment.preset("toy"))
    said = dict(described(sw.Experiment, "")) | dict(described(sw.Placement, "placement."))
    for path in form.text:
        assert said[path] and said[path] in form.field(path).tooltip, path
        # the browser shows the tooltip of a labelled field nowhere but in the label itself
        label = form.field(path).description
        assert label.startswith(f'<span title="{html.escape(form.field(path).tooltip)}">'), path


def test_the_main_knobs_come_first_and_are_all_there() -> None:
    form = Form(sw.Experiment.preset("toy"))
    first = [row.spec.path for row in rows(form)]
    there = [path for main in MAIN for path in first if path == main or path.startswith(f"{main}.")]
    assert first == there
    assert {path.split(".")[0] if path.startswith("budget") else path for path in first} == set(
        MAIN
    )


def test_lists_and_ticks_and_texts() -> None:
    form = Form(sw.Experiment.preset("toy"))
    found = {path: type(form.field(path)).__name__ for path in form.text}
    assert found["optim.name"] == found["attention"] == found["precision.frozen"] == "Dropdown"
    assert found["rack.tied"] == found["rack.rope_scaling"] == "Checkbox"
    assert found["masking.bands"] == "Combobox"
    assert found["optim.lr"] == found["rack.window"] == found["title"] == "Text"
    assert [name for _, name in form.field("precision.frozen").options] == [
        "", "fp16", "bf16", "fp8", "int8", "nf4", "fp4",
    ]  # fmt: skip
    texts = [form.field(p) for p, kind in found.items() if kind in ("Text", "Combobox")]
    assert not any(field.continuous_update for field in texts)  # half a number is no error


class Odd(sw.Params):
    """Of every type that a kind of one's own may have."""

    name: Literal["odd"] = "odd"
    whole: int = Field(3, ge=1)
    either: int | float = 2.0
    flag: bool | None = None
    words: tuple[str, ...] = ("a", "b, c", "5")
    table: dict[str, float] = Field(default_factory=lambda: {"a": 1.0})
    steps: list[int | None] = Field([1, None])
    mixed: Literal["auto", "off"] | float | None = "auto"
    small: Annotated[int, Field(ge=1)] | None = None
    anything: Any = None
    needed: str


def test_a_type_that_is_new_to_the_form_has_a_field_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def odd(exp: sw.Experiment) -> Iterator[sw.Stage]:
        yield sw.Stage(path=sw.stack_ids(exp.rack))

    monkeypatch.setitem(sw.CURRICULA, "odd", sw.Choice(odd, Odd))
    form = Form(sw.Experiment.preset("toy"))
    form.field("curriculum").value = "odd"
    assert {f"curriculum.{key}" for key in list(Odd.model_fields)[1:]} <= form.text.keys()
    assert [str(problem) for problem in form.problems] == ["curriculum.needed: is missing; give it"]
    form.field("curriculum.needed").value = "x"
    assert form.problems == ()
    assert form.experiment.curriculum == Odd(needed="x")
    form.field("curriculum.table").value = '{"b": 3e-4}'
    form.field("curriculum.words").value = "x, 7"
    form.field("curriculum.steps").value = "2, null, 3"
    form.field("curriculum.mixed").value = "0.5"
    form.field("curriculum.anything").value = '{"deep": [1, "2"]}'
    form.field("curriculum.flag").value = "false"
    assert form.problems == ()
    assert form.experiment.curriculum == Odd(
        needed="x",
        table={"b": 3e-4},
        words=("x", "7"),
        steps=[2, None, 3],
        mixed=0.5,
        anything={"deep": [1, "2"]},
        flag=False,
    )
    other = Form(form.experiment, form.placement)
    assert other.values() == form.experiment.model_dump(mode="json") | {
        "adapters": form.experiment.adapters.model_dump(mode="json"),
        "placement": form.placement.model_dump(mode="json"),
    }


def test_bounds_are_said_in_words() -> None:
    bounds = {spec.path: spec.bounds for spec in specs_of(Odd)}
    assert bounds["whole"] == bounds["small"] == "1 or more"
    form = Form(sw.Experiment.preset("toy"))
    assert form.field("optim.lr").tooltip == "optim.lr\npeak learning rate\nover 0, 10 or less"
    assert form.field("masking.bands").tooltip.endswith(
        "\nequal_mass, linear, exponential, or a value"
    )
    assert form.field("attention").tooltip.startswith("attention\nhow positions look at each other")
