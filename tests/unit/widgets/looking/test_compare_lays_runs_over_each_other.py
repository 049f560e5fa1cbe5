"""The picture of the runs that are ticked: its numbers, its axes, its remarks, its figures."""

import shutil
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import stackwise as sw
from stackwise_widgets.charts import comparable, overlay_data
from stackwise_widgets.compare import AXES, Compare
from stackwise_widgets.comparison.picture import overlay_html

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def panel(runs):
    panel = Compare(runs)
    assert panel.wait(60)
    yield panel
    assert panel.errors == []


def lines_of(html):
    svg = ElementTree.fromstring(html).find(f".//{SVG}svg")
    return {g.get("data-line"): g for g in svg.iter(f"{SVG}g") if g.get("data-line")}


def test_finished_runs_are_ticked_at_first_and_drawn(panel):
    assert len(panel.selected) == 4
    assert set(lines_of(panel._picture.value)) == set(panel.curves()["label"])


def test_what_is_ticked_is_what_is_drawn(panel):
    panel.select("shipped-grow", "shipped-end")
    panel.wait(60)
    assert [run.id.split("-")[1] for run in panel.selected] == ["grow", "end_to_end"]
    assert set(lines_of(panel._picture.value)) == {"grow", "end_to_end"}
    panel.select()
    panel.wait(60)
    assert "Tick the runs" in panel._picture.value


def test_a_name_of_none_is_refused(panel):
    with pytest.raises(ValueError, match=r"run 'nothing': is none of those that can be ticked"):
        panel.select("nothing")
    with pytest.raises(ValueError, match=r"or several: shipped-"):
        panel.select("shipped")


@pytest.mark.parametrize("x", list(AXES.values()))
def test_every_axis_draws_its_numbers(panel, x):
    panel.axis.value = x
    html = panel._picture.value
    frame, points = panel.curves(), 0
    svg = ElementTree.fromstring(html).find(f".//{SVG}svg")
    titles = [t.text for t in svg.iter(f"{SVG}title")]
    final = frame[frame["kind"] == "final"]
    for row in final.itertuples():
        assert any(f"{row.bits_per_byte:.4f} bits per byte on all" in title for title in titles)
    points = sum("at" in title and "stage" in title for title in titles)
    looks = frame[(frame["kind"] == "heldout") & frame["bits_per_byte"].notna()]
    assert points == (0 if x == "peak_bytes" else len(looks))


def test_points_lie_where_their_numbers_are():
    data = pd.DataFrame({
        "label": "a", "run": "r", "seed": 0, "state": "finished", "kind": "heldout", "stage": 0.0,
        "steps": [10.0, 20.0, 30.0], "tokens": [1.0, 2.0, 3.0], "flops": [100.0, 200.0, 300.0],
        "seconds": 1.0, "peak_bytes": 5.0, "bits_per_byte": [3.0, 2.0, 1.0],
    })  # fmt: skip
    lines = lines_of(overlay_html(data, "flops"))
    path = next(p.get("d") for p in lines["a"].iter(f"{SVG}path") if p.get("stroke"))
    spots = np.array([[float(n) for n in part.split()] for part in path[1:].split("L")])
    # Equal steps in the numbers are equal steps in the picture, whose coordinates have two digits.
    for place in (0, 1):
        first, second = np.diff(spots[:, place])
        assert abs(first) > 20
        assert first == pytest.approx(second, abs=0.021)
    assert spots[0, 1] < spots[-1, 1]  # less loss is lower, and y counts down


def test_seeds_are_a_band_or_each_alone(runs, tmp_path):
    first = next(runs.glob("*grow*"))
    twin = shutil.copytree(first, runs / "shipped-grow-other")
    text = (twin / "experiment.yaml").read_text()
    (twin / "experiment.yaml").write_text(text.replace("\nseed: 0", "\nseed: 1"))
    panel = Compare([first, twin])
    panel.wait(60)
    (line,) = lines_of(panel._picture.value).values()
    bands = [p for p in line.iter(f"{SVG}path") if p.get("fill-opacity") == "0.2"]
    assert len(bands) == 1
    assert "2 seeds" in panel._picture.value
    panel.band.value = False
    names = set(lines_of(panel._picture.value))
    assert len(names) == 2
    assert all(name.endswith(("seed 0", "seed 1")) for name in names)
    assert panel.errors == []


def test_what_cannot_be_set_against_each_other_is_said(panel, runs):
    assert "Comparable" in panel._remarks.value
    assert panel.remarks == []
    twin = shutil.copytree(next(runs.glob("*grow*")), runs / "other-data")
    text = (twin / "provenance.json").read_text()
    found = sw.attach(twin).provenance()["data"]["fingerprint"]
    (twin / "provenance.json").write_text(text.replace(found, "ab" * 32))
    panel.refresh()
    panel.wait(60)
    panel.select("other-data", "shipped-end_to_end")
    panel.wait(60)
    assert panel.remarks == comparable([run.path for run in panel.selected])
    assert "They saw other data" in panel._remarks.value
    assert "Not comparable" in panel._remarks.value


def test_figures_show_the_same_frame(panel):
    panel.axis.value = "tokens"
    axes = panel.figure().axes[0]
    assert axes.get_xlabel() == "tokens read"
    drawn = [dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axes.lines]
    grow = panel.curves().query("kind == 'heldout' and label == 'grow'")
    assert dict(zip(grow["tokens"], grow["bits_per_byte"], strict=True)) in drawn
    assert panel.chart().layout.xaxis.title.text == "tokens read"
    assert panel.curves().equals(overlay_data([run.path for run in panel.selected]))


def test_the_code_does_the_same(panel):
    panel.axis.value = "steps"
    panel.band.value = False
    names = {}
    source = panel.code()
    *lines, last = source.strip().splitlines()
    exec("\n".join(lines), names)
    figure = eval(last, names)
    assert figure.to_json() == panel.chart().to_json()


def test_many_runs_of_many_looks_stay_small():
    """A hundred curves of two hundred looks, one of which leaps: it is still seen."""
    looks = 200
    steps = np.arange(looks, dtype=float)
    frames = [
        pd.DataFrame({
            "label": f"run {n}", "run": f"r{n}", "seed": n, "state": "finished",
            "kind": "heldout", "stage": np.floor(steps / 50), "steps": steps, "tokens": steps,
            "flops": steps, "seconds": steps, "peak_bytes": 5.0,
            "bits_per_byte": 2 + np.cos(steps / 9) / 10 + (steps == 123) * (n == 7),
        })
        for n in range(100)
    ]  # fmt: skip
    html = overlay_html(pd.concat(frames, ignore_index=True), "steps")
    assert len(html) < 600_000
    lines = lines_of(html)
    assert len(lines) == 100
    top = min(
        float(y)
        for part in lines["run 7"].iter(f"{SVG}path")
        if part.get("stroke")
        for y in (spot.split()[1] for spot in part.get("d")[1:].split("L"))
    )
    others = min(
        float(spot.split()[1])
        for part in lines["run 8"].iter(f"{SVG}path")
        if part.get("stroke")
        for spot in part.get("d")[1:].split("L")
    )
    assert top < others - 50


def test_a_redraw_sends_little(panel):
    sizes = []
    for x in AXES.values():
        panel.axis.value = x
        sizes.append(len(panel._picture.value))
    assert max(sizes) < 40_000
