"""Nothing that can be typed raises, runs as HTML, or is lost."""

from __future__ import annotations

import html
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stackwise as sw
from stackwise_widgets.form import Form

HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "x" * 100_000, "[" * 50_000,
    "9" * 5_000, "1," * 20_000, "x," * 2_000, "{" * 10_000, "!!python/object:os.system",
    "\x00\x1b[31m", "nan", "-inf", "1e999", "0x1F", "1__0", "١٢", "\ud800", '{"a": 1, "a": 2}',
    "null", "~", "''", '"', "true", ",", "[,]", "]", "\U0001d7d9", "*x", "&a [*a]", "- 1", "a: b",
    " ",
]  # fmt: skip
FIELDS = ["optim.lr", "optim.batch", "rack.window", "rack.rope_base", "masking.bands", "title",
          "start", "placement.runs_dir", "placement.threads", "data.corpus.path"]  # fmt: skip


def opened() -> Form:
    exp = sw.Experiment.preset("toy").replace(title="hostile", **{"data.corpus": "text:a.txt"})
    form = Form(exp)
    for path in form.text:
        form.field(path)
    return form


the_form = cache(opened)  # no fixture: hypothesis would print it


@pytest.fixture
def form() -> Form:
    return the_form()


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:20])
def test_hostile_text_stays_text(form: Form, text: str) -> None:
    for path in FIELDS:
        form.write(path, text)
        assert form.text[path] == text
        shown = form.message("") + form.message(path)
        assert "<script" not in shown and "<img" not in shown
        assert len(form.message(path) + form.message("")) < 4000
        if form.problems:
            assert {p.path.partition("[")[0] for p in form.problems} == {path}
            assert html.escape(form.problems[0].text[:150]) in form.message(path)
        form.reset(path)
        assert form.problems == () and form.message(path) == ""


def test_long_problems_lose_their_middle_and_many_their_end(form: Form) -> None:
    form.write("rack.rope_base", "1," * 20_000)
    assert "(1.0, 1.0, " in form.message("rack.rope_base")
    assert " ... " in form.message("rack.rope_base")
    assert "must be over 1; 10000 is usual" in form.message("rack.rope_base")
    form.write("rack.rope_base", "x," * 2_000)
    assert "[5]: &#x27;x&#x27; is not a number" in form.message("rack.rope_base")
    assert "<div>and 95 more</div>" in form.message("rack.rope_base")
    assert "rack.rope_base[5], 95 more places." in form.message("")
    form.reset("rack.rope_base")
    assert form.message("rack.rope_base") == ""


def test_numbers_that_are_none_are_told(form: Form) -> None:
    for text in ("nan", "-inf", "1e999", "1__0", "x" * 100_000, "[" * 50_000, "9" * 5_000):
        form.write("optim.lr", text)
        assert [p.path for p in form.problems] == ["optim.lr"], text[:20]
    form.reset("optim.lr")


@settings(deadline=None, max_examples=150)
@given(path=st.sampled_from(FIELDS), text=st.text(max_size=30))
def test_any_text_is_read_or_refused(path: str, text: str) -> None:
    form = the_form()
    before = form.experiment
    form.field(path).value = text
    assert form.field(path).value == form.text[path] == text
    if form.problems:
        assert form.experiment == before
        assert "Problem: " in form.message(path)
    else:
        other = Form(sw.Experiment.from_yaml(form.experiment.to_yaml()), form.placement)
        assert other.experiment == form.experiment
        other.close()
    form.reset(path)
    assert form.experiment == before


def test_names_of_ones_own_are_no_html(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(exp: sw.Experiment) -> list[sw.Stage]:
        """ "><img src=x onerror=alert(2)>"""
        return []

    name = "<img src=x onerror=alert(1)>"
    monkeypatch.setitem(sw.CURRICULA, "named", named)
    monkeypatch.setitem(sw.CURRICULA, name, lambda exp: [])
    monkeypatch.setitem(sw.CURRICULA, 5, lambda exp: [])  # type: ignore[index]
    form = Form(sw.Experiment.preset("toy"))
    form.field("curriculum").value = "named"
    assert "onerror=alert(2)" in form.field("curriculum").tooltip
    assert "<img" not in form.field("curriculum").description
    form.field("curriculum").value = name
    assert "cannot be the name of an entry" in form.problems[0].text
    form.field("optim.lr").value = "<b>"
    assert "<img" not in form.message("curriculum") + form.message("")
    assert "&lt;b&gt;" in form.message("optim.lr")
    assert "<img" not in form.field("curriculum").description
    form.field("curriculum").value = "5"
    assert [p.path for p in form.problems] == ["curriculum", "optim.lr"]
