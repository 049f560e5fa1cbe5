"""After a kernel restart widgets stay, with a broken link, and do nothing; a chart has no mark.

So a panel shows what is in the run's folder, and running its cell again brings all of it back.
"""

from .lab import Lab

PANEL = """
import ipywidgets as widgets
import plotly.graph_objects as go

pressed = 0
said = widgets.Label("pressed 0 times")
button = widgets.Button(description="Press")


@button.on_click
def press(_):
    global pressed
    pressed += 1
    said.value = f"pressed {pressed} times"


chart = go.FigureWidget(go.Scatter(y=[3, 1, 2]), layout={"height": 200})
widgets.VBox([button, said, chart])
"""
BROKEN_LINK = ".jupyter-widgets-disconnected"


def test_a_restart_leaves_widgets_dead_until_their_cell_runs_again(lab: Lab) -> None:
    lab.open(lab.write("restarted.ipynb", PANEL))
    lab.run(0)
    lab.click("Press")
    lab.wait_for("pressed 1 times")
    lab.output(0).locator(".js-plotly-plot").wait_for()
    assert lab.output(0).locator(BROKEN_LINK).count() == 0

    lab.restart()
    lab.picture("restarted")
    for kind in ("widget-vbox", "widget-button", "widget-label"):
        assert lab.output(0).locator(f".{kind}{BROKEN_LINK}").count() == 1
    assert lab.output(0).locator(BROKEN_LINK).count() == 3
    assert lab.output(0).locator(".js-plotly-plot").is_visible()
    lab.output(0).get_by_role("button", name="Press").click()
    lab.console.expect("Cannot send")
    assert lab.value("'pressed' in globals()") == "False"
    assert "pressed 1 times" in lab.text(0)
    assert lab.page.get_by_role("dialog").count() == 0

    lab.run(0)
    lab.click("Press")
    lab.wait_for("pressed 1 times")
    assert lab.output(0).locator(BROKEN_LINK).count() == 0
