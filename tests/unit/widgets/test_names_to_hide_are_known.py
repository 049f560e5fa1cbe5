"""What a teacher hides: a slip of any kind is told at once, with the closest name there is."""

import pytest

from stackwise_widgets import Compare, Design, Inspect, RunPanel, Teach, Workbench
from stackwise_widgets.form import Form
from stackwise_widgets.form.hiding import every_path, hidden_paths
from stackwise_widgets.hiding import parts_of
from stackwise_widgets.workbench import by_panel

PANELS = {
    "Design": lambda shipped, hide: Design("toy", hide=hide),
    "Run": lambda shipped, hide: RunPanel(hide=hide),
    "Compare": lambda shipped, hide: Compare(shipped, hide=hide),
    "Inspect": lambda shipped, hide: Inspect(shipped[0], hide=hide),
    "Teach": lambda shipped, hide: Teach("toy", hide=hide),
}


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("Compar", "Compare"),
        ("teach ", "Teach"),
        ("desgin.Plan", "design.Plan"),
        ("Desgin.plan", "design.Plan"),
        ("inspct.attention", "inspect.attention"),
        ("optin", "optim"),
        ("optim.lrr", "optim.lr"),
        ("Plam", "Plan"),
    ],
)
def test_the_closest_of_panels_parts_and_keys_is_named(name, closest) -> None:
    with pytest.raises(ValueError) as error:
        Workbench(hide=name, warm=False)
    assert f"hide: {name!r} is no panel, no part of one and no knob" in str(error.value)
    assert f"did you mean {closest!r}?" in str(error.value)


def test_where_nothing_is_close_it_says_what_can_be_named() -> None:
    with pytest.raises(
        ValueError, match=r"name a panel, as Compare, a part of one, as run\.sample"
    ):
        by_panel(["Ω"])


@pytest.mark.parametrize(
    ("name", "closest"),
    [("compare.filtr", "filter"), ("Inspect.attenton", "attention"), ("teach.plya", "play")],
)
def test_a_slip_in_a_panel_that_is_made_later_is_told_at_once(name, closest) -> None:
    with pytest.raises(ValueError, match=f"is no part; did you mean '{closest}'"):
        by_panel([name])


def test_a_capital_letter_is_no_slip_of_a_panel_and_is_suggested_for_a_part() -> None:
    assert by_panel(["COMPARE"])[""] == ["Compare"]
    with pytest.raises(ValueError, match="did you mean 'Plan'"):
        by_panel(["plan"])


@pytest.mark.parametrize("panel", PANELS)
def test_the_names_are_those_that_the_panel_takes(panel, shipped) -> None:
    made = PANELS[panel](shipped, list(parts_of(panel)))
    assert made.errors == []
    made.close()
    whole = by_panel([f"{panel}.{part}" for part in parts_of(panel)])
    assert whole[panel] == list(parts_of(panel))


def test_the_keys_are_those_that_the_form_takes(tiny) -> None:
    specs = Form(tiny)._sheet.specs
    assert hidden_paths(specs, every_path()) == every_path()
    with pytest.raises(ValueError, match="is no knob"):
        hidden_paths(specs[:-1], every_path())  # without the placement's
