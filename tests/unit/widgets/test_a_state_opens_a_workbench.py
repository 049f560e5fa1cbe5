"""What a workbench opens with: a preset changed by a few keys, or an experiment in full."""

import re

import pytest

import stackwise as sw
from stackwise_widgets import Workbench
from stackwise_widgets.workbench_state import State, opened, read_state, write_state


def test_an_experiment_changes_the_preset_that_is_named() -> None:
    state = State(preset="toy", experiment={"curriculum": "right_to_left", "optim.lr": 0.002})
    experiment, placement = opened(state)
    assert experiment == sw.Experiment.preset("toy").replace(
        curriculum="right_to_left", optim={"lr": 0.002}
    )
    assert placement == sw.Placement.preset("toy")


def test_so_does_a_placement() -> None:
    state = State(preset="405b", placement={"micro_batch": 2})
    experiment, placement = opened(state)
    assert experiment == sw.Experiment.preset("405b")
    assert placement == sw.Placement.preset("405b").replace(micro_batch=2)
    assert placement.trunk == "streamed"  # the preset's own


def test_without_a_preset_an_experiment_is_what_it_says_and_the_usual_rest() -> None:
    assert opened(State()) == (sw.Experiment(), sw.Placement())
    whole = sw.Experiment.preset("small")
    experiment, placement = opened(State(experiment=whole.model_dump(mode="json")))
    assert experiment == whole and placement == sw.Placement()


def test_a_state_is_read_as_it_was_written(tmp_path) -> None:
    state = State(preset="toy", experiment={"seed": 3}, hide=("Compare",))
    write_state(tmp_path / "lesson.yaml", state)
    assert read_state(tmp_path / "lesson.yaml") == state
    write_state(tmp_path / "old.yaml", State(experiment={"seed": 3}))
    assert "preset" not in (tmp_path / "old.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("preset: toyy", "preset: unknown preset 'toyy'; did you mean 'toy'? known: 1b, 405b"),
        ("preset: 8", "preset: 8 is not text"),
        ("preset: ../toy", "preset: unknown preset '../toy'; did you mean 'toy'?"),
        ("presett: toy", "presett: unknown key; did you mean 'preset'?"),
        ("panel: Inspct", "panel: unknown panel 'Inspct'; did you mean 'Inspect'?"),
        ("{preset: toy, experiment: {optim: {lr: fast}}}", "optim.lr: 'fast' is not a number"),
        ("{preset: toy, placement: {micro_bach: 1}}", "micro_bach: unknown key; did you mean"),
    ],
)
def test_what_is_wrong_names_the_file_and_the_key(tmp_path, text, said) -> None:
    file = tmp_path / "lesson.yaml"
    file.write_text(text)
    with pytest.raises(sw.ExperimentError, match=re.escape(said)) as error:
        Workbench(state=file, warm=False)
    assert str(error.value).startswith(f"{file}: ")


def test_a_workbench_opens_the_preset_and_knows_what_was_changed(tmp_path) -> None:
    file = tmp_path / "lesson.yaml"
    file.write_text("{preset: toy, experiment: {curriculum: right_to_left}, panel: run}")
    bench = Workbench(state=file, warm=False)
    assert bench.design.settle() and bench.errors == []
    toy = sw.Experiment.preset("toy").replace(curriculum="right_to_left")
    assert bench.experiment == toy and bench.shown[bench.tab.selected_index] == "Run"
    assert bench.design.placement == sw.Placement.preset("toy")
    assert "1 knob changed from preset toy" in str([w.value for w in labels(bench.design.form)])
    bench.design.close()


def labels(box):
    """Every widget below a box that shows text."""
    for child in getattr(box, "children", ()):
        yield from labels(child)
        if isinstance(getattr(child, "value", None), str):
            yield child
