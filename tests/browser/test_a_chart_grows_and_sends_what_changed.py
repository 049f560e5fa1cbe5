"""plotly's FigureWidget draws in JupyterLab, grows from a thread, and sends matrices as text.

So a live chart sends layers × steps as columns of numbers, or rounded, and never as it comes.
"""

from .lab import Lab
from .notebooks import HELD

GROWS = """
import threading, time
import plotly.graph_objects as go

chart = go.FigureWidget(layout={"height": 300, "width": 600, "title": "Loss"})
chart.add_scatter(y=[3.0, 2.0], mode="markers")


def grow():
    while True:
        time.sleep(0.2)
        with chart.batch_update():
            chart.data[0].y = [*chart.data[0].y, 1.0]


chart
"""
START = f"threading.Thread(target=grow, daemon=True).start()\n{HELD}"

LAYERS = """
import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go

layer_N, step_N = np.divmod(np.arange(80 * 200, dtype="int16"), 200)
new_LS = np.random.default_rng(0).random((80, 200))
size = {"width": 600, "height": 200}
matrix = go.FigureWidget(go.Heatmap(z=np.zeros((80, 200))), layout=size)
columns = go.FigureWidget(go.Heatmap(x=step_N, y=layer_N, z=np.zeros(80 * 200)), layout=size)
widgets.VBox([matrix, columns])
"""
AS_IT_COMES = "matrix.data[0].z = new_LS"
ROUNDED = "matrix.data[0].z = new_LS.round(3)"
AS_COLUMNS = "columns.data[0].z = new_LS.ravel().astype('float32')"


def test_a_chart_grows_from_a_thread_while_a_cell_runs(lab: Lab) -> None:
    lab.open(lab.write("chart.ipynb", GROWS, START))
    lab.run(0)
    points = lab.output(0).locator(".scatterlayer .point")
    points.nth(1).wait_for()
    assert points.count() == 2
    assert lab.output(0).locator(".gtitle").text_content() == "Loss"

    lab.run(1, wait=False)
    points.nth(4).wait_for()
    assert lab.busy


def test_layers_over_steps_are_small_as_columns_or_rounded(lab: Lab) -> None:
    """In bytes that arrive at the page for 80 layers × 200 steps."""
    lab.open(lab.write("layers.ipynb", LAYERS, AS_IT_COMES, ROUNDED, AS_COLUMNS))
    lab.run(0)
    lab.output(0).locator(".heatmaplayer image").nth(1).wait_for()
    assert received_by(lab, 1, chart=0) > 300_000
    assert received_by(lab, 2, chart=0) < 140_000
    assert 64_000 < received_by(lab, 3, chart=1) < 95_000


def received_by(lab: Lab, cell: int, chart: int) -> int:
    """Bytes that the page got while a cell ran, once the chart that it changes is drawn anew."""
    before = lab.received_bytes
    image = lab.output(0).locator(".heatmaplayer image").nth(chart)
    drawn = image.get_attribute("href")
    lab.run(cell)
    lab.page.wait_for_function(
        "([image, drawn]) => image.getAttribute('href') !== drawn",
        arg=[image.element_handle(), drawn],
    )
    return lab.received_bytes - before
