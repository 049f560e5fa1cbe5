"""Seeds of one experiment are their mean in a band; a run whose loss is no whole bound has none."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from stackwise.runs.events import read_events
from stackwise_widgets.charts import overlay, overlay_data


def lines(figure) -> dict[str, dict[float, float]]:
    return {
        t.name: dict(zip(t.x.tolist(), t.y.tolist(), strict=True))
        for t in figure.data
        if t.mode == "lines+markers"
    }


def scale_looks(run, factor: float, flops: float = 1.0) -> None:
    path = run.path / "events.jsonl"
    events = read_events(path)
    for event in events:
        if event["kind"] in ("eval", "result"):
            event["bits_per_byte"] *= factor
            event["flops"] *= flops
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


@pytest.fixture
def seeds(trained, asked):
    """Three seeds of an experiment, the second 10 % worse, the third dearer; and another one."""
    runs = [trained(f"seed-{n}", exp=asked(seed=n)) for n in range(3)]
    scale_looks(runs[1], 1.1)
    scale_looks(runs[2], 1.0, flops=1.3)
    return [*runs, trained("other", exp=asked(optim={"lr": 0.5}))]


def test_the_line_is_the_mean_and_the_band_the_range(seeds) -> None:
    figure = overlay(seeds)
    drawn = lines(figure)
    assert set(drawn) == {"lr 0.002 (3 seeds)", "lr 0.5"}
    looks = seeds[0].evals()
    mean = dict(zip(looks["flops"] * 1.1, looks["bits_per_byte"] * 3.1 / 3, strict=True))
    found = drawn["lr 0.002 (3 seeds)"]
    assert list(found) == pytest.approx(list(mean))
    assert list(found.values()) == pytest.approx(list(mean.values()))
    (band,) = [t for t in figure.data if t.fill == "toself"]
    half = len(looks)
    assert band.y[:half].tolist() == pytest.approx((looks["bits_per_byte"] * 1.1).tolist())
    assert band.y[half:].tolist() == pytest.approx(looks["bits_per_byte"].tolist()[::-1])


def test_seeds_can_be_drawn_by_themselves(seeds) -> None:
    figure = overlay(seeds, x="steps", seeds_band=False)
    drawn = lines(figure)
    assert list(drawn) == [*(f"lr 0.002, seed {n}" for n in range(3)), "lr 0.5"]
    assert not [t for t in figure.data if t.fill == "toself"]
    looks = seeds[1].evals()
    expected = dict(zip(looks["step"].astype(float), looks["bits_per_byte"], strict=True))
    assert drawn["lr 0.002, seed 1"] == expected


@pytest.mark.filterwarnings("ignore:run .* events.jsonl is damaged")
def test_a_look_that_one_seed_lacks_is_in_no_mean(seeds) -> None:
    path = seeds[0].path / "events.jsonl"
    kept = [line for line in path.read_text().splitlines(keepends=True) if '"step": 8,' not in line]
    path.write_text("".join(kept))
    found = lines(overlay(seeds, x="steps"))["lr 0.002 (3 seeds)"]
    assert math.isnan(found[8.0]) and not math.isnan(found[10.0])


@pytest.mark.parametrize("unit", ["flops", "steps", "tokens", "seconds"])
def test_every_axis_puts_looks_where_they_were(shipped, unit) -> None:
    figure = overlay(shipped.values(), x=unit)
    drawn = lines(figure)
    column = {"steps": "step"}.get(unit, unit)
    for name in ("left_to_right", "grow", "end_to_end"):
        looks = shipped[name].evals()
        assert list(drawn[name]) == looks[column].astype(float).tolist()
        assert list(drawn[name].values()) == looks["bits_per_byte"].tolist()


def test_a_run_in_noise_bands_shows_its_final_score_alone(shipped) -> None:
    figure = overlay(shipped.values())
    assert "right_to_left" not in lines(figure)
    (final,) = [t for t in figure.data if t.name == "right_to_left"]
    result = shipped["right_to_left"].result()
    assert (final.x.tolist(), final.y.tolist()) == ([result["flops"]], [result["bits_per_byte"]])
    assert "noise band, or of mlm: right_to_left" in figure.layout.annotations[0].text


def test_against_its_peak_each_experiment_is_a_point(seeds) -> None:
    figure = overlay(seeds, x="peak_bytes")
    assert [t.mode for t in figure.data] == ["markers", "markers"]
    many, one = figure.data
    assert (many.x.tolist(), one.x.tolist()) == ([9000 / 1024], [9000 / 1024])
    assert many.y[0] == pytest.approx(1.5 * 3.1 / 3) and one.y[0] == 1.5
    assert many.error_y.array[0] == pytest.approx(1.5 * 1.1 - 1.5 * 3.1 / 3)
    assert figure.layout.xaxis.title.text == "peak memory in training, KiB"


def test_the_data_hold_every_number_that_is_drawn(shipped) -> None:
    data = overlay_data(shipped.values())
    for run in shipped.values():
        mine = data[data["run"] == run.id]
        looks = mine[mine["kind"] == "heldout"]
        bits = run.evals()["bits_per_byte"].astype(float)
        np.testing.assert_array_equal(looks["bits_per_byte"], bits)
        np.testing.assert_array_equal(looks["tokens"], run.evals()["tokens"])
        final = mine[mine["kind"] == "final"].iloc[0]
        assert final["bits_per_byte"] == run.result()["bits_per_byte"]
        assert final["peak_bytes"] == run.result()["peak_bytes"]


def test_an_unknown_axis_names_those_there_are(shipped) -> None:
    with pytest.raises(ValueError) as error:
        overlay(shipped.values(), x="hours")
    said = "x: 'hours' is not one of flops, steps, tokens, seconds, peak_bytes"
    assert str(error.value) == said


def test_what_people_call_a_run_names_its_curve_and_is_escaped(trained, asked) -> None:
    run = trained("a")
    (run.path / "labels.json").write_text('{"name": "<b>mine</b>"}')
    figure = overlay([run, trained("b", exp=asked(optim={"lr": 0.5}))])
    assert set(lines(figure)) == {"&lt;b&gt;mine&lt;/b&gt;", "lr 0.5"}


def fork_of(run, after_stage: int, weights: str) -> None:
    """Let a run say that it is a fork."""
    path = run.path / "provenance.json"
    facts = run.provenance()
    facts["forked"] = {"run": "<a>", "after_stage": after_stage, "weights": weights}
    path.write_text(json.dumps(facts | {"notes": []}))


def test_a_fork_is_a_seed_of_forks_from_the_same_place_alone(trained, asked) -> None:
    runs = {name: trained(name, exp=asked(seed=n)) for n, name in enumerate("abcdef")}
    for name, stage, weights in (("c", 0, "w"), ("d", 0, "w"), ("e", 1, "w"), ("f", 0, "v")):
        fork_of(runs[name], stage, weights)
    whole, *forks = (set(rows["run"]) for _, rows in overlay_data(runs.values()).groupby("label"))
    groups = [whole, *forks]
    assert sorted(map(sorted, groups)) == [["a", "b"], ["c", "d"], ["e"], ["f"]]
    drawn = lines(overlay(runs.values()))
    assert len(drawn) == 4 and any("after stage 1 of &lt;a&gt;" in name for name in drawn)
