"""The looks of all that the workbench shows; light and dark follow the page's own colours."""

from __future__ import annotations

from functools import cache

import anywidget

from stackwise_widgets.comparison.style import CSS as COMPARISON
from stackwise_widgets.form import CSS as FORM
from stackwise_widgets.inspection.style import CSS as INSPECTION
from stackwise_widgets.views import CSS as VIEWS
from stackwise_widgets.views.step_style import STEP_CSS as STEP

PANELS = """
.sw-panel { max-width: 1500px; min-width: 0; }
.sw-bar { position: sticky; top: 0; z-index: 5; padding: 4px 0;
  background: var(--jp-layout-color0, #fff);
  border-bottom: 1px solid var(--jp-border-color2, #ccc); }
.sw-progress { display: flex; gap: 2px; height: 10px; margin: 4px 0; max-width: 900px; }
.sw-stage-bar { background: var(--jp-layout-color3, #d5d5d5); min-width: 2px; overflow: hidden; }
.sw-stage-bar > div { height: 100%; background: var(--jp-brand-color1, #0072b2); }
.sw-columns { display: flex; flex-flow: row wrap; gap: 16px; align-items: flex-start; }
.sw-columns > * { min-width: 0; }
.sw-panel .widget-html, .sw-panel .widget-html-content { min-width: 0; max-width: 100%; }
.sw-title { margin: 4px 0 8px; font-size: 15px; font-weight: 600;
  color: var(--jp-ui-font-color1, #222); }
.sw-said { color: var(--jp-ui-font-color1, #222); line-height: 1.45; }
.sw-quiet { color: var(--jp-ui-font-color2, #555); }
.sw-columns > .widget-box, .sw-form, .sw-form .widget-box { overflow: visible; }
.sw-error { border: 1px solid var(--jp-error-color1, #b3261e); border-left-width: 6px;
  padding: 6px 12px; margin: 4px 0; color: var(--jp-ui-font-color1, #222);
  background: var(--jp-layout-color1, #fff); border-radius: 3px; overflow-wrap: anywhere; }
.sw-error ul { margin: 4px 0 4px 18px; padding: 0; }
.sw-error pre, .sw-log { max-height: 240px; overflow: auto; font-size: 12px;
  background: var(--jp-layout-color2, #f3f3f3); color: var(--jp-ui-font-color1, #222);
  padding: 6px; }
.sw-panel :focus-visible { outline: 2px solid var(--jp-brand-color1, #0072b2);
  outline-offset: 1px; }
"""

GONE = """
.sw-panel.jupyter-widgets-disconnected::before { position: static; width: auto; height: auto;
  content: "The kernel that this panel belonged to is gone: run its cell again. Runs go on.";
  display: block; padding: 6px 12px; margin: 4px 0; font-weight: 600;
  border-left: 6px solid var(--jp-warn-color1, #c77700);
  color: var(--jp-ui-font-color1, #222); background: var(--jp-layout-color2, #f3f3f3); }
.sw-panel .jupyter-widgets-disconnected::before { content: none; }
"""

CSS = "\n".join([VIEWS, FORM, COMPARISON, INSPECTION, STEP, PANELS, GONE])

# JupyterLab takes single keys from buttons and lists in an output, unless what has the focus says
# that it wants them; see tests/browser/test_single_keys_are_the_notebooks.py.
KEYS = """
function render({ el }) {
  el.style.display = "none";
  let left = 600;
  const wait = () => {
    const panel = el.closest(".sw-panel");
    if (!panel) {
      if (left-- > 0) requestAnimationFrame(wait);
      return;
    }
    panel.addEventListener("focusin", (event) => {
      event.target.dataset.lmSuppressShortcuts = "true";
    });
    let width = panel.clientWidth;
    new ResizeObserver(() => {  // a chart listens to its window, and not to its place
      if (panel.clientWidth !== width && (width = panel.clientWidth)) {
        window.dispatchEvent(new Event("resize"));
      }
    }).observe(panel);
    panel.dataset.swReady = "true";
  };
  wait();
}
export default { render };
"""


class Looks(anywidget.AnyWidget):
    """What every panel has in its page, and nobody sees: its looks, its keys, charts that fit."""

    _css = CSS
    _esm = KEYS


@cache
def stylesheet() -> Looks:
    """The one of this kernel; every panel shows it first."""
    return Looks()
