"""The panel takes real steps beside the main thread: forward, back, whole steps, from anew."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import stackwise as sw
from stackwise_widgets.lesson import Lesson
from stackwise_widgets.paper import PaperFigure
from stackwise_widgets.teach import Teach

NAMES = ["batch", "mask", "trunk", "active", "loss", "gradients", "update"]


@pytest.fixture(autouse=True, scope="module")
def cold():
    """Nothing of memory's peak is measured here, so that warming up for it would be for nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stackwise.memory.meter.warm_up", lambda device: None)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> sw.Run:
    exp = sw.Experiment(
        title="tiny",
        rack={"stacks": 3, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 24 * 4 * 16},
        curriculum="left_to_right",
        eval={"points": 1, "windows": 4, "draws": 1},
    )
    folder = tmp_path_factory.mktemp("runs")
    return sw.train(exp, sw.Placement(runs_dir=str(folder), device="cpu", threads=1))


@pytest.fixture
def teach(run):
    panel = Teach(run, 1)
    assert panel.settle() and not panel.errors
    yield panel
    panel.close()


def forward(teach: Teach, times: int = 1) -> None:
    for _ in range(times):
        teach.buttons["step"].click()
        assert teach.settle()


def test_each_click_is_a_phase_and_the_panel_says_which(teach) -> None:
    assert teach.phase is None and "Ready" in teach.told.value
    for name in NAMES:
        forward(teach)
        assert teach.phase.name == name
        assert teach.phase.words.split()[0] in teach.told.value
    assert teach.errors == []


def test_its_losses_are_those_that_the_run_recorded(teach, run) -> None:
    recorded = run.metrics()
    recorded = recorded[recorded["stage"] == 1]["loss"].tolist()
    for loss in recorded[:3]:
        teach.buttons["next"].click()
        assert teach.settle()
        assert teach.phase.loss == loss
        assert "the same to the last bit" in teach.parts["losses"].value
    assert [value for _, value in teach.lesson.losses] == recorded[:3]


def test_back_shows_what_was_seen_and_forward_computes_nothing_twice(teach) -> None:
    forward(teach, 9)
    seen, step = list(teach.lesson.seen), teach.lesson.stepper.step
    for phase in reversed(seen[:-1]):
        teach.buttons["back"].click()
        assert teach.settle()
        assert teach.phase is phase
    teach.buttons["back"].click()
    assert teach.settle() and teach.phase is None
    forward(teach, 9)
    assert teach.phase is seen[-1] and len(teach.lesson.seen) == 9
    assert teach.lesson.stepper.step == step


def test_looking_back_hides_the_numbers_that_came_later(teach) -> None:
    forward(teach, 7)
    assert "moved by exactly 0" in teach.parts["picture"].value
    assert len(teach.lesson.losses) == 1 and "step 1 to 1" in teach.parts["losses"].value
    for _ in range(3):
        teach.buttons["back"].click()
    assert teach.settle() and teach.phase.name == "active"
    assert "moved by exactly 0" not in teach.parts["picture"].value
    assert "is drawn here" in teach.parts["losses"].value


def test_reset_stands_at_the_start_and_gives_the_same_step(teach) -> None:
    teach.buttons["next"].click()
    assert teach.settle()
    loss = teach.phase.loss
    teach.buttons["reset"].click()
    assert teach.settle() and teach.phase is None and not teach.lesson.losses
    teach.buttons["next"].click()
    assert teach.settle() and teach.phase.loss == loss


def test_another_stage_begins_where_the_one_before_ended(teach, run) -> None:
    teach.stage.value = 2
    assert teach.settle() and teach.phase is None
    assert "the one before it ended with" in teach.parts["notes"].value
    teach.buttons["next"].click()
    assert teach.settle()
    recorded = run.metrics()
    assert teach.phase.loss == recorded[recorded["stage"] == 2]["loss"].iloc[0]


def test_another_seed_is_another_training_and_no_record_of_the_run(teach) -> None:
    teach.seed.value = 3
    assert (
        teach.settle()
        and "The seed is 3; that of the experiment is 0" in teach.parts["notes"].value
    )
    teach.buttons["next"].click()
    assert teach.settle()
    assert teach.lesson.stepper.exp.seed == 3
    assert "recorded" not in teach.parts["losses"].value
    teach.seed.value = 0
    assert teach.settle() and teach.lesson.stepper.exp.seed == 0


