"""The page does what a test asks of it, and a test that goes wrong says how."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser

from .console import Console
from .lab import Lab

FORM = """
import ipywidgets as widgets

stacks = widgets.BoundedIntText(description="Stacks", value=3, min=1, max=12)
curriculum = widgets.Dropdown(description="Curriculum", options=["grow", "all at once"])
launch = widgets.Button(description="Launch")
said = widgets.Label("nothing launched")


@launch.on_click
def press(_):
    said.value = f"launched {curriculum.value} with {stacks.value}"


widgets.VBox([stacks, curriculum, launch, said])
"""
WIDE = "widgets.Box([widgets.HTML('wide', layout={'width': '1000px', 'flex': '0 0 auto'})])"


def test_a_form_is_filled_in(lab: Lab) -> None:
    lab.open(lab.write("form.ipynb", FORM))
    lab.run_all()
    lab.fill("Stacks", "5")
    lab.choose("Curriculum", "all at once")
    lab.click("Launch")
    lab.wait_for("launched all at once with 5", cell=0)
    assert lab.value("stacks.value, curriculum.value") == "(5, 'all at once')"
    assert lab.value("no_such_name").startswith("NameError")
    with pytest.raises(AssertionError, match=r"stacks.value is 5, and not 6"):
        lab.wait_for_value("stacks.value", "6", within=0.5)


def test_keys_alone_run_a_cell_and_fill_in_its_form(lab: Lab) -> None:
    """Shift+Enter runs and goes on to the next cell, Up comes back, Tab goes into the output."""
    lab.open(lab.write("form.ipynb", FORM, "'the next cell'"))
    lab.press("Shift+Enter")
    lab.button("Launch").wait_for()
    lab.press("ArrowUp")
    lab.tab_to("Stacks")
    lab.press("Control+A", "8", "Tab")
    assert lab.focused == "Curriculum"
    lab.press("Space", "ArrowDown", "Enter", "Tab")
    assert lab.focused == "Launch"
    lab.press("Enter")
    lab.wait_for("launched all at once with 8")
    lab.field("Stacks").focus()
    with pytest.raises(AssertionError, match=r"'Stop' was not reached .*'Curriculum', 'Launch'"):
        lab.tab_to("Stop", at_most=3)


@pytest.mark.parametrize("viewport", [(900, 800)], ids=["900px"])
def test_what_does_not_fit_is_told(lab: Lab) -> None:
    lab.open(lab.write("form.ipynb", FORM, WIDE))
    lab.run_all()
    (wide,) = lab.scrolls_sideways
    assert re.fullmatch(r".*1\d{3} px in [678]\d{2}", wide)
    lab.size(1400, 800)
    assert lab.scrolls_sideways == []


def test_a_theme_is_put_on_in_the_whole_lab(lab: Lab) -> None:
    lab.open(lab.write("form.ipynb", FORM), whole=True)
    assert lab.page.get_by_role("listitem", name=re.compile("form.ipynb")).is_visible()
    backgrounds = []
    for theme in ("light", "dark"):
        lab.theme(theme)
        lab.picture(theme)
        colour = "getComputedStyle(document.body).getPropertyValue('--jp-layout-color0')"
        backgrounds.append(lab.page.evaluate(colour))
    assert backgrounds == ["white", "#111"]


@pytest.mark.parametrize("colour_scheme", ["dark"])
def test_a_page_is_told_what_its_user_prefers(lab: Lab) -> None:
    assert lab.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")


def test_a_cell_that_raises_fails_its_test(lab: Lab) -> None:
    lab.open(lab.write("raises.ipynb", "print('before')", "1 / 0"))
    with pytest.raises(AssertionError, match=r"cell 1 raised:\n(?s:.*)ZeroDivisionError"):
        lab.run(1)
    with pytest.raises(AssertionError, match=r"a cell raised:\n(?s:.*)before(?s:.*)Zero"):
        lab.run_all()
    with pytest.raises(AssertionError, match=r"'after' was not seen (?s:.*)before"):
        lab.wait_for("after", within=0.5)


def test_what_a_page_complains_of_is_kept(chromium: Browser) -> None:
    page = chromium.new_page()
    console = Console(page)
    page.evaluate("console.log('said'); console.error('wrong')")
    page.evaluate("console.error('Could not restore the debugger state: Canceled')")
    with page.expect_event("pageerror"):
        page.evaluate("setTimeout(() => { throw new Error('thrown') })")
    page.close()
    wrong, thrown = console.complaints
    assert wrong.startswith("error: wrong")
    assert thrown.startswith("uncaught: Error: thrown")
    assert len(console.lines) == 4

    console.expect("thrown")
    assert console.complaints == [wrong]
    with pytest.raises(AssertionError, match="nothing complained of 'thrown'"):
        console.expect("thrown")
