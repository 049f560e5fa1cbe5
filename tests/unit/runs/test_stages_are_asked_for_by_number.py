"""Which stages may be launched: those of the run, without a gap after what is done."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stackwise.detached.launch import last_of
from stackwise.errors import ExperimentError


def run(done: int, count: int = 4) -> SimpleNamespace:
    return SimpleNamespace(stages=lambda: [{}] * count, stages_done=lambda: done)


@pytest.mark.parametrize(
    ("done", "asked", "last"),
    [(0, None, None), (0, [0], 0), (0, [1, 0], 1), (1, [1], 1), (1, [0, 1], 1), (2, [0], 0),
     (0, "next", 0), (3, "next", 3), (1, (1, 2, 3), 3)],
)  # fmt: skip
def test_the_last_of_them_is_where_it_stops(done, asked, last) -> None:
    assert last_of(run(done), asked) == last


@pytest.mark.parametrize(
    ("done", "asked", "said"),
    [
        (0, [1], "stages: 1 comes after 0, and none is done; give stages=[0, 1]"),
        (1, [3], "stages: 3 comes after 1, and stages 0 to 0 are done; give stages=[1, 2, 3]"),
        (0, [4], "stages: 4 is no stage; there are 0 to 3"),
        (0, [-1], "stages: -1 is no stage; there are 0 to 3"),
        (0, [True], "stages: True is no stage; there are 0 to 3"),
        (0, ["next", 1], "stages: 'next' is no stage; there are 0 to 3"),
        (0, [], "stages: none given; name some, or leave it out for all"),
    ],
)
def test_what_leaves_a_gap_is_refused(done, asked, said) -> None:
    with pytest.raises(ExperimentError) as error:
        last_of(run(done), asked)
    assert str(error.value) == said
