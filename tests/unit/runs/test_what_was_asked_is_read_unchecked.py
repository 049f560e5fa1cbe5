"""experiment.yaml is read as it is written, of any version, for lists of runs."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.runs import RunError
from stackwise.runs.asked import asked_of, flat, same_but_for_seed


@pytest.mark.parametrize("name", sw.presets())
def test_it_is_what_the_experiment_says(made, name) -> None:
    exp = sw.Experiment.preset(name)
    assert asked_of(made(experiment=exp.to_yaml())) == exp.model_dump(mode="json")


def test_another_version_is_read_too(made) -> None:
    run = made(experiment="schema_version: 7\nnovel: {knob: [1, 2]}\n")
    assert flat(asked_of(run)) == {"schema_version": 7, "novel.knob": [1, 2]}


def test_seeds_of_one_experiment_are_alike() -> None:
    base = sw.Experiment()
    texts = {same_but_for_seed(base.replace(seed=n).model_dump(mode="json")) for n in range(3)}
    assert len(texts) == 1
    other = base.replace(optim={"lr": 0.5}).model_dump(mode="json")
    assert same_but_for_seed(other) not in texts


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "!!python/object:os.system {}", "a: " * 9])
def test_what_is_no_mapping_is_damaged(made, text) -> None:
    with pytest.raises(RunError) as error:
        asked_of(made(experiment=text))
    assert str(error.value) == (
        "run toy-1234abcd: experiment.yaml is damaged; restore it from a copy of the run, or train "
        "again (rerun=True, --rerun)"
    )


def test_a_missing_or_unreadable_file_is_named(made) -> None:
    run = made()
    (run.path / "experiment.yaml").write_bytes(b"\xff")
    with pytest.raises(RunError, match=r"experiment\.yaml cannot be read: "):
        asked_of(run)
    (run.path / "experiment.yaml").unlink()
    with pytest.raises(RunError, match=r"experiment\.yaml is missing; restore it"):
        asked_of(run)
