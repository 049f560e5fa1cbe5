"""What studies find out of their runs beside the loss, on racks that have hardly trained."""

import pytest
import torch

import stackwise as sw

TINY = {
    "rack": {"blocks_per_stack": 1, "d_model": 8, "heads": 2, "kv_heads": None, "d_ff": 8},
    "data": {"seq_len": 8},
    "optim": {"batch": 2},
    "eval": {"points": 1, "windows": 2, "depths": "last", "final": 8},
}


@pytest.fixture
def tiny(common, folder_of, tmp_path):
    """A study of the folder with tiny racks and one step, and its figure.py."""

    def make(number: int, **changes):
        folder = folder_of(number)
        (study,) = common.studies_of(folder)
        small = {"budget": {"tokens": 16}, **TINY}
        place = study.placement.replace(runs_dir=tmp_path)
        arms = {arm.name: arm.experiment.replace(**small) for arm in study.arms[1:]}
        base = study.base.replace(**small)
        asked = {"seeds": [0], "lr_grid": None, "same_bytes": False, "equal": "tokens", **changes}
        made = sw.Study(base, more=arms, name=study.arms[0].name, placement=place, **asked)
        return made, common.figure_of(folder)

    return make


def test_noise_of_times_is_measured_at_the_racks_that_were_trained(tiny, common):
    study, module = tiny(6)
    module.LOSSES, module.GRADIENTS = 6, 3
    assert not common.finished(study)
    study.run()
    assert common.finished(study)
    frame = module.measure([study])
    rows = frame[frame["kind"] == "measured"]
    assert list(rows["arm"]) == list(module.SAMPLINGS)
    assert (rows["loss_noise"] > 0).all() and (rows["draw_frac"] > 0).all()
    assert not list(
        common.differing(frame, module.measure([study]), {"draw_frac": None, **common.TOLERANCE})
    )


def test_gradient_noise_of_known_draws(common, folder_of):
    """Gradients of mean m and of deviation s in each of P parts: s sqrt(P) / |m|."""
    module = common.figure_of(folder_of(6))
    drawn = torch.randn(4000, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = module.relative_noise(2.0 * drawn + torch.ones(50))
    assert found == pytest.approx(2.0, rel=0.05)  # 5 standard errors of about 1 % and more


def test_kept_bytes_are_those_of_the_plan(tiny, common):
    study, module = tiny(
        7,
    )
    arm = study.arms[0]
    run = sw.train(arm.experiment, study.placement)
    blocks, width, tokens = 4, 8, 8
    assert module.kept_by(run) == 2 * blocks * width * tokens * 4


def test_samplers_are_scored_by_the_source(tiny, common):
    study, module = tiny(8)
    module.STEPS, module.SAMPLES = (2, 4), 3
    study.run()
    frame = module.measure([study])
    scores = module.scores(frame)
    assert len(scores) == len(module.METHODS) * 2 + 2
    assert (scores["nats"] > 0).all()
    text = scores[scores["arm"] == module.REAL].iloc[0]
    assert text["impossible_frac"] == 0
    assert text["nats"] == pytest.approx(
        text["expected"], abs=1.0
    )  # 24 tokens of about 1 nat's spread
