"""What comes from outside never breaks a picture, and every picture is the same again."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stackwise as sw
from stackwise.data.tokenizer import ByteTokenizer
from stackwise_widgets.views import (
    CSS,
    attention_pattern_html,
    grid_html,
    markup,
    mask_preview_html,
    plan_html,
    rack_html,
    styled,
    table_html,
)
from stackwise_widgets.views.markup import (
    attributes,
    bytes_said,
    count_said,
    days_said,
    disk_said,
    escaped,
    flops_said,
    percent_said,
    shortened,
    stacks_said,
)

TOY = sw.Experiment.preset("toy")
ANY = st.text(
    st.characters(codec=None) | st.sampled_from(list("<>&\"'\x00\x1b\ud800\ufffe\u202e\u2066"))
)
LOST = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


def pictures():
    exp = TOY.replace(curriculum="right_to_left", masking={"bands": "linear"})
    plan = sw.plan(exp, hardware="h200")
    return {
        "grid": grid_html(exp, plan.placement, plan.needs.made, plan.rows, done={0: "finished"}),
        "masks": mask_preview_html(exp, "In the beginning", tokenizer=ByteTokenizer()),
        "attention": attention_pattern_html(exp),
        "plan": plan_html(plan),
        "rack": rack_html([{"name": "s0", "state": "trunk", "bytes": 3, "parameters": 1}]),
    }


@given(ANY)
def test_any_text_is_given_back_by_a_parser(text):
    root = ElementTree.fromstring(f'<p title="{escaped(text)}">{escaped(text)}</p>')
    clean = LOST.sub("\ufffd", text)
    assert (root.text or "") == clean.replace("\r\n", "\n").replace("\r", "\n")
    assert "<" not in escaped(text)
    assert '"' not in escaped(text)


@given(st.lists(ANY, min_size=1, max_size=3), st.data())
def test_a_table_holds_what_it_is_given(head, data):
    rows = data.draw(st.lists(st.lists(ANY, min_size=len(head), max_size=len(head)), max_size=3))
    root = ElementTree.fromstring(table_html(head, rows, "<caption>"))
    assert root.find("caption").text == "<caption>"
    assert [cell.get("scope") for cell in root.iter("th")] == ["col"] * len(head)
    assert [len(line) for line in root.findall("tbody/tr")] == [len(head)] * len(rows)


def test_a_table_with_a_row_too_short_is_refused():
    with pytest.raises(ValueError, match="1 cells under 2 columns"):
        table_html(["a", "b"], [["1"]], "short")


def test_a_stages_name_and_how_it_stands_are_escaped():
    hostile = "<img src=x onerror='alert(1)'>&"
    own = [sw.Stage(name=hostile, path=("s0",))]
    made = sw.stages(TOY, lambda exp: own)
    html = grid_html(TOY, sw.Placement(), made, (), done={0: hostile + "\x00\ud800"})
    ElementTree.fromstring(html)
    assert "<img" not in html
    assert escaped(hostile) in html


@pytest.mark.parametrize("name", ["grid", "masks", "attention", "plan", "rack"])
def test_every_picture_is_one_element_of_xml_and_html_and_the_same_again(name):
    html, again = pictures()[name], pictures()[name]
    assert html == again
    root = ElementTree.fromstring(html)
    assert root.tag == "figure"
    assert root.find("figcaption") is not None
    assert root.find(".//details//table") is not None, "a table behind it"
    stack = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag, attrs):
            stack.append(tag)

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    Balanced().feed(html)
    assert not stack
    for svg in root.iter("{http://www.w3.org/2000/svg}svg"):
        assert svg.get("aria-label") or svg.get("aria-hidden") == "true"


@pytest.mark.parametrize("name", ["grid", "masks", "attention", "plan", "rack"])
def test_every_class_of_ours_is_in_the_style_sheet_or_marks_a_place(name):
    """A class that the sheet does not have would be drawn black."""
    root = ElementTree.fromstring(pictures()[name])
    drawn = ("rect", "path", "circle")
    for element in root.iter():
        tag, kinds = element.tag.rpartition("}")[2], (element.get("class") or "").split()
        if tag in drawn and not (element.get("fill") or "").startswith("url("):
            assert any(re.search(rf"\.{kind}\b[^{{]*{{[^}}]*fill", CSS) for kind in kinds), kinds


def test_the_style_sheet_takes_the_pages_colours_and_has_others_without():
    assert re.findall(r"var\(--jp-[\w-]+\)", CSS) == [], "each has a fallback"
    assert "var(--jp-layout-color1, #ffffff)" in CSS
    assert CSS.count("{") == CSS.count("}")
    assert styled("<p/>") == f"<style>{CSS}</style><p/>"


@pytest.mark.parametrize(
    "text", [bytes_said, disk_said, count_said, flops_said, percent_said, days_said]
)
def test_what_is_no_figure_is_said_in_words(text):
    words = [text(value) for value in (None, math.nan, math.inf, -math.inf)]
    assert words == ["not known", "not a number", "infinite", "minus infinity"]


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (999_600, "1 M"),
        (999_999_999, "1 G"),
        (1.5e15, "1,500 T"),
    ],
)
def test_counts_are_rounded_before_they_get_a_unit(count, said):
    assert count_said(count).replace("1.5e+03", "1,500") == said


@given(st.lists(st.integers(0, 30), unique=True, max_size=12).map(sorted))
def test_names_of_stacks_are_ranges_that_give_them_back(numbers):
    order = [f"s{i}" for i in range(31)]
    said = stacks_said([f"s{i}" for i in numbers], order)
    found = []
    for span in [] if said == "none" else said.split(", "):
        first, _, last = span.partition(" to ")
        found += range(int(first[1:]), int((last or first)[1:]) + 1)
    assert found == numbers


def test_small_things():
    assert attributes(data_a="<", class_="x", left_out=None) == ' data-a="&lt;" class="x"'
    assert shortened("abcdef", 4) == "abc…"
    assert stacks_said(["embedding", "s0", "s1", "head"], ["embedding", "s0", "s1", "head"]) == (
        "embedding, s0 to s1, head"
    )


def test_the_same_picture_twice_in_a_page_has_no_id_twice() -> None:
    from stackwise_widgets.views.markup import apart

    exp = sw.Experiment.preset("toy").replace(curriculum="left_to_right")
    one = grid_html(exp, sw.Placement(), sw.stages(exp))
    other = apart(one, "d")
    found = [set(re.findall(r'id="([^"]+)"', picture)) for picture in (one, other)]
    assert found[0] and not found[0] & found[1] and len(found[0]) == len(found[1])
    used = set(re.findall(r"url\(#([^)]+)\)", other)) | set(re.findall(r'href="#([^"]+)"', other))
    assert used <= found[1]


def test_there_is_one_way_to_escape() -> None:
    package = Path(markup.__file__).parents[1]
    own = [path for path in package.rglob("*.py") if path != Path(markup.__file__)]
    found = [p.name for p in own if re.search(r"^(import|from) html\b", p.read_text(), re.M)]
    assert len(own) > 90 and found == []