def test_a_seed_that_orders_the_stages_anew_shows_its_own() -> None:
    exp = sw.Experiment(
        title="tiny",
        rack={"stacks": 4, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 16 * 4 * 16},
        curriculum={"name": "block_coordinate", "order": "random"},
    )
    seed = next(n for n in range(1, 99) if first(exp, n) != first(exp, 0))
    teach = Teach(exp)
    try:
        teach.seed.value = seed
        teach.next_step()
        assert teach.settle() and teach.errors == []
        assert first(exp, seed) in teach.phase.parts
        box = f'data-box="{first(exp, seed)}" data-state="active"'
        assert box in teach.parts["picture"].value
    finally:
        teach.close()


def first(exp: sw.Experiment, seed: int) -> str:
    """The stack that trains first under a seed."""
    return sw.stages(exp.replace(seed=seed))[0].active[0]


def test_a_stage_ends_and_says_so(teach) -> None:
    for _ in range(teach.lesson.stepper.steps + 1):
        teach.buttons["next"].click()
        assert teach.settle()
    assert "The stage ends here" in teach.told.value
    last = teach.phase
    forward(teach)
    assert teach.phase is last and teach.errors == []


def test_another_sample_shows_its_tokens(teach) -> None:
    forward(teach, 2)
    first = teach.parts["tokens"].value
    teach.sample.value = 3
    assert "Sample 3 of 4" in teach.parts["tokens"].value != first


def test_its_code_takes_the_same_steps(teach, capsys) -> None:
    teach.buttons["next"].click()
    forward(teach, 3)
    exec(compile(teach.code(), "code", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{phase.name}: {phase.words}" for phase in teach.lesson.seen]


def test_code_of_an_experiment_makes_it_again(capsys) -> None:
    exp = sw.Experiment.preset("toy").replace(
        rack={"d_model": 16}, data={"corpus": {"kind": "markov"}, "seq_len": 16}, seed=2
    )
    teach = Teach(exp, placement=sw.Placement(micro_batch=4))
    try:
        forward(teach, 5)
        exec(compile(teach.code(), "code", "exec"), {})
        assert f"loss: {teach.phase.words}" in capsys.readouterr().out
        assert "micro_batch=4" in teach.code()
    finally:
        teach.close()


def test_data_has_a_row_for_each_phase(teach) -> None:
    teach.buttons["next"].click()
    assert teach.settle()
    data = teach.data()
    assert data["phase"].tolist() == NAMES
    update, phase = data.iloc[-1], teach.phase
    assert (update["loss"], update["grad_norm"]) == (phase.loss, phase.grad_norm)
    assert update["change.s0.0"] == 0 < update["change.s1.0"]
    assert np.isnan(update["gradient.s0.0"]) and update["gradient.s1.0"] > 0
    assert np.isnan(data["loss"].iloc[0]) and data["kept_bytes"].iloc[2] == 0


def test_the_figure_is_of_the_last_whole_step(teach) -> None:
    with pytest.raises(ValueError, match="no step is whole yet"):
        teach.figure()
    teach.buttons["next"].click()
    forward(teach, 2)
    figure = teach.figure()
    assert isinstance(figure, PaperFigure) and figure._repr_png_()[:4] == b"\x89PNG"
    assert "stage 1, step 1 of" in figure.get_suptitle()
    whole = teach.lesson.seen[len(NAMES) - 1]
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [value or 0.0 for value in whole.grad_norms.values()]


def test_the_run_is_only_read_and_nothing_is_left_after_closing(run) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file()}
    teach = Teach(run, 2)
    teach.next_step()
    assert teach.settle()
    folder = teach.lesson.stepper._run.path
    teach.close()
    assert not folder.exists() and teach.lesson.stepper is None
    assert before == {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file()}
    assert not [t for t in threading.enumerate() if "taking a step" in t.name]


def test_what_goes_wrong_is_a_card_and_reset_begins_again(teach) -> None:
    forward(teach)
    for parameter in teach.lesson.stepper.rack.stacks["s1"].parameters():
        parameter.data.fill_(float("nan"))
    teach.buttons["next"].click()
    assert teach.settle()
    assert len(teach.errors) == 1 and "the loss is nan" in teach.guard.card.value
    teach.buttons["reset"].click()
    assert teach.settle() and teach.guard.card.value == ""
    teach.buttons["next"].click()
    assert teach.settle() and teach.phase.name == "update" and len(teach.errors) == 1


def test_stages_that_take_long_are_cut_short_and_said() -> None:
    lesson = Lesson(sw.Experiment.preset("toy").replace(curriculum="left_to_right"))
    led = []
    try:
        lesson.begin(1, None, lambda done, of: led.append((done, of)))
        assert led[-1] == (20, 20) and not lesson.is_record
        assert any("younger than those of a whole run" in note for note in lesson.stepper.notes)
    finally:
        lesson.close()
