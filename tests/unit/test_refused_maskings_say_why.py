"""The matrix of objective, schedule, bands and sampling: what it allows, and why not the rest."""

from itertools import product
from types import SimpleNamespace

import pytest

from stackwise.masking import MATRIX, check_masking
from stackwise.schedules import SCHEDULES, schedule_kind


@pytest.fixture
def problems(params):
    def check(objective, schedule=None, bands=None, sampling="antithetic", stacks=3):
        chosen = params.schedule(schedule) if schedule else None
        masking = SimpleNamespace(schedule=chosen, bands=bands, sampling=sampling)
        return check_masking(params.objective(objective), masking, stacks)

    return check


def test_exactly_the_matrix_is_allowed(problems):
    kinds = {name: schedule_kind(name) for name in SCHEDULES}
    samplings = ("antithetic", "iid", "stratified_k")
    for objective, name, bands, sampling in product(
        ("clm", "mlm", "diffusion"), SCHEDULES, (None, "linear"), samplings
    ):
        allowed = any(
            row.objective == objective
            and row.schedule in (name, kinds[name])
            and (bands is not None) in row.bands
            and sampling in row.sampling
            for row in MATRIX
        )
        assert allowed == (problems(objective, name, bands, sampling) == [])


def test_the_defaults_of_every_objective_are_allowed(problems):
    assert [problems(objective) for objective in ("clm", "mlm", "diffusion")] == [[], [], []]
    assert problems("diffusion", sampling="stratified_k") == []
    assert problems("diffusion", bands=(0.2, 0.7)) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"objective": "diffusion", "schedule": "ramp"},
            "masking.schedule: ramp does not go with objective=diffusion; "
            "use linear, cosine, polynomial, geometric",
        ),
        (
            {"objective": "mlm", "schedule": "cosine"},
            "masking.schedule: cosine does not go with objective=mlm; use constant, ramp",
        ),
        (
            {"objective": "clm", "schedule": "linear"},
            "masking.schedule: linear does not go with objective=clm; "
            "it masks nothing; leave it empty",
        ),
        (
            {"objective": "mlm", "bands": "equal_mass"},
            "masking.bands: equal_mass does not go with objective=mlm; "
            "leave it empty or use objective=diffusion",
        ),
        (
            {"objective": "clm", "sampling": "iid"},
            "masking.sampling: iid does not go with objective=clm, which draws no diffusion times; "
            "leave it at antithetic",
        ),
        (
            {"objective": "diffusion", "schedule": "cosine", "sampling": "stratified_k"},
            "masking.sampling: stratified_k goes with schedule=linear and no bands, since it draws "
            "the number of masked tokens itself; use those, or antithetic",
        ),
        (
            {"objective": "diffusion", "bands": (0.5,)},
            "masking.bands: 1 inner edges for rack.stacks=3; give 2, one between each two stacks",
        ),
        (
            {"objective": "diffusion", "bands": (0.5, 0.5)},
            "masking.bands: (0.5, 0.5) must rise strictly inside 0 and 1, as in (0.25, 0.5, 0.75)",
        ),
    ],
)
def test_each_refusal_names_value_rule_and_way_out(given, expected, problems):
    assert problems(**given) == [expected]


def test_all_problems_come_at_once(problems):
    found = problems("clm", "ramp", "linear", "iid")
    assert [line.split(":")[0] for line in found] == [
        "masking.schedule",
        "masking.bands",
        "masking.sampling",
    ]


def test_an_objective_of_the_users_own_is_let_through():
    masking = SimpleNamespace(schedule=None, bands=None, sampling="iid")
    assert check_masking(SimpleNamespace(choice="mine"), masking, 3) == []
