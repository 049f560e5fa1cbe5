"""Voila shows a notebook's widgets and charts as an app, not its code, and asks for its token."""

import urllib.request
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page

from .notebooks import write_notebook
from .servers import Served

APP = """
import ipywidgets as widgets
import plotly.graph_objects as go

name = widgets.Text(description="Name")
chart = go.FigureWidget(go.Scatter(y=[3, 1], mode="markers"), layout={"height": 200})
button = widgets.Button(description="Add a point")
said = widgets.Label("nothing added")


@button.on_click
def add(_):
    chart.data[0].y = [*chart.data[0].y, 2]
    said.value = f"added by {name.value}"


widgets.VBox([name, button, said, chart])
"""


def test_voila_serves_a_notebook(
    voila: Callable[[Path], Served], page: Page, tmp_path: Path
) -> None:
    app = voila(write_notebook(tmp_path / "app.ipynb", APP))
    points = page.locator(".scatterlayer .point")
    points.nth(1).wait_for()
    page.get_by_label("Name", exact=True).fill("Ada")
    page.get_by_role("button", name="Add a point").click()
    page.get_by_text("added by Ada").wait_for()
    points.nth(2).wait_for()
    assert "import plotly" not in page.locator("body").inner_text()

    with urllib.request.urlopen(app.url, timeout=10) as without_token:
        assert without_token.url.startswith(f"{app.url}/login")
