"""Seeds that are not copies, an axis that fits what is drawn, looks that repeat late, a paper."""

import re
import shutil
from xml.etree import ElementTree

import pandas as pd
import pytest

from stackwise_widgets.charts import overlay
from stackwise_widgets.charts.overlaid import over_seeds, overlay_data, repeated
from stackwise_widgets.compare import Compare
from stackwise_widgets.comparison.picture import limits_of, overlay_html, placed_over
from stackwise_widgets.comparison.still import overlay_still
from stackwise_widgets.curve_looks import place_of

SVG = "{http://www.w3.org/2000/svg}"


def rows(label="a", run="r", seed=0, bits=(3.0, 2.0, 1.0), final=1.0, peak=5.0):
    """Three looks and a final score."""
    places = [100.0, 200.0, 300.0, 300.0]
    return pd.DataFrame({
        "label": label, "run": run, "seed": seed, "state": "finished",
        "kind": ["heldout"] * 3 + ["final"], "stage": 0.0, "steps": places, "tokens": places,
        "flops": places, "seconds": places, "peak_bytes": peak, "bits_per_byte": [*bits, final],
    })  # fmt: skip


def many(count):
    return pd.concat([rows(f"run {n}", f"r{n}", n) for n in range(count)], ignore_index=True)


@pytest.fixture
def copied(runs):
    """Two seeds of one experiment, the first in three copies."""
    first = next(runs.glob("*grow*"))
    for name in ("copy-a", "copy-b"):
        shutil.copytree(first, runs / name)
    twin = shutil.copytree(first, runs / "twin")
    text = (twin / "experiment.yaml").read_text()
    (twin / "experiment.yaml").write_text(text.replace("\nseed: 0", "\nseed: 1"))
    events = twin / "events.jsonl"
    events.write_text(re.sub(r'("bits_per_byte": )(\d)', r"\g<1>1\2", events.read_text()))
    return [first, runs / "copy-a", runs / "copy-b", twin]


def test_copies_of_a_run_are_no_seeds(copied):
    panel = Compare(copied)
    panel.wait(60)
    html = panel._picture.value
    assert "2 seeds" in html and "4 seeds" not in html
    assert f"is drawn already: copy-a (as {copied[0].name}), copy-b (as {copied[0].name})" in html
    assert "(2 seeds)" in str(overlay(copied).data)
    found, alone = over_seeds(panel.curves(), "flops"), overlay_data([copied[0], copied[3]])
    pd.testing.assert_frame_equal(found, over_seeds(alone, "flops"))
    panel.band.value = False
    assert html != panel._picture.value and "Left out" not in panel._picture.value
    assert panel.errors == []


def test_two_folders_of_one_name_are_one_run(runs, tmp_path):
    first = next(runs.glob("*grow*"))
    other = shutil.copytree(first, tmp_path / "elsewhere" / first.name)
    found = over_seeds(overlay_data([first, other]), "flops")
    pd.testing.assert_frame_equal(found, over_seeds(overlay_data([first]), "flops"))


def test_a_run_whose_seed_is_not_known_is_no_copy():
    data = pd.concat([rows(run="a", seed=None), rows(run="b", seed=None)], ignore_index=True)
    assert repeated(data) == {}


def test_over_peak_memory_the_axis_fits_the_scores():
    data = pd.concat([rows(bits=(6.2, 5.0, 4.1), final=4.35),
                      rows("b", "s", bits=(6.2, 5.0, 4.1), final=4.42, peak=9.0)])  # fmt: skip
    found, *_ = placed_over(data, "peak_bytes", True)
    low, high = limits_of(found, "peak_bytes")
    assert 4.2 < low < 4.35 and 4.42 < high < 4.6
    assert overlay_still(data, "peak_bytes").axes[0].get_ylim() == pytest.approx((low, high))
    marks = [
        float(re.match(r"M\S+ (\S+?)[ahLv]", path.get("d"))[1])
        for path in ElementTree.fromstring(overlay_html(data, "peak_bytes")).iter(f"{SVG}path")
        if path.get("class") == "sw-point" and path.find(f"{SVG}title") is not None
    ]
    assert max(marks) - min(marks) > 60  # of 272 units of height


def test_no_look_comes_twice_before_all_were_had():
    assert len({place_of(number)[:2] for number in range(49)}) == 49
    figure = overlay_still(many(20))
    strip = figure.axes[1]
    looks = [(line.get_color(), line.get_marker()) for line in strip.lines]
    assert len(set(looks)) == len(looks) == 20
    svg = ElementTree.fromstring(overlay_html(many(20))).find(f".//{SVG}svg")
    marks = [group.find(f"{SVG}path") for group in svg.iter() if group.get("data-last")]
    shapes = {(path.get("fill"), path.get("stroke"), re.sub(r"M\S+ \S+?(?=[ahLv]|$)|[\d.-]+", "",
               path.get("d"))) for path in marks}  # fmt: skip
    assert len(marks) == 20 and len(shapes) >= 15


def test_on_paper_final_scores_have_a_strip_of_their_own():
    figure = overlay_still(many(3))
    axes, strip = figure.axes
    assert "final score" in strip.get_xlabel()
    assert [len(line.get_xdata()) for line in axes.lines] == [3, 3, 3]
    assert [float(line.get_ydata()[0]) for line in strip.lines] == [1.0] * 3
    assert strip.get_ylim() == axes.get_ylim()
    assert len(overlay_still(many(3), "peak_bytes").axes) == 1


def test_on_paper_every_remark_is_whole():
    remarks = ["they spent unequal compute, from 1.23e+12 FLOPs (toy-" + "grow-" * 30 + "1a2b3c4d) "
               "to 2.5e+12 (toy-left_to_right-5e6f7a8b)"] * 4  # fmt: skip
    figure = overlay_still(many(2), remarks=remarks)
    (text,) = figure.texts
    assert "..." not in text.get_text()
    assert "".join(text.get_text().split()) == "".join("".join(remarks).split())
    figure.draw_without_rendering()
    box = text.get_window_extent()
    assert box.x1 < figure.bbox.width and box.y0 >= 0
    labels = [axes.xaxis.label.get_window_extent() for axes in figure.axes]
    assert box.y1 < min(label.y0 for label in labels)
