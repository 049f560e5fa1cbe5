"""Every folder of studies/ can be run, was predicted, and is drawn from its result alone."""

import math
import re

import numpy as np
import pandas as pd
import pytest

import stackwise as sw

NUMBERS = range(1, 10)
HALF_HOUR = 6 * 2e13  # FLOPs: parameters times tokens of 2e13, on two quiet cores
KINDS = {"flops", "tokens", "tuning", "measured"}
COLUMNS = {"study", "kind", "arm", "is_control", "seed", "hash", "lr", "flops", "bits_per_byte"}


@pytest.fixture(params=NUMBERS)
def folder(request, common):
    return common.folders()[request.param - 1]


def beside(number: int, module, made: pd.DataFrame) -> list[dict]:
    """What a study measures beside its runs, made up."""
    seeds = sorted(set(made[made["kind"] != "tuning"]["seed"]))
    if number == 1:
        bits = {"zlib": 2.5, "bz2": 1.8, "xz": 1.9, module.PPMD_NAME: module.PPMD}
        return [{"arm": name, "bits_per_byte": value} for name, value in bits.items()]
    if number == 6:
        numbers = {"loss": 2.0, "loss_noise": 0.1, "gradient_noise": 2.0, "draw_frac": 0.01}
        return [{"arm": s, "seed": n, **numbers} for n in seeds for s in module.SAMPLINGS]
    if number == 7:
        return [{"arm": name, "kv_bytes": 1 << 12} for name in made["arm"].unique()]
    if number == 8:
        asked = [(name, n) for name in module.METHODS for n in module.STEPS]
        asked += [(module.EXACT, 64), (module.REAL, 64)]
        numbers = {"expected": 1.9, "impossible_frac": 0.0, "entropy": 2.0, "pooled_entropy": 2.6}
        return [
            {"arm": name, "seed": seed, "steps": steps, "nats": 2 + 1 / steps, **numbers}
            for seed in seeds
            for name, steps in asked
        ]
    return []


@pytest.fixture
def result(folder, common, made_up):
    """A made-up result of the study, as it would be read from its file."""
    module, made = common.figure_of(folder), made_up(common.studies_of(folder))
    rows = beside(int(folder.name[:2]), module, made)
    return pd.concat([made, pd.DataFrame(rows).assign(kind="measured")], ignore_index=True)


def test_there_are_the_eight_and_the_ninth(common):
    assert [int(folder.name[:2]) for folder in common.folders()] == list(NUMBERS)


def test_a_study_plans_within_its_budget(folder, common, monkeypatch):
    """And its runs lie in its own folder, as they do from the root by its file alone.

    Epochs of the first are left out: its tokenizer would have to be trained to know them.
    """
    if folder.name.startswith("01"):
        monkeypatch.setattr("stackwise.study.plan.epochs_of", lambda arm, study: (math.nan, ""))
    plans = [study.plan() for study in common.studies_of(folder)]
    assert sum(plan.flops for plan in plans) < HALF_HOUR
    assert not [row for plan in plans for row in plan.rows if row["epochs"] > 4]
    for study in common.studies_of(folder):
        assert study.folder.parent == folder / "runs"
        assert len(study.seeds) >= 3
    said = {sw.Study.load(file).placement.runs_dir for file in folder.glob("study*.yaml")}
    assert said == {f"studies/{folder.name}/runs"}


def test_what_is_judged_is_what_was_predicted(folder, common, result):
    text = (folder / "prediction.md").read_text("utf-8")
    numbered = re.findall(r"^\d+\. (.*)$", text, flags=re.MULTILINE)
    claims = common.figure_of(folder).claims(result)
    assert [claim.text for claim in claims] == numbered
    assert all(claim.held in (True, False, None) for claim in claims)
    assert "What is known" in text and "arXiv" in text and "What decides" in text


def test_a_result_alone_makes_table_and_figure(folder, common, result, tmp_path):
    module = common.figure_of(folder)
    result.to_csv(tmp_path / "result.csv", index=False)
    again = common.read(tmp_path)
    assert set(module.table(again)["arm"]) >= set(result[result["kind"] == "flops"]["arm"])
    figure = module.draw(again)
    assert figure.axes and all(axes.get_xlabel() for axes in figure.axes)


def test_a_result_is_of_the_study_that_stands_beside_it(folder, common):
    """A study that is changed after its result has another name; so have its runs."""
    if not (folder / "result.csv").exists():
        pytest.skip("not run")
    found, studies = common.read(folder), common.studies_of(folder)
    runs = found[found["kind"].isin({"flops", "tokens"})]
    assert set(found.columns) >= COLUMNS and set(found["kind"]) <= KINDS
    assert set(runs["study"]) == {study.folder.name for study in studies}
    assert set(runs["seed"]) == set(studies[0].seeds)
    assert (runs["flops"] > 0).all() and runs["bits_per_byte"].map(math.isfinite).all()
    for study in studies:
        mine = runs[(runs["study"] == study.folder.name) & (runs["kind"] == study.equal)]
        for arm in study.arms:
            for row in mine[mine["arm"] == arm.name].to_dict("records"):
                exp = arm.experiment.replace(seed=row["seed"], optim={"lr": row["lr"]})
                assert exp.hash == row["hash"]


def test_a_mean_is_below_a_bound_only_where_its_interval_says_so(common):
    from stackwise.study.statistics import paired

    clear, wide = paired([-0.10, -0.11, -0.09]), paired([-0.1, 0.1, -0.05])
    assert common.below(clear) is True and common.below(clear, -0.2) is False
    assert common.below(wide) is None and common.below(paired([-0.1, -0.1])) is None
    assert common.every(True, None) is None and common.every(None, False) is False


def test_numbers_are_compared_to_their_tolerance(common):
    old = pd.DataFrame({"arm": ["a"], "bits_per_byte": [2.0], "flops": [1e12], "seconds": [1.0]})

    def said(**changes):
        return list(common.differing(old, old.assign(**changes), common.TOLERANCE))

    assert not said(bits_per_byte=2.009, seconds=9.0, flops=1e12 * (1 + 1e-7))
    assert said(bits_per_byte=2.011)[0].startswith("bits_per_byte: 2.011 and not 2.0")
    assert said(flops=1.0001e12) and said(arm="b") and said(bits_per_byte=math.nan)
    assert said(more=1)


def test_the_trend_is_the_line_of_least_squares(common, made_up):
    """The slope of noisy gaps against numpy's fit; its error in closed form for a known line."""
    (folder,) = [f for f in common.folders() if f.name.startswith("09")]
    module, frame = common.figure_of(folder), made_up(common.studies_of(folder))
    slope, base = module.trend(frame)
    found = module.gaps(frame)
    assert (slope.mean, base) == pytest.approx(tuple(np.polyfit(found["size"], found["gap"], 1)))
    left = found["gap"] - base - slope.mean * found["size"]
    spread = ((found["size"] - found["size"].mean()) ** 2).sum()
    error = math.sqrt((left**2).sum() / 10 / spread)
    assert slope.high - slope.mean == pytest.approx(2.228 * error, rel=1e-3)  # t of 10 degrees
    assert slope.n == 12
