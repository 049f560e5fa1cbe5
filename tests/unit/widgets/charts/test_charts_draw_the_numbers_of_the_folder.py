"""What is drawn of a run is what its folder says, at the place where it says it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from stackwise.runs.layers import layers_of
from stackwise_widgets.charts import run_figure, run_still, run_table, view_of
from stackwise_widgets.charts.panels import memory_unit
from stackwise_widgets.charts.style import KINDS

CURRICULA = ["end_to_end", "left_to_right", "right_to_left", "grow"]
UNITS = {"steps": "step", "tokens": "tokens", "flops": "flops", "seconds": "seconds"}


def trace(figure, name: str):
    return next(t for t in figure.data if (t.name or "").replace("<br>", " ") == name)


def points(found) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(found.x, found.y, strict=True) if not np.isnan(y)]


@pytest.mark.parametrize("name", CURRICULA)
@pytest.mark.parametrize("unit", UNITS)
def test_losses_lie_where_metrics_and_evals_say(shipped, name, unit) -> None:
    run = shipped[name]
    figure = run_figure(view_of(run), x=unit)
    for title, frame in (("training", run.metrics()), ("held-out", run.evals())):
        expected = list(zip(frame[UNITS[unit]].astype(float), frame["loss"], strict=True))
        assert points(trace(figure, title)) == expected
    masked = run.metrics()["masked_frac"].tolist()
    assert [y for _, y in points(trace(figure, "masked fraction"))] == masked


@pytest.mark.parametrize("name", CURRICULA)
def test_the_matrix_holds_every_exit_at_its_layer_and_look(shipped, name) -> None:
    run = shipped[name]
    heat = trace(run_figure(view_of(run)), "held-out loss by exit")
    rows = layers_of(run)
    at = {step: column for column, step in enumerate(heat.x[1:])}
    layer = {block: row for row, block in enumerate(heat.y)}
    drawn = {
        (int(s), b): heat.z[layer[b]][at[s]] for s, b in zip(rows.step, rows.block, strict=True)
    }
    assert drawn == {
        (s, b): v for s, b, v in zip(rows.step, rows.block, rows.exit_loss, strict=True)
    }
    assert np.isfinite(heat.z).sum() == len(rows)  # a layer that is not there yet has no cell
    assert list(heat.y) == ["embedding", "s0.0", "s1.0", "s2.0", "s3.0"]


def test_gradient_norms_are_drawn_where_a_layer_trains(shipped) -> None:
    run = shipped["right_to_left"]
    heat = trace(run_figure(view_of(run), heat="grad_norm"), "gradient norm")
    metrics, norms = run.metrics(), np.full((6, 169), np.nan)
    for column, row in metrics.iterrows():
        active = run.stages()[row["stage"]]["active"]
        norms[1:5, column] = [v if f"s{n}" in active else np.nan
                              for n, v in enumerate(row["block_grad_norms"])]  # fmt: skip
        if row["stage"] == 0:
            norms[0, column], norms[5, column] = row["embedding_grad_norm"], row["head_grad_norm"]
    np.testing.assert_array_equal(heat.z, np.log10(norms))
    assert heat.x.tolist() == [0.0, *metrics["step"]]


@pytest.mark.parametrize("name", CURRICULA)
def test_borders_are_the_ends_of_the_stages(shipped, name) -> None:
    run = shipped[name]
    figure = run_figure(view_of(run), x="flops")
    path = next(s.path for s in figure.layout.shapes if s.name == "ends reached")
    drawn = {float(x) for x in re.findall(r"M([^,]+),", path)}
    assert drawn == set(run.metrics().groupby("stage")["flops"].max())
    assert {s.name for s in figure.layout.shapes} == {"ends reached", "trains"}
    names = [stage["name"] for stage in run.stages()]
    said = [note.hovertext for note in figure.layout.annotations if note.hovertext]
    assert [text.split(":")[0].split(", ")[1] for text in said] == names


@pytest.mark.parametrize("name", CURRICULA)
def test_memory_is_what_was_measured_and_predicted(shipped, name) -> None:
    run = shipped[name]
    view = view_of(run)
    figure, (size, _) = run_figure(view), memory_unit(view)
    memory = run.memory().set_index(["category", "stage"])
    for kind in KINDS[:-1]:
        drawn = np.asarray(trace(figure, kind).y) * size
        np.testing.assert_allclose(drawn, memory.loc[kind]["measured"].astype(float), rtol=1e-15)
    for title, category, column in (("sum, predicted", "total", "predicted"),
                                    ("peak, measured", "peak", "measured")):  # fmt: skip
        level = np.asarray(trace(figure, title).y)[::3] * size
        np.testing.assert_allclose(level, memory.loc[category][column].astype(float), rtol=1e-15)


def test_the_table_holds_what_the_picture_draws(shipped) -> None:
    run = shipped["grow"]
    table = run_table(view_of(run)).set_index("panel")
    assert table.loc["loss"]["value"].tolist() == run.metrics()["loss"].tolist()
    assert sorted(table.loc["exit_loss"]["value"]) == sorted(layers_of(run)["exit_loss"])
    peaks = table.loc["measured"].query("row == 'peak'")["value"].tolist()
    assert peaks == [event["peak"] for event in run.events("memory")]
    assert table.loc["heldout"]["flops"].tolist() == run.evals()["flops"].tolist()


@pytest.mark.parametrize("heat", ["exit_loss", "grad_norm"])
def test_the_picture_on_paper_draws_the_same_losses(shipped, heat) -> None:
    run = shipped["right_to_left"]
    figure = run_still(view_of(run), x="tokens", heat=heat)
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[1].get_lines()}
    for title, frame in (("training", run.metrics()), ("held-out", run.evals())):
        drawn = lines[title][~np.isnan(lines[title][:, 1])]
        np.testing.assert_array_equal(drawn, frame[["tokens", "loss"]].to_numpy(float))
    assert figure._repr_png_()[:4] == b"\x89PNG"


def test_an_axis_that_there_is_not_is_named(shipped) -> None:
    view = view_of(shipped["grow"])
    with pytest.raises(ValueError) as error:
        run_figure(view, x="epochs")
    assert str(error.value) == "x: 'epochs' is not one of steps, tokens, flops, seconds"
    with pytest.raises(ValueError) as error:
        run_figure(view, heat="loss")
    assert str(error.value) == "heat: 'loss' is not one of exit_loss, grad_norm"


def test_words_of_strangers_are_escaped(made, attempt) -> None:
    run = made()
    stages = json.dumps(run.stages()).replace("stage0", "<a href='x'>")
    (run.path / "stages.json").write_text(stages)
    attempt(run, 1, 10)
    words = [note.text for note in run_figure(view_of(run)).layout.annotations]
    assert any("&lt;a" in text for text in words) and not any("<a" in text for text in words)


def test_on_paper_as_on_screen_the_predicted_peak_is_drawn(shipped) -> None:
    view = view_of(shipped["grow"])
    assert all(stage.predicted_peak for stage in view.stages)
    size = memory_unit(view)[0]
    axes = run_still(view).axes[3]
    dotted = [y for line in axes.lines if line.get_linestyle() == ":" for y in line.get_ydata()[:1]]
    planned = [stage.predicted_peak / size for stage in view.stages]
    assert [y for y in dotted if y in planned] == planned
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend[:3] == ["peak, measured", "peak, predicted", "sum, predicted"]


def test_names_of_stages_lie_under_plotlys_tool_bar(shipped) -> None:
    layout = run_figure(view_of(shipped["grow"])).layout
    names = [note for note in layout.annotations if note.y == 1.0 and note.yanchor == "bottom"]
    assert names
    bar, word = 30, 2 + 1.3 * max(note.font.size for note in names)  # pixels
    assert layout.margin.t >= bar + word
