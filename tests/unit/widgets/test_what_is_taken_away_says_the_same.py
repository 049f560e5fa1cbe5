"""Python, command line and YAML of an experiment give it back, whatever it is a change of."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stackwise as sw
from stackwise.cli.settings import settings
from stackwise_widgets.said import as_command, as_python, as_yaml

CHANGES = [
    {},
    {"attention": {"kind": "mla", "kv_rank": 8}},
    {"attention": {"kind": "kernel", "features": 32}},
    {"curriculum": {"name": "grow", "by": "one"}},
    {"curriculum": {"name": "left_to_right", "split": (1.0, 2.0, 3.0, 4.0)}},
    {"masking": {"schedule": "polynomial:3"}},
    {"curriculum": "right_to_left", "masking": {"bands": (0.2, 0.5, 0.7)}},
    {"budget": {"tokens": 500_000}},
    {"optim": {"ema": None, "lr": 3e-4, "clip": None}},
    {"data": {"corpus": "text:My 'own' book, 1.txt"}},
    {"data": {"corpus": {"kind": "markov", "size_bytes": 12345}, "tokenizer": "bpe:300"}},
    {"title": "on", "seed": 7},
    {"title": "1e5"},
    {"objective": "mlm", "masking": {"schedule": "ramp"}},
]
PLACES = [{}, {"micro_batch": 4, "checkpointing": True}, {"runs_dir": "my runs", "threads": 2}]


@pytest.mark.parametrize("placed", PLACES)
@pytest.mark.parametrize("change", CHANGES)
def test_python_gives_it_back(change, placed, monkeypatch) -> None:
    exp, place = sw.Experiment.preset("toy").replace(**change), sw.Placement(**placed)
    seen = []
    monkeypatch.setattr(sw, "launch", lambda *args: seen.append(args), raising=False)
    exec(compile(as_python(exp, place), "said", "exec"), {})
    assert seen == [(exp, place)]


@pytest.mark.parametrize("placed", PLACES)
@pytest.mark.parametrize("change", CHANGES)
def test_a_command_line_gives_it_back(change, placed, tmp_path, monkeypatch) -> None:
    exp, place = sw.Experiment.preset("toy").replace(**change), sw.Placement(**placed)
    monkeypatch.chdir(tmp_path)
    program, command, source, *changes = shlex.split(as_command(exp, place))
    assert (program, command) == ("stackwise", "launch")
    if source.endswith(".yaml"):
        (tmp_path / source).write_text(exp.to_yaml())
    found, where = settings(source, changes)
    assert found == exp
    assert where.model_dump() == place.model_dump()


@pytest.mark.parametrize("name", sw.presets())
def test_yaml_gives_every_preset_back(name, tmp_path) -> None:
    exp, place = sw.Experiment.preset(name), sw.Placement.preset(name)
    (tmp_path / "mine.yaml").write_text(as_yaml(exp, place))
    found, where = settings(str(tmp_path / "mine.yaml"), [])
    assert (found, where.model_dump()) == (exp, place.model_dump())
    assert as_command(exp, place) == f"stackwise launch {name}"


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**31 - 1),
            "optim": st.fixed_dictionaries(
                {"lr": st.floats(1e-9, 10, exclude_min=True), "beta1": st.floats(0, 0.999)}
            ),
            "rack": st.fixed_dictionaries({"init_std": st.floats(1e-6, 1)}),
        },
    )
)
def test_no_digit_of_a_number_is_lost(change) -> None:
    exp = sw.Experiment.preset("toy").replace(**change)
    *_, source = as_command(exp, sw.Placement()).split(" ", 2)
    name, *changes = shlex.split(source)
    assert settings(name, changes)[0] == exp
