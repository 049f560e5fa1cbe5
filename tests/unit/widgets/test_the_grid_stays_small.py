"""The grid of 80 stages and 80 stacks, and of ten thousand stages: quick, small, and honest."""

from __future__ import annotations

import re
import time
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

import stackwise as sw
from stackwise_widgets.views import grid_html
from stackwise_widgets.views.chosen import Gap, chosen, kind_of, repetition

TOY = sw.Experiment.preset("toy")


def best_of(count, made):
    """The quickest of a few times, and what was made: others use this machine too."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        html = made()
        seconds.append(time.perf_counter() - start)
    return min(seconds), html


def test_seventy_billion_parameters_are_a_quarter_of_a_megabyte():
    plan = sw.plan("llama-2-70b", hardware="h200")
    grid = grid_html(plan.experiment, plan.placement, plan.needs.made, plan.rows)
    assert len(grid.encode()) < 250_000
    ElementTree.fromstring(grid)


def visits(cycles, order):
    exp = TOY.replace(
        curriculum={"name": "block_coordinate", "cycles": cycles, "order": order},
        budget={"tokens": 10**10},
    )
    return exp, sw.stages(exp)


def test_of_rounds_that_repeat_the_first_and_the_last_are_shown():
    exp, made = visits(1000, "left_to_right")
    assert len(made) == 4000
    html = grid_html(exp, sw.Placement(), made, ())
    shown = [int(n) for n in re.findall(r'data-stage="(\d+)"', html)]
    assert shown == [0, 1, 2, 3, 4, 3996, 3997, 3998, 3999]
    assert "… 3,991 stages, 5 to 3995, repeat stages 1 to 4 over and over" in html
    assert "3,991 stages, 5 to 3995" in html.partition("<caption>")[2], "and in the table"
    assert len(html) < 60_000


def test_of_stages_that_do_not_repeat_the_first_and_the_last_are_shown():
    exp, made = visits(1000, "random")
    html = grid_html(exp, sw.Placement(), made, ())
    shown = [int(n) for n in re.findall(r'data-stage="(\d+)"', html)]
    assert shown == [*range(64), *range(3936, 4000)]
    assert "… 3,872 stages, 64 to 3935, are left out" in html


def test_ten_thousand_stages_take_little_more_than_ten_times_a_thousand():
    one = sw.Stage(path=("s0",), active=("s0",), new=(), tokens=64)
    made = [
        one.model_copy(update={"name": str(n), "embedding": n % 97 == 0}) for n in range(10_000)
    ]
    few, _ = best_of(3, lambda: grid_html(TOY, sw.Placement(), made[:1000], ()))
    many, html = best_of(2, lambda: grid_html(TOY, sw.Placement(), made, ()))
    assert many < 25 * few
    assert len(html) < 250_000
    assert "stages 0 to 96" not in html, "two rounds of 97 are more than there is room for"
    assert "9,872 stages, 64 to 9935, are left out" in html


KINDS = st.lists(st.integers(0, 2), min_size=1, max_size=40)


@given(KINDS, KINDS, st.integers(1, 12))
def test_what_is_said_to_repeat_does(before, round_, times):
    kinds = [*before, *round_ * times]
    start, period = repetition(kinds)
    assert all(kinds[i] == kinds[i + period] for i in range(start, len(kinds) - period))
    if times >= 2:
        assert start + 2 * period <= len(before) + 2 * len(round_)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(4, 40))
def test_every_stage_is_shown_or_counted_as_left_out(before, times, most):
    own = [sw.Stage(path=(f"s{n}",), new=()) for n in range(before)]
    made = [*own, *[sw.Stage(path=("s0", "s1"), new=()), sw.Stage(path=("s0",), new=())] * times]
    found = chosen(made, most)
    numbers = [
        n
        for entry in found
        for n in (range(entry.first, entry.last + 1) if isinstance(entry, Gap) else [entry])
    ]
    assert numbers == list(range(len(made)))
    assert sum(not isinstance(entry, Gap) for entry in found) <= max(most, 4)
    for gap in (entry for entry in found if isinstance(entry, Gap) and "repeat" in entry.words):
        round_ = [kind_of(made[gap.first - 2]), kind_of(made[gap.first - 1])]
        assert {kind_of(made[n]) for n in range(gap.first, gap.last + 1)} <= set(round_)
