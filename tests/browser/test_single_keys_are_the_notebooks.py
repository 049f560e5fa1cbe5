"""JupyterLab takes single keys from a dropdown or a button in an output: B makes a new cell.

Text fields keep theirs, and so does whatever has `data-lm-suppress-shortcuts` when a key arrives,
which an anywidget in the panel can set as the keyboard comes in. A panel for the keyboard needs it.
"""

import pytest

from .lab import Lab

PANEL = """
import anywidget
import ipywidgets as widgets


class KeepsKeys(anywidget.AnyWidget):
    _esm = '''
    export default { render({el}) {
      const wait = () => {
        const panel = el.closest(".keeps-keys");
        if (!panel) return requestAnimationFrame(wait);
        panel.addEventListener("focusin", (event) => {
          event.target.dataset.lmSuppressShortcuts = "true";
        });
        panel.dataset.ready = "true";
      };
      wait();
    } };
    '''


curriculum = widgets.Dropdown(description="Curriculum", options=["grow", "all", "both"])
"""
BARE = "curriculum"
KEPT = """
panel = widgets.VBox([curriculum, KeepsKeys()])
panel.add_class("keeps-keys")
panel
"""


@pytest.mark.parametrize("key", ["ArrowDown", "b"])
def test_a_dropdown_does_not_get_its_keys(lab: Lab, key: str) -> None:
    lab.open(lab.write("keys.ipynb", f"{PANEL}\n{BARE}", "'the next cell'"))
    lab.run(0)
    lab.field("Curriculum").focus()
    lab.press(key)
    lab.page.wait_for_function("jupyterapp.shell.currentWidget.content.activeCellIndex === 1")
    assert cells(lab) == (3 if key == "b" else 2)
    assert lab.value("curriculum.value") == "'grow'"


def test_a_panel_can_keep_its_keys(lab: Lab) -> None:
    lab.open(lab.write("keys.ipynb", f"{PANEL}\n{KEPT}", "'the next cell'"))
    lab.run(0)
    lab.page.locator(".keeps-keys[data-ready]").wait_for()
    lab.field("Curriculum").focus()
    lab.press("ArrowDown")
    lab.wait_for_value("curriculum.value", "'all'")
    lab.press("b")
    lab.wait_for_value("curriculum.value", "'both'")
    assert cells(lab) == 2


def cells(lab: Lab) -> int:
    return lab.page.locator(".jp-Notebook .jp-Cell").count()
